//! The real tools and cyrbk's on the same files: every command in every mode.

use std::path::Path;

use cyrbk::store::Catalog;

use crate::live::{self, TOOLS, ours, real, same};
use crate::site::{Ran, Site};

/// Mode and operands, of which some are unknown.
const MODES: [&str; 7] = [
    "-A",
    "-D virt.example nowhere.example",
    "-P b c zz",
    "-f two/b/bob_5xHD5K one/c/carol_cesxQB nowhere",
    "-m user/bob INBOX user/nobody",
    "-u bob nobody carol",
    "bob nobody erin@virt.example",
];

/// Without alice, whose literals Debian's tools cannot read (quirk 1), and tester, whose
/// renamed mailbox they tell of in words of their own (quirk 2).
fn site() -> Option<Site> {
    let site = live::site("main")?;
    let catalog = Catalog::open(site.path().join("conf/backups.db"));
    for user in ["alice", "tester"] {
        catalog.remove(user.as_bytes()).unwrap();
    }
    Some(site)
}

#[test]
fn commands_that_only_read() {
    let Some(site) = site() else { return };
    for command in ["list", "stat", "verify"] {
        for mode in MODES {
            for options in ["", "-j ", "-S ", "-w ", "-F "] {
                same(&site, &[&format!("ctl_backups {options}{command} {mode}")]);
            }
        }
    }
    for mode in MODES {
        same(&site, &[&format!("ctl_backups -vv verify {mode}")]);
        same(
            &site,
            &[&format!("ctl_backups -V list {mode}"), &format!("ctl_backups list -t1 {mode}")],
        );
    }
    for (mode, name) in
        [("", "bob"), ("-u ", "bob"), ("-m ", "user/bob"), ("-f ", "two/b/bob_5xHD5K")]
    {
        for action in ["-x true", "-x false", "-x echo"] {
            same(&site, &[&format!("ctl_backups lock {action} {mode}{name}")]);
        }
        for what in ["list all", "list chunks", "list mailboxes", "list messages"] {
            same(&site, &[&format!("cyr_backup {mode}{name} {what}")]);
        }
        for what in ["chunks", "mailboxes", "messages"] {
            same(&site, &[&format!("cyr_backup {mode}{name} json {what}")]);
        }
        for guid in ["65c6cb8690452ddaa71e168ee340d22bae972e44", "0"] {
            for what in ["show messages", "dump message", "json headers"] {
                same(&site, &[&format!("cyr_backup {mode}{name} {what} {guid}")]);
            }
        }
        same(&site, &[&format!("cyr_backup {mode}{name} dump chunk 2")]);
        same(&site, &[&format!("cyr_backup {mode}{name} show mailboxes user/bob user/bob/x")]);
    }
    same(&site, &["ctl_backups lock -c -x true bob"]);
    // What one has made the other finds there.
    let made = ["real", "ours"].map(|who| {
        let line = format!("ctl_backups lock -c -x true -f one/{who}");
        let ran = if who == "real" { real(&site, &line) } else { ours(&site, &line) };
        let index = site.path().join(format!("one/{who}.index"));
        assert!(site.path().join(format!("one/{who}")).exists() && index.exists(), "{who}");
        (ran.code, ran.out_text(), ran.err_text().replace(who, ""))
    });
    assert_eq!(made[0], made[1]);
    same(&site, &["ctl_backups list -f one/real one/ours"]);
}

/// Each on a site of its own, for the commands change it.
#[test]
fn commands_that_write() {
    let joined = "backup_retention: 0\nbackup_compact_minsize: 64\n";
    for (line, conf) in [
        ("reindex", ""),
        ("-j reindex", ""),
        ("compact", "backup_retention: 0\n"),
        ("-F compact", "backup_retention: 0\n"),
        ("compact", joined),
        ("-j -F -w compact", joined),
    ] {
        for mode in MODES {
            let words: Vec<&str> = line.split(' ').chain(mode.split(' ')).collect();
            let told = [Path::new(TOOLS), Path::new("bin")].map(|bin| {
                let site = site()?;
                site.configure(conf);
                let ran = site.run(&site.path().join(bin).join("ctl_backups"), &words);
                let top = site.path().to_str().unwrap();
                let text = |octets: &[u8]| String::from_utf8_lossy(octets).replace(top, "");
                let Ran { code, out, err } = ran;
                Some((code, text(&out), text(&err)))
            });
            let [Some(real), Some(ours)] = told else { return };
            assert_eq!(real, ours, "{conf}{words:?}");
        }
    }
}
