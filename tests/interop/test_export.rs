//! Mail out of a backup without Cyrus: into a real IMAP server, twice without doubles, by TLS and
//! without; and found again by what it says.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::backup_server::{BackupServer, CYRBK, Maker};
use crate::cyrus::{Cyrus, clean_command};
use crate::mail::{self, guid};
use crate::process::{Output, run};
use crate::site::{ADMIN, Channel, PASSWORD, Site};
use crate::test_moment::cyrbk;
use crate::workspace::Workspace;

const DATE: i64 = 1_000_000_000;
const TIMEOUT: Duration = Duration::from_secs(120);

struct Scene {
    site: Site,
    server: BackupServer,
    /// With the certificate that the mail server shows.
    certificates: Workspace,
}

impl Scene {
    fn start(cyrus: &Cyrus) -> Self {
        let certificates = Workspace::new(cyrus, "certificates");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let cert = certificates.write("cert.pem", &made.cert.pem());
        let key = certificates.write("key.pem", &made.signing_key.serialize_pem());
        let tls = [
            format!("tls_server_cert: {}", cert.display()),
            format!("tls_server_key: {}", key.display()),
            // Newer servers do not by default.
            "allowstarttls: yes".to_owned(),
        ];
        let server = BackupServer::start(cyrus, Maker::Cyrbk, &["tom", "ann"]);
        let channel = Channel::new("tested", server.port, false);
        let site = Site::start_with(
            cyrus,
            &["tom", "ann"],
            &[channel],
            &tls.each_ref().map(String::as_str),
        );
        let mut admin = site.imap(ADMIN);
        admin.create("user.tom");
        admin.create("user.ann");
        let mut imap = site.imap("tom");
        imap.create("INBOX.Work.2026");
        for (i, message) in mail::corpus().into_iter().take(15).enumerate() {
            let place = if i % 2 == 0 { "INBOX" } else { "INBOX.Work.2026" };
            let flags = if i % 3 == 0 { "\\Seen $Todo" } else { "" };
            imap.append(place, flags, DATE + i as i64, &message.bytes);
        }
        imap.append("INBOX", "", DATE, &mail::all_octets().bytes);
        imap.append("INBOX", "\\Flagged", DATE, &mail::huge(3 << 20).bytes);
        // One message in two places, and twice in one.
        for place in ["INBOX", "INBOX", "INBOX.Work.2026"] {
            imap.append(place, "", DATE, &mail::note(1).bytes);
        }
        imap.logout();
        let _ = site.sync("tested", &["-u", "tom"]).success();
        Self { site, server, certificates }
    }

    fn export(&self, host: &str, words: &[&str]) -> Output {
        let mut command = clean_command(Path::new(CYRBK));
        let server = format!("{host}:{}", self.site.imap_port());
        command.args(["export", "tom", "--imap", &server, "--imap-user", "ann"]).args(words);
        command.arg("-C").arg(self.server.imapd_conf());
        command.env("CYRBK_IMAP_PASSWORD", PASSWORD);
        run(command, TIMEOUT)
    }

    /// How often each message is in a mailbox.
    fn contents(&self, user: &str, mailbox: &str) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for message in self.site.imap(user).fetch_all(mailbox) {
            *counts.entry(guid(&message.body)).or_default() += 1;
        }
        counts
    }

    /// INTERNALDATE and flags of each message, sorted.
    fn details(&self, user: &str, mailbox: &str) -> Vec<String> {
        let detail = |line: String| {
            let flags = line.split("FLAGS (").nth(1)?.split(')').next()?.to_owned();
            let flags = flags.split(' ').filter(|f| *f != "\\Recent").collect::<Vec<_>>().join(" ");
            let date = line.split("INTERNALDATE \"").nth(1)?.split('"').next()?;
            let size = line.len() - line.find("BODY[]")?;
            Some(format!("{date} ({flags}) {size}"))
        };
        let lines = self.site.imap(user).snapshot(mailbox);
        let mut details: Vec<String> = lines.into_iter().filter_map(detail).collect();
        details.sort();
        details
    }
}

