//! A first backup, with nothing to set up: a server on a free loopback port with a
//! temporary store, some sample mail sent to it through the replication protocol as a
//! mail server would, then the tools: list, verify, and one message got back.
//!
//!     cargo run --release --example quickstart

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use cyrbk::cmd::{self, Streams};
use cyrbk::config::Settings;
use cyrbk::sync::auth::PasswordFile;
use cyrbk::sync::server::bind;
use cyrbk::wire::Guid;
use sha1::{Digest, Sha1};

const MESSAGES: usize = 12;

fn main() -> Result<()> {
    let root = tempfile::tempdir()?;
    let config = configure(root.path())?;
    println!(
        "A backup server needs a configuration directory, a partition and an administrator:\n"
    );
    print!("{}", indent(&fs::read_to_string(&config)?));

    let address = start(&config)?;
    println!("\nIt listens on {address}. A mail server logs in and replicates alice's INBOX:\n");
    let mail = sample_mail()?;
    back_up(address, &mail)?;

    println!("\nThe tools of old, on what is now on disk:");
    let message = &mail[MESSAGES / 2];
    tool(&config, &["ctl_backups", "list"])?;
    tool(&config, &["ctl_backups", "-v", "verify", "alice"])?;
    tool(&config, &["cyr_backup", "alice", "list", "mailboxes"])?;
    let guid = guid(message).to_string();
    let back = tool(&config, &["cyr_backup", "alice", "dump", "message", &guid])?;
    ensure!(&back == message, "the message came back changed");
    println!("\nThat message came back as it was sent, {} octets, SHA-1 {guid}.", back.len());
    Ok(())
}

fn configure(root: &Path) -> Result<std::path::PathBuf> {
    let path = root.join("imapd.conf");
    let at = root.display();
    // So that it also works as root, without a user named cyrus.
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?.context("who am I?")?.name;
    let text = format!(
        "configdirectory: {at}/conf\n\
         backuppartition-default: {at}/backups\n\
         backup_staging_path: {at}/staging\n\
         admins: backup\n\
         allowplaintext: yes\n\
         servername: backup.example.com\n\
         cyrus_user: {user}\n"
    );
    fs::create_dir(root.join("conf"))?;
    fs::write(&path, text)?;
    let settings = Settings::load(&path, "cyrbk")?;
    PasswordFile::new(&settings.password_file).set("backup", "secret")?;
    Ok(path)
}

/// Starts the server on a thread of its own; it ends with the process.
fn start(config: &Path) -> Result<SocketAddr> {
    let settings = Settings::load(config, "backupd")?;
    let server = cmd::serve::server(&settings, bind("127.0.0.1:0")?)?;
    let address = *server.addresses().first().context("no address")?;
    std::thread::spawn(move || server.run());
    Ok(address)
}

/// Real mail, with the line ends that mail has on a server.
fn sample_mail() -> Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mail");
    let mut paths: Vec<_> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    paths.iter().take(MESSAGES).map(|path| Ok(with_crlf(&fs::read(path)?))).collect()
}

/// The corpus has a line of its own in front of some messages, which is no header.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let text = match text.iter().position(|&c| c == b'\n') {
        Some(end) if text.starts_with(b"From ") => &text[end + 1..],
        _ => text,
    };
    let lines = text.split(|&c| c == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.collect::<Vec<_>>().join(&b"\r\n"[..])
}

fn guid(message: &[u8]) -> Guid {
    Guid::from(<[u8; 20]>::from(Sha1::digest(message)))
}

/// What `sync_client -u alice` says to a server that does not know alice yet.
fn back_up(address: SocketAddr, mail: &[Vec<u8>]) -> Result<()> {
    let mut client = Client::connect(address)?;
    let login = base64::engine::general_purpose::STANDARD.encode("\0backup\0secret");
    client.ask("AUTHENTICATE PLAIN ...", format!("AUTHENTICATE PLAIN {login}\r\n").as_bytes())?;
    client.ask("GET USER alice", b"GET USER alice\r\n")?;

    let mut line = b"APPLY MESSAGE (".to_vec();
    let mut records = Vec::new();
    for (i, message) in mail.iter().enumerate() {
        let (uid, guid, size) = (i + 1, guid(message), message.len());
        if i > 0 {
            line.push(b' ');
        }
        line.extend_from_slice(format!("%{{default {guid} {size}}}\r\n").as_bytes());
        line.extend_from_slice(message);
        records.push(format!(
            "%(UID {uid} MODSEQ {uid} LAST_UPDATED 1700000000 FLAGS (\\Seen) INTERNALDATE \
             1700000000 SIZE {size} GUID {guid})"
        ));
    }
    line.extend_from_slice(b")\r\n");
    client.ask(&format!("APPLY MESSAGE ({} messages)", mail.len()), &line)?;

    let (count, records) = (mail.len(), records.join(" "));
    let mailbox = format!(
        "APPLY MAILBOX %(UNIQUEID oy47mhrzscsurirwweiafg28 MBOXNAME user.alice SYNC_CRC 0 \
         SYNC_CRC_ANNOT 0 LAST_UID {count} HIGHESTMODSEQ {count} RECENTUID {count} RECENTTIME \
         1700000000 LAST_APPENDDATE 1700000000 POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY \
         1700000000 PARTITION default ACL \"alice\tlrswipkxtecdan\t\" OPTIONS P RECORD \
         ({records}))\r\n"
    );
    client.ask("APPLY MAILBOX %(... MBOXNAME user.alice ...)", mailbox.as_bytes())?;
    client.ask("EXIT", b"EXIT\r\n")
}

struct Client {
    socket: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Client> {
        let mut client = Client { socket: BufReader::new(TcpStream::connect(address)?) };
        while !client.line()?.starts_with("* OK") {}
        Ok(client)
    }

    /// Sends a command, and wants OK for it.
    fn ask(&mut self, shown: &str, command: &[u8]) -> Result<()> {
        println!("    C: {shown}");
        self.socket.get_mut().write_all(command)?;
        loop {
            let line = self.line()?;
            if !line.starts_with("* ") {
                ensure!(line.starts_with("OK "), "the server said: {line}");
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.socket.read_line(&mut line)? > 0, "the server closed the connection");
        println!("    S: {}", line.trim_end());
        Ok(line)
    }
}

/// Runs one of the tools as its name on the command line would, shows what it
/// printed, and returns it.
fn tool(config: &Path, words: &[&str]) -> Result<Vec<u8>> {
    println!("\n    $ {}", words.join(" "));
    let mut args: Vec<OsString> = words.iter().map(OsString::from).collect();
    args.extend(["-C".into(), config.into()]);
    let mut out = Vec::new();
    let mut err = io::stderr();
    let mut streams = Streams::new(&mut out, &mut err);
    let exit = cmd::run(&args, &mut streams);
    ensure!(matches!(exit, Ok(cmd::Exit::Ok)), "{} failed", words[0]);
    let text = String::from_utf8_lossy(&out);
    let shown: Vec<&str> = text.lines().take(10).collect();
    print!("{}", indent(&shown.join("\n")));
    if text.lines().count() > shown.len() {
        println!("    ...");
    }
    Ok(out)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {}\n", line.trim_end())).collect()
}
