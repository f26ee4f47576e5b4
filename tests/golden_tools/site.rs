//! A backup server's files in a temporary directory, and tools to run on them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cyrbk::store::chunk::{CHUNK_HEADER, MemberWriter};
use cyrbk::store::staging::Staging;
use cyrbk::store::{Catalog, Line, Writer};
use cyrbk::wire::Body;
use cyrbk::wire::apply::Apply;
use cyrbk::wire::dlist::parse_item;
use nix::unistd::{Gid, Group, Uid, User, chown, geteuid};
use tempfile::TempDir;

use crate::damage::guid;

/// Longest that any run may take: the real tools spin for ever on some damage.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

impl Ran {
    pub(crate) fn out_text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn err_text(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }
}

pub(crate) struct Site {
    dir: TempDir,
    /// Whom everything belongs to and the tools run as.
    user: String,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backups")
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

impl Site {
    /// A copy of a fixture set, with its catalog leading into the copy. Backups that
    /// the set lacks are taken from `main`, as they were when its outputs were made.
    pub(crate) fn of_fixture(set: &str) -> Site {
        let site = Site::empty();
        for source in ["main", set] {
            for partition in ["one", "two"] {
                let from = fixtures().join(source).join(partition);
                if from.exists() {
                    copy_tree(&from, &site.path().join(partition));
                }
            }
        }
        let old = Catalog::open(fixtures().join(set).join("backups.db"));
        let new = Catalog::open(site.path().join("conf/backups.db"));
        for entry in old.list().unwrap() {
            let inner = entry.path.strip_prefix("/srv/backup").unwrap();
            new.set(&entry.userid, &site.path().join(inner)).unwrap();
        }
        site
    }

    /// No backups. The tools run as whoever runs the tests.
    pub(crate) fn empty() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let own = User::from_uid(geteuid()).unwrap().map_or("cyrus".into(), |user| user.name);
        let site = Site { dir, user: own };
        fs::set_permissions(site.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["conf", "one", "two", "staging", "bin"] {
            fs::create_dir(site.path().join(name)).unwrap();
        }
        for tool in ["ctl_backups", "cyr_backup"] {
            symlink(env!("CARGO_BIN_EXE_cyrbk"), site.path().join("bin").join(tool)).unwrap();
        }
        site.configure("");
        site
    }

    /// Gives everything to `user`, who the tools then run as.
    pub(crate) fn give_to(mut self, user: &str) -> Site {
        self.user = user.to_owned();
        let user = User::from_name(user).unwrap().unwrap();
        let group = Group::from_name("mail").unwrap().map_or(user.gid, |group| group.gid);
        give(self.path(), user.uid, group);
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.path().join("imapd.conf")
    }

    /// Writes imapd.conf, with some more lines.
    pub(crate) fn configure(&self, lines: &str) {
        let top = self.path().display();
        let text = format!(
            "configdirectory: {top}/conf\nbackuppartition-one: {top}/one\n\
             backuppartition-two: {top}/two\n\
             backup_staging_path: {top}/staging\n{lines}"
        );
        fs::write(self.conf(), text).unwrap();
    }

    /// A backup of one message, whose header claims to be `guid`. Returns its file.
    pub(crate) fn store_message(&self, user: &str, guid: &str, octets: &[u8]) -> PathBuf {
        let path = self.path().join("one").join(user);
        let head = format!("MESSAGE (%{{default {guid} {}}}\r\n", octets.len());
        let text = format!("{head})");
        let (name, value) = parse_item(text.as_bytes()).unwrap();
        let apply = Apply::read(&name, &value).unwrap();
        let mut writer = Writer::open(&path, 1_795_000_000).unwrap();
        let line = Line {
            text: text.as_bytes(),
            body_at: &[head.len()],
            bodies: &[Body::Memory(octets.to_vec())],
            apply: &apply,
        };
        let staging = Staging::new(self.path().join("staging"));
        writer.append(1_795_000_000, &line, &staging).unwrap();
        writer.finish(1_795_000_000).unwrap();
        Catalog::open(self.path().join("conf/backups.db")).set(user.as_bytes(), &path).unwrap();
        path
    }

    /// A backup of mailboxes without mail, data only: neither index nor entry. Returns its file.
    pub(crate) fn write_data(&self, name: &str, mboxnames: &[&str]) -> PathBuf {
        let line = |(i, mboxname)| mailbox(mboxname, &format!("{mboxname}{i}"), "");
        self.write_lines(name, mboxnames.iter().copied().enumerate().map(line))
    }

    /// The same of a mailbox with one message.
    pub(crate) fn write_mail(&self, name: &str, mboxname: &str, octets: &[u8]) -> PathBuf {
        let (guid, len) = (guid(octets), octets.len());
        let mut message = format!("MESSAGE (%{{default {guid} {len}}}\r\n").into_bytes();
        message.extend_from_slice(octets);
        message.push(b')');
        let record = format!(
            "%(UID 1 MODSEQ 1 LAST_UPDATED 1795000000 FLAGS () INTERNALDATE 1795000000 SIZE {len} \
             GUID {guid})"
        );
        self.write_lines(name, [message, mailbox(mboxname, mboxname, &record)])
    }

    fn write_lines(&self, name: &str, lines: impl IntoIterator<Item = Vec<u8>>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut out = Vec::new();
        let mut writer = MemberWriter::start(&mut out).unwrap();
        writer.write(CHUNK_HEADER, &mut out).unwrap();
        for line in lines {
            let line = [b"1795000000 APPLY ", &line[..], b"\r\n"].concat();
            writer.write(&line, &mut out).unwrap();
            writer.end_line(&mut out).unwrap();
        }
        writer.finish(&mut out).unwrap();
        fs::write(&path, out).unwrap();
        path
    }

    /// Runs cyrbk's tool of that name.
    pub(crate) fn ours(&self, tool: &str, words: &[impl AsRef<OsStr>]) -> Ran {
        self.run(&self.path().join("bin").join(tool), words)
    }

    /// Runs any program, with `-C imapd.conf` in front of its words.
    pub(crate) fn run(&self, program: &Path, words: &[impl AsRef<OsStr>]) -> Ran {
        let mut command = self.command(program);
        command.arg("-C").arg(self.conf()).args(words);
        wait(command)
    }

    /// A program in the environment of the site.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("TZ", "UTC").env("PATH", "/usr/bin:/bin");
        command.env("CYRUS_USER", &self.user).current_dir(self.path()).stdin(Stdio::null());
        command
    }
}

/// A MAILBOX line with at most one record.
fn mailbox(mboxname: &str, uniqueid: &str, record: &str) -> Vec<u8> {
    let last_uid = u8::from(!record.is_empty());
    format!(
        "MAILBOX %(UNIQUEID {uniqueid} MBOXNAME {mboxname} LAST_UID {last_uid} HIGHESTMODSEQ 1 \
         RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION \
         default ACL \"\" OPTIONS P RECORD ({record}))"
    )
    .into_bytes()
}

/// Runs a command to its end; panics if it takes too long.
pub(crate) fn wait(mut command: Command) -> Ran {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || read_all(out));
    let err = std::thread::spawn(move || read_all(err));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let code = status.code().unwrap_or(-1);
    Ran { code, out: out.join().unwrap(), err: err.join().unwrap() }
}

fn read_all(mut from: impl std::io::Read) -> Vec<u8> {
    let mut octets = Vec::new();
    from.read_to_end(&mut octets).unwrap();
    octets
}

fn give(path: &Path, user: Uid, group: Gid) {
    chown(path, Some(user), Some(group)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_symlink() {
                give(&path, user, group);
            }
        }
    }
}
