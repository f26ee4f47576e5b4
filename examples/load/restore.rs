//! The other end of a restore: a mail server that has nothing and takes everything.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use cyrbk::wire::dlist::{Value, parse_item};
use cyrbk::wire::frame::{Event, Framer, Limits};

use crate::modes::Report;
use crate::process;

/// In the words of a tool: where the server is.
const PLACEHOLDER: &str = "SERVER";

#[derive(Args)]
pub(crate) struct Restore {
    /// A restoring program and its words, with SERVER in place of the mail server's address.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// What has arrived.
#[derive(Default)]
struct Arrived {
    messages: AtomicU64,
    octets: AtomicU64,
    /// Their names.
    mailboxes: Mutex<BTreeSet<Vec<u8>>>,
}

/// Runs a program that restores into a server which costs next to nothing; fails as it fails.
pub(crate) fn restore(args: &Restore) -> Result<Report> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let arrived = Arc::new(Arrived::default());
    let counts = Arc::clone(&arrived);
    // It ends with this program.
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let counts = Arc::clone(&counts);
            std::thread::spawn(move || {
                if let Err(error) = Connection::new(socket, &counts).serve() {
                    eprintln!("connection: {error:#}");
                }
            });
        }
    });
    let words: Vec<OsString> = args
        .words
        .iter()
        .map(|word| if word == OsStr::new(PLACEHOLDER) { (&address).into() } else { word.clone() })
        .collect();
    let cost = process::run(&words)?;
    ensure!(cost.code == Some(0), "exit code {:?}", cost.code);
    let count = |counter: &AtomicU64| u128::from(counter.load(Ordering::Relaxed));
    Ok(Report(vec![
        ("messages", count(&arrived.messages)),
        ("octets", count(&arrived.octets)),
        ("mailboxes", arrived.mailboxes().len() as u128),
        ("elapsed_ns", cost.elapsed.as_nanos()),
        ("cpu_ns", cost.cpu.as_nanos()),
        ("peak_octets", cost.peak.into()),
    ]))
}

impl Arrived {
    fn mailboxes(&self) -> MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Connection<'a> {
    socket: TcpStream,
    framer: Framer,
    arrived: &'a Arrived,
    /// The next line answers a challenge.
    is_challenged: bool,
}

impl<'a> Connection<'a> {
    fn new(socket: TcpStream, arrived: &'a Arrived) -> Self {
        Self { socket, framer: Framer::new(Limits::LOG), arrived, is_challenged: false }
    }

    fn serve(mut self) -> Result<()> {
        self.socket.set_nodelay(true)?;
        self.socket.write_all(b"* SASL PLAIN\r\n* OK load.example Cyrus sync server\r\n")?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let got = self.socket.read(&mut buffer)?;
            if got == 0 {
                return Ok(());
            }
            let mut input = &buffer[..got];
            loop {
                match self.framer.next(&mut input) {
                    Event::More => break,
                    Event::Continue => self.socket.write_all(b"+ go ahead\r\n")?,
                    Event::BodyStart(_) => {}
                    Event::Body(octets) => {
                        self.arrived.octets.fetch_add(octets.len() as u64, Ordering::Relaxed);
                    }
                    Event::BodyEnd => {
                        self.arrived.messages.fetch_add(1, Ordering::Relaxed);
                    }
                    Event::Line => {
                        let line = self.framer.take_line()?;
                        if !self.answer(&line)? {
                            return Ok(());
                        }
                    }
                    Event::Lost => bail!("a length that cannot be true"),
                }
            }
        }
    }

    /// Whether there will be more lines.
    fn answer(&mut self, line: &[u8]) -> Result<bool> {
        let mut words = line.splitn(3, |&c| c == b' ');
        let (verb, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let has_more = words.next().is_some();
        if verb == b"AUTHENTICATE" && !has_more && !self.is_challenged {
            self.is_challenged = true;
            self.socket.write_all(b"+ \r\n")?;
            return Ok(true);
        }
        self.is_challenged = false;
        let reply = match (verb, name) {
            (_, b"RESERVE") => missing(line)?,
            (b"GET", b"MAILBOXES") => self.shown(line)?,
            (_, b"MAILBOX" | b"LOCAL_MAILBOX") => {
                self.arrived.mailboxes().extend(mailbox_name(line)?);
                String::new()
            }
            _ => String::new(),
        };
        self.socket.write_all(format!("{reply}OK success\r\n").as_bytes())?;
        Ok(verb != b"EXIT")
    }

    /// Of the mailboxes that a line asks for those that have arrived: as if they were empty.
    fn shown(&self, line: &[u8]) -> Result<String> {
        let arrived = self.arrived.mailboxes();
        let names = value(line)?.as_list().items();
        let there = names.filter(|name| name.as_text().is_some_and(|name| arrived.contains(name)));
        Ok(there
            .filter_map(|name| Some(String::from_utf8_lossy(name.as_text()?).into_owned()))
            .map(|name| {
                format!(
                    "* MAILBOX %(UNIQUEID id-{name} MBOXNAME {name} SYNC_CRC 0 SYNC_CRC_ANNOT 0 \
                     LAST_UID 0 HIGHESTMODSEQ 1 RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 \
                     POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY 9 PARTITION default ACL \
                     \"\" OPTIONS P)\r\n"
                )
            })
            .collect())
    }
}

/// The value in `VERB NAME value`.
fn value(line: &[u8]) -> Result<Value<'_>> {
    let text = line.splitn(2, |&c| c == b' ').nth(1).context("a word alone")?;
    Ok(parse_item(text)?.1)
}

fn mailbox_name(line: &[u8]) -> Result<Option<Vec<u8>>> {
    let Value::KvList(fields) = value(line)? else { bail!("not a kvlist") };
    Ok(fields.fields().text("MBOXNAME").map(<[u8]>::to_vec))
}

/// Says of all messages that a line asks for that they are missing.
fn missing(line: &[u8]) -> Result<String> {
    let Value::KvList(fields) = value(line)? else { bail!("not a kvlist") };
    let fields = fields.fields();
    let guids = fields.get("GUID").context("RESERVE without GUID")?.as_list().items();
    let guids: Vec<String> =
        guids.filter_map(|guid| guid.as_guid()).map(|guid| guid.to_string()).collect();
    Ok(format!("* MISSING ({})\r\n", guids.join(" ")))
}
