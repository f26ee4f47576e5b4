//! A proxy that cuts connections at a chosen octet.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Passes connections on to a loopback port, until it is told to cut.
pub(crate) struct Cutter {
    pub(crate) port: u16,
    /// Octets that still go to the server.
    left: Arc<AtomicU64>,
    /// Whether the next answer of the server cuts the connection instead.
    is_mute: Arc<AtomicBool>,
}

impl Cutter {
    /// A proxy in front of `server`. Lives as long as the process.
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let is_mute = Arc::new(AtomicBool::new(false));
        let cutter = Self { port, left: Arc::clone(&left), is_mute: Arc::clone(&is_mute) };
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) =
                    (client.unwrap(), TcpStream::connect(("127.0.0.1", server)).unwrap());
                let other = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (left, is_mute) = (Arc::clone(&left), Arc::clone(&is_mute));
                thread::spawn(move || to_server(client, server, &left));
                thread::spawn(move || to_client(other.0, other.1, &is_mute));
            }
        });
        cutter
    }

    /// Cuts when so many more octets have gone to the server.
    pub(crate) fn cut_after(&self, octets: u64) {
        self.left.store(octets, Ordering::SeqCst);
    }

    /// Lets the server have everything and the client nothing more.
    pub(crate) fn cut_at_answer(&self) {
        self.is_mute.store(true, Ordering::SeqCst);
    }

    /// Passes everything on again; for new connections.
    pub(crate) fn mend(&self) {
        self.left.store(u64::MAX, Ordering::SeqCst);
        self.is_mute.store(false, Ordering::SeqCst);
    }
}

fn to_server(mut client: TcpStream, mut server: TcpStream, left: &AtomicU64) {
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = client.read(&mut piece) {
        let passed = left.load(Ordering::SeqCst).min(len as u64);
        let written = server.write_all(&piece[..usize::try_from(passed).unwrap()]);
        if left.fetch_sub(passed, Ordering::SeqCst) == passed || written.is_err() {
            break;
        }
    }
    cut(&client, &server);
}

fn to_client(mut server: TcpStream, mut client: TcpStream, is_mute: &AtomicBool) {
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = server.read(&mut piece) {
        if is_mute.load(Ordering::SeqCst) || client.write_all(&piece[..len]).is_err() {
            break;
        }
    }
    cut(&client, &server);
}

fn cut(client: &TcpStream, server: &TcpStream) {
    for stream in [client, server] {
        // One of them may be gone already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}
