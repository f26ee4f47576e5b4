//! A client of saslauthd: is this the password of this user?
//!
//! ```text
//! request:  user, password, service, realm; each u16 big-endian length, octets
//! answer:   u16 big-endian length, text that begins "OK" or "NO"
//! ```
//!
//! One connection carries one request.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Where Debian's saslauthd listens.
pub const DEFAULT_PATH: &str = "/run/saslauthd";

/// Time for connecting, asking and being answered, together.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
/// saslauthd reads at most this much of a field, and cuts it at a NUL.
const MAX_FIELD_LEN: usize = 256;
const MAX_ANSWER_LEN: usize = 4096;

/// Why there was no answer. A "no" is an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SaslauthdError {
    /// Not reachable, or too slow.
    #[error("saslauthd at {}: {source}", .path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// Neither yes nor no.
    #[error("saslauthd at {}: unintelligible answer {answer:?}", .path.display())]
    Answer {
        /// Its socket.
        path: PathBuf,
        /// The first octets of what it said.
        answer: String,
    },
}

/// Asks the daemon at `path` (its socket, or the directory in which its socket
/// is named `mux`) whether `password` is that of `user`. What follows the last
/// `@` of the name is sent as the realm, as libsasl does.
pub(super) fn check(
    path: &Path,
    service: &str,
    user: &str,
    password: &[u8],
    timeout: Duration,
) -> Result<bool, SaslauthdError> {
    let (user, realm) = user.rsplit_once('@').unwrap_or((user, ""));
    let fields = [user.as_bytes(), password, service.as_bytes(), realm.as_bytes()];
    let unfit = |field: &[u8]| field.len() > MAX_FIELD_LEN || field.contains(&0);
    if password.is_empty() || fields.into_iter().any(unfit) {
        return Ok(false);
    }
    let path = socket_path(path);
    let answer = ask(&path, &request(fields), Instant::now() + timeout)
        .map_err(|source| SaslauthdError::Io { path: path.clone(), source })?;
    match answer.get(..2) {
        Some(b"OK") => Ok(true),
        Some(b"NO") => Ok(false),
        _ => Err(SaslauthdError::Answer {
            path,
            answer: String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned(),
        }),
    }
}

fn socket_path(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.join("mux"),
        false => path.to_owned(),
    }
}

/// The fields were measured: each length fits into 16 bits.
fn request(fields: [&[u8]; 4]) -> Vec<u8> {
    let mut request = Vec::new();
    for field in fields {
        request.extend_from_slice(&(field.len() as u16).to_be_bytes());
        request.extend_from_slice(field);
    }
    request
}

fn ask(path: &Path, request: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = connect(path, deadline)?;
    stream.set_write_timeout(Some(remaining(deadline)?))?;
    stream.write_all(request).map_err(timed_out)?;
    let mut len = [0; 2];
    read_exact(&mut stream, &mut len, deadline)?;
    let len = usize::from(u16::from_be_bytes(len));
    if len > MAX_ANSWER_LEN {
        return Err(io::Error::other(format!("an answer of {len} octets")));
    }
    let mut answer = vec![0; len];
    read_exact(&mut stream, &mut answer, deadline)?;
    Ok(answer)
}

/// Connects without blocking: with a full queue the kernel says so at once, and
/// would otherwise wait for as long as the daemon hangs.
fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    loop {
        match mio::net::UnixStream::connect(path) {
            Ok(stream) => {
                let stream = UnixStream::from(stream);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                remaining(deadline)?;
                thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(e),
        }
    }
}

/// Like [`Read::read_exact`], with one deadline for all of it: a daemon that
/// sends an octet now and then does not hold us for ever.
fn read_exact(stream: &mut UnixStream, mut buf: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buf.is_empty() {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(buf) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => buf = &mut buf[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(timed_out(e)),
        }
    }
    Ok(())
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// A socket timeout is reported as EAGAIN.
fn timed_out(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => e,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Answers one request with the given octets and keeps the connection.
    fn stub(answer: &'static [u8]) -> (tempfile::TempDir, thread::JoinHandle<Vec<u8>>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("mux")).unwrap();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let len = peer.read(&mut request).unwrap();
            peer.write_all(answer).unwrap();
            let mut rest = Vec::new();
            let _ = peer.read_to_end(&mut rest);
            request[..len].to_vec()
        });
        (dir, server)
    }

    fn check_stub(answer: &'static [u8]) -> Result<bool, SaslauthdError> {
        let (dir, server) = stub(answer);
        let timeout = Duration::from_millis(300);
        let verdict = check(dir.path(), "csync", "tom@example.com", b"pw", timeout);
        assert_eq!(server.join().unwrap(), b"\0\x03tom\0\x02pw\0\x05csync\0\x0bexample.com");
        verdict
    }

    #[test]
    fn request_and_answers() {
        assert!(check_stub(b"\0\x02OK").unwrap());
        assert!(check_stub(b"\0\x07OK good").unwrap());
        assert!(!check_stub(b"\0\x06NO bad").unwrap());
        for hostile in [&b"\0\0"[..], b"\0\x01O", b"\0\x02ok", b"\0\x03YES"] {
            let unintelligible = check_stub(hostile);
            assert!(matches!(unintelligible, Err(SaslauthdError::Answer { .. })));
        }
        assert!(matches!(check_stub(b"\xff\xffOK"), Err(SaslauthdError::Io { .. })));
    }

    #[test]
    fn a_silent_daemon_is_given_up() {
        for half in [&b""[..], b"\0", b"\0\x02O"] {
            match check_stub(half) {
                Err(SaslauthdError::Io { source, .. }) => {
                    assert_eq!(source.kind(), io::ErrorKind::TimedOut);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_daemon_that_does_not_accept_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("mux")).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = mio::net::UnixStream::connect(dir.path().join("mux")) {
            queued.push(stream);
        }
        let timeout = Duration::from_millis(100);
        let error = check(dir.path(), "csync", "tom", b"pw", timeout).unwrap_err();
        assert!(error.to_string().contains("timed out"), "{error}");
        drop(listener);
    }

    #[test]
    fn a_missing_daemon_is_an_error_and_unfit_fields_a_no() {
        let dir = tempfile::tempdir().unwrap();
        let ask = |user: &str, password: &[u8]| {
            check(&dir.path().join("mux"), "csync", user, password, TIMEOUT)
        };
        let error = ask("tom", b"pw").unwrap_err().to_string();
        assert!(error.contains("mux: No such file"), "{error}");
        assert!(!ask("tom", b"").unwrap());
        assert!(!ask("tom", b"pw\0").unwrap());
        assert!(!ask("tom", &[b'a'; MAX_FIELD_LEN + 1]).unwrap());
        ask("tom", &[b'a'; MAX_FIELD_LEN]).unwrap_err();
    }
}
