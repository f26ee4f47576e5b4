//! Many messages in one go: a MESSAGE line that cyrbk divided into several, which several threads
//! compressed, is a backup like any other for the real tools.

use std::path::Path;
use std::time::Duration;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::index_rows;
use crate::mail;
use crate::site::{ADMIN, Channel, Site};
use crate::tools::Tools;

const MESSAGES: usize = 2_000;
/// For 20 MB on a busy machine, through a debug build.
const PATIENCE: Duration = Duration::from_secs(300);
/// Of the messages, those that are dumped by the real tool and compared.
const SAMPLE: usize = 397;

/// Messages of the sizes of real ones, no two alike.
fn mailbox() -> Vec<Vec<u8>> {
    let mut corpus = mail::corpus();
    // Of others the mail server changes the headers.
    corpus.retain(|message| {
        let end = message.bytes.windows(4).position(|octets| octets == b"\r\n\r\n");
        message.bytes[..end.unwrap_or_default()].is_ascii()
    });
    let numbered = |number: usize| {
        let head = format!("X-Number: {number}\r\n");
        [head.as_bytes(), &corpus[number % corpus.len()].bytes].concat()
    };
    (0..MESSAGES).map(numbered).collect()
}

struct Scene<'a> {
    server: &'a BackupServer,
    real: Tools,
    tested: Tools,
    messages: &'a [Vec<u8>],
}

impl Scene<'_> {
    /// Both makers' verify, and every [`SAMPLE`]th message by the real tool.
    fn assert_accepted(&self, after: &str) {
        for tools in [&self.real, &self.tested] {
            let verify = tools.ctl_backups(self.server, &["verify", "tom"]).success();
            assert!(verify.stdout_text().contains("ok"), "{after}: {verify}");
        }
        for message in self.messages.iter().step_by(SAMPLE) {
            let guid = mail::guid(message);
            let dump = self.real.cyr_backup(self.server, &["tom", "dump", "message", &guid]);
            assert_eq!(mail::guid(&dump.stdout), guid, "{after}: {dump}");
        }
    }
}

/// Lines of the log that hold messages, by the index.
fn message_lines(index: &Path) -> i64 {
    index_rows::count(
        index,
        "(SELECT DISTINCT chunk_id, offset FROM message WHERE offset IS NOT NULL)",
        "1",
    )
}

#[test]
fn the_real_tools_take_divided_lines() {
    let Some(cyrus) = Cyrus::find_or_skip("the_real_tools_take_divided_lines") else { return };
    let maker = Maker::under_test();
    let mut server = BackupServer::start(&cyrus, maker, &[]);
    let site = Site::start(&cyrus, &["tom"], &[Channel::new("tested", server.port, false)]);
    site.imap(ADMIN).create("user.tom");
    let messages = mailbox();
    let mut imap = site.imap("tom");
    for message in &messages {
        imap.append("INBOX", "", 1_000_000_000, message);
    }
    imap.logout();

    let run = site.sync_within("tested", &["-u", "tom"], PATIENCE).success();
    let sent = run.applied().iter().filter(|request| *request == "APPLY MESSAGE").count();
    server.wait_until_closed();
    server.stop();
    let data_file = server.data_file("tom");
    let index = data_file
        .with_file_name(format!("{}.index", data_file.file_name().unwrap().to_str().unwrap()));
    assert_eq!(index_rows::count(&index, "message", "1"), MESSAGES as i64);
    let stored = message_lines(&index);
    println!("{MESSAGES} messages: {sent} lines sent, {stored} stored");
    if maker == Maker::Cyrbk {
        assert!(stored >= 4 * sent as i64, "{stored} lines of {sent}");
    }

    let [real, tested] = [Maker::Cyrus, maker].map(|maker| Tools::new(&cyrus, maker));
    let scene = Scene { server: &server, real, tested, messages: &messages };
    scene.assert_accepted("as it came in");
    for command in [&["reindex", "tom"][..], &["compact", "-F", "tom"], &["reindex", "tom"]] {
        let _ = scene.real.ctl_backups(&server, command).success();
        scene.assert_accepted(&command.join(" "));
    }
}
