//! A backup that grew by one message at a time: after cyrbk's compact has put the messages of many
//! sessions side by side the real tools accept it, and the real client has nothing to send.

use std::fs;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::index_rows;
use crate::mail::{self, Message};
use crate::site::{ADMIN, Channel, Site};
use crate::tools::Tools;

const DATE: i64 = 1_000_000_000;

struct Scene {
    site: Site,
    server: BackupServer,
    real: Tools,
    tested: Tools,
}

impl Scene {
    fn start(cyrus: &Cyrus) -> Self {
        let maker = Maker::under_test();
        let server = BackupServer::start(cyrus, maker, &[]);
        let site = Site::start(cyrus, &["tom"], &[Channel::new("tested", server.port, false)]);
        site.imap(ADMIN).create("user.tom");
        site.imap("tom").create("INBOX.Work");
        let [real, tested] = [Maker::Cyrus, maker].map(|maker| Tools::new(cyrus, maker));
        Self { site, server, real, tested }
    }

    fn sync(&self) -> Vec<String> {
        let run = self.site.sync("tested", &["-u", "tom"]).success();
        self.server.wait_until_closed();
        run.applied()
    }

    /// Each message in a session of its own, and changes to some of them in others.
    fn grow(&self, messages: &[Message]) {
        for (number, message) in messages.iter().enumerate() {
            let mut imap = self.site.imap("tom");
            imap.append(["INBOX", "INBOX.Work"][number % 2], "", DATE, &message.bytes);
            match number {
                5 => drop(imap.ok("SUBSCRIBE INBOX.Work")),
                7 => {
                    imap.select("INBOX");
                    imap.ok("UID STORE 1:2 +FLAGS (\\Seen)");
                    imap.ok("UID STORE 3 +FLAGS (\\Deleted)");
                    imap.ok("EXPUNGE");
                    imap.ok("UID COPY 1 INBOX.Work");
                }
                _ => {}
            }
            imap.logout();
            assert!(self.sync().contains(&"APPLY MESSAGE".to_owned()), "{number}");
        }
    }

    fn assert_accepted(&self, messages: &[Message], after: &str) {
        for tools in [&self.real, &self.tested] {
            let verify = tools.ctl_backups(&self.server, &["verify", "tom"]).success();
            assert!(verify.stdout_text().contains("ok"), "{after}: {verify}");
        }
        for message in messages {
            let guid = mail::guid(&message.bytes);
            let dump = self.real.cyr_backup(&self.server, &["tom", "dump", "message", &guid]);
            assert_eq!(mail::guid(&dump.stdout), guid, "{after}: {dump}");
        }
        let sent = self.sync();
        assert!(sent.is_empty(), "{after}: {sent:?}");
    }

    /// Lines of the log that hold messages, by the index.
    fn message_lines(&self) -> i64 {
        let mut index = self.server.data_file("tom").into_os_string();
        index.push(".index");
        let lines = "(SELECT DISTINCT chunk_id, offset FROM message)";
        index_rows::count(index.as_ref(), lines, "1")
    }
}

#[test]
fn messages_of_many_sessions_are_put_side_by_side() {
    let test = "messages_of_many_sessions_are_put_side_by_side";
    let Some(cyrus) = Cyrus::find_or_skip(test) else { return };
    let scene = Scene::start(&cyrus);
    let mut messages = mail::corpus();
    messages.truncate(16);
    messages.extend([mail::all_octets(), mail::long_line()]);
    scene.grow(&messages);
    assert_eq!(scene.message_lines(), messages.len() as i64);
    scene.assert_accepted(&messages, "as it grew");

    let conf = scene.server.imapd_conf();
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, text + "backup_compact_minsize: 1000\n").unwrap();
    let compact = |tools: &Tools| {
        let _ = tools.ctl_backups(&scene.server, &["compact", "-F", "tom"]).success();
    };
    compact(&scene.tested);
    if Maker::under_test() == Maker::Cyrbk {
        assert_eq!(scene.message_lines(), 1);
    }
    scene.assert_accepted(&messages, "after compact");
    let _ = scene.real.ctl_backups(&scene.server, &["reindex", "tom"]).success();
    scene.assert_accepted(&messages, "after compact and the real reindex");
    compact(&scene.real);
    scene.assert_accepted(&messages, "after compact by each");
}