#[test]
fn mail_goes_to_any_imap_server_once() {
    let Some(cyrus) = Cyrus::find_or_skip("mail_goes_to_any_imap_server_once") else { return };
    let scene = Scene::start(&cyrus);
    let ca = scene.certificates.path().join("cert.pem");
    let ca = ca.to_str().unwrap();
    // A server that nobody vouches for gets no password.
    let stranger = scene.export("localhost", &[]);
    assert_eq!(stranger.code(), 75, "{stranger}");
    assert!(stranger.stderr_text().contains("TLS"), "{stranger}");
    let first = scene.export("localhost", &["--ca-file", ca]);
    assert_eq!(first.code(), 0, "{first}");
    assert!(first.stdout_text().contains("20 added, 0 there already, 0 refused, of 20"), "{first}");
    for mailbox in ["INBOX", "INBOX.Work.2026"] {
        assert_eq!(scene.contents("ann", mailbox), scene.contents("tom", mailbox), "{mailbox}");
        assert_eq!(scene.details("ann", mailbox), scene.details("tom", mailbox), "{mailbox}");
    }
    // Again: nothing is doubled; what is missing comes.
    let again = scene.export("localhost", &["--ca-file", ca]);
    assert!(again.stdout_text().contains("0 added, 20 there already"), "{again}");
    let mut imap = scene.site.imap("ann");
    imap.select("INBOX.Work.2026");
    imap.ok("UID STORE 1:3 +FLAGS (\\Deleted)");
    imap.ok("EXPUNGE");
    imap.logout();
    let third = scene.export("127.0.0.1", &["--no-tls"]);
    assert!(third.stdout_text().contains("3 added, 17 there already"), "{third}");
    let work = "INBOX.Work.2026";
    assert_eq!(scene.contents("ann", work), scene.contents("tom", work));
    // Elsewhere, only what was found.
    let words = ["--no-tls", "--under", "Restored/tom"];
    let under = scene.export("127.0.0.1", &[&words[..], &["user/tom/Work/2026"]].concat());
    assert_eq!(under.code(), 0, "{under}");
    assert_eq!(scene.contents("ann", "INBOX.Restored.tom.Work.2026"), scene.contents("tom", work));
    // A wrong password.
    let mut command = clean_command(Path::new(CYRBK));
    let server = format!("127.0.0.1:{}", scene.site.imap_port());
    command.args(["export", "tom", "--no-tls", "--imap", &server, "--imap-user", "ann", "-C"]);
    command.arg(scene.server.imapd_conf()).env("CYRBK_IMAP_PASSWORD", "wrong");
    let refused = run(command, TIMEOUT);
    assert_eq!(refused.code(), 75, "{refused}");
    assert!(refused.stderr_text().contains("log-in refused"), "{refused}");
}

#[test]
fn what_is_searched_is_found_and_can_be_taken_out() {
    let Some(cyrus) = Cyrus::find_or_skip("what_is_searched_is_found_and_can_be_taken_out") else {
        return;
    };
    let scene = Scene::start(&cyrus);
    let search = |words: &[&str]| {
        let words = [&["search", "tom", "--guids"], words].concat();
        let output = cyrbk(&scene.server, &words).success();
        let mut guids: Vec<String> = output.stdout_text().lines().map(str::to_owned).collect();
        guids.sort();
        guids
    };
    let note = guid(&mail::note(1).bytes);
    assert_eq!(search(&["--subject", "NOTE-1", "--from", "writer@"]), std::slice::from_ref(&note));
    assert_eq!(search(&["--header", "message-id=<note-1@"]), std::slice::from_ref(&note));
    assert_eq!(
        search(&["--text", "note number 1", "--before", "@1000000001"]),
        std::slice::from_ref(&note)
    );
    assert_eq!(search(&["--flag", "flagged"]), [guid(&mail::huge(3 << 20).bytes)]);
    assert_eq!(search(&["--deleted-since", "2001-01-01"]), [""; 0]);
    let table = cyrbk(&scene.server, &["search", "tom", "--subject", "note-1"]).success();
    assert_eq!(table.stdout_text().matches(&note).count(), 3, "{table}");
    let list = scene.server.make_dir("out").join("list");
    std::fs::write(&list, format!("{note}\n")).unwrap();
    scene.server.give_away(&list);
    let tar = cyrbk(&scene.server, &["export", "tom", "--tar", "--guids", list.to_str().unwrap()])
        .success();
    let mut command = clean_command(Path::new("/usr/bin/tar"));
    command.args(["-t", "-f", "-"]);
    let listed = crate::process::run_with(command, &tar.stdout, TIMEOUT).success();
    assert_eq!(listed.stdout_text().lines().count(), 3, "{listed}");
    assert!(listed.stdout_text().contains("Work/2026/"), "{listed}");
}
