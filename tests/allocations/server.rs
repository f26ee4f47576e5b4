//! A server in this process, and a client that allocates nothing while it is asking.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use cyrbk::cmd;
use cyrbk::config::Settings;
use cyrbk::sync::auth::PasswordFile;
use cyrbk::sync::server::bind;
use sha1::{Digest, Sha1};
use tempfile::TempDir;

pub(crate) struct Server {
    dir: TempDir,
    address: SocketAddr,
}

impl Server {
    /// It ends with the process.
    pub(crate) fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        // So that it also works as root, without a user named cyrus.
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let text = format!(
            "configdirectory: {at}/conf\nbackuppartition-one: {at}/one\n\
             backup_staging_path: {at}/staging\nadmins: admin\nallowplaintext: yes\n\
             servername: allocations.test\ncyrus_user: {user}\n"
        );
        fs::create_dir(dir.path().join("conf")).unwrap();
        let config = dir.path().join("imapd.conf");
        fs::write(&config, text).unwrap();
        let settings = Settings::load(&config, "backupd").unwrap();
        PasswordFile::new(&settings.password_file).set("admin", "secret").unwrap();
        let server = cmd::serve::server(&settings, bind("127.0.0.1:0").unwrap()).unwrap();
        let address = *server.addresses().first().unwrap();
        std::thread::spawn(move || server.run());
        Server { dir, address }
    }

    pub(crate) fn log_in(&self) -> Client {
        let mut client = Client { socket: TcpStream::connect(self.address).unwrap() };
        client.socket.set_nodelay(true).unwrap();
        client.reply();
        let login = base64::engine::general_purpose::STANDARD.encode("\0admin\0secret");
        client.ask(format!("AUTHENTICATE PLAIN {login}\r\n").as_bytes());
        client
    }

    /// Where a user's backup is.
    pub(crate) fn data_file(&self, user: &str) -> PathBuf {
        let prefix = format!("{user}_");
        let mut folders = vec![self.dir.path().join("one")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if name.starts_with(&prefix) && !name.contains('.') {
                    return path;
                }
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        panic!("{user} has no backup in {}", Path::display(self.dir.path()));
    }
}

pub(crate) struct Client {
    socket: TcpStream,
}

impl Client {
    /// Sends a command, and wants OK for it.
    pub(crate) fn ask(&mut self, command: &[u8]) {
        self.socket.write_all(command).unwrap();
        self.reply();
    }

    /// Reads on until a line that begins with `OK`, or `* OK` as the greeting does.
    fn reply(&mut self) {
        let mut buffer = [0; 4096];
        let mut filled = 0;
        loop {
            let got = self.socket.read(&mut buffer[filled..]).unwrap();
            assert!(got > 0, "the server closed the connection");
            filled += got;
            let text = &buffer[..filled];
            if text.ends_with(b"\r\n") {
                let end = text.len() - 2;
                let start = text[..end].iter().rposition(|&c| c == b'\n').map_or(0, |at| at + 1);
                let last = &text[start..end];
                let last =
                    last.strip_prefix(b"* ").filter(|line| line.starts_with(b"OK")).unwrap_or(last);
                if last.starts_with(b"OK") {
                    return;
                }
                assert!(last.starts_with(b"* "), "{}", last.escape_ascii());
            }
            assert!(filled < buffer.len(), "a long reply");
        }
    }
}

pub(crate) fn guid(message: &[u8]) -> String {
    Sha1::digest(message).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `APPLY MESSAGE`.
pub(crate) fn message_line(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut line = b"APPLY MESSAGE (".to_vec();
    for (i, message) in messages.iter().enumerate() {
        let blank = if i > 0 { " " } else { "" };
        let head = format!("{blank}%{{default {} {}}}\r\n", guid(message), message.len());
        line.extend_from_slice(head.as_bytes());
        line.extend_from_slice(message);
    }
    line.extend_from_slice(b")\r\n");
    line
}

/// `APPLY MAILBOX` for the INBOX of `user`, as Cyrus 3.6 sends it.
pub(crate) fn mailbox_line(user: &str, first_uid: u64, messages: &[Vec<u8>]) -> Vec<u8> {
    let record = |(uid, message): (u64, &Vec<u8>)| {
        format!(
            "%(UID {uid} MODSEQ {uid} LAST_UPDATED 1795250341 FLAGS (\\Seen $Work) INTERNALDATE \
             1600000000 SIZE {} GUID {} ANNOTATIONS (%(ENTRY /vendor/cmu/cyrus-imapd/savedate \
             USERID \"\" MODSEQ 0 VALUE 1795250341)))",
            message.len(),
            guid(message)
        )
    };
    let records: Vec<String> = (first_uid..).zip(messages).map(record).collect();
    let last_uid = first_uid + messages.len() as u64 - 1;
    format!(
        "APPLY MAILBOX %(UNIQUEID oy47mhrzscsurirwweiafg28 MBOXNAME user.{user} SYNC_CRC 0 \
         SYNC_CRC_ANNOT 0 LAST_UID {last_uid} HIGHESTMODSEQ {last_uid} RECENTUID 0 RECENTTIME 0 \
         LAST_APPENDDATE 5 POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY 9 PARTITION default \
         ACL \"{user}\tlrswipkxtecdan\t\" OPTIONS P RECORD ({}))\r\n",
        records.join(" ")
    )
    .into_bytes()
}
