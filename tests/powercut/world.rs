//! A site on a real disk, on which states are laid out.
//!
//! An index says by its inode number which data file it is of. So every file that was there at
//! the beginning or the end of a history is kept, by a second link, and used again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::mem;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::SystemTime;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::disk::{Disk, Names, Node};
use super::machine;
use super::site::{Options, Site};
use super::trace;

/// A saslauthd that never says no: there are many log-ins, and passwords are slow.
fn door_keeper() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mux = directory.path().join("mux");
    let listener = UnixListener::bind(&mux).unwrap();
    fs::set_permissions(&mux, fs::Permissions::from_mode(0o666)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Four fields, each with its length in front.
            for _ in 0..4 {
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                stream.read_exact(&mut vec![0; u16::from_be_bytes(len).into()]).unwrap();
            }
            stream.write_all(b"\0\x02OK").unwrap();
        }
    });
    directory
}

/// Directories of a site that are not what is tried.
const OTHERS: [&str; 6] = ["conf", "staging", "log", "pool", "passwd", "telemetry"];

pub(crate) struct World {
    pub(crate) site: Site,
    /// Links to the files of the history, by number.
    kept: BTreeMap<usize, Kept>,
    /// Where these links are.
    pool: PathBuf,
    pools: usize,
    mux: TempDir,
}

struct Kept {
    path: PathBuf,
    modified: SystemTime,
}

/// strace and what it runs, a process group, of which nothing outlives a test.
struct Traced(Child);

impl Drop for Traced {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

impl World {
    /// A site without backups, its server started, and a configuration for the real program.
    pub(crate) fn new(settings: &str) -> World {
        let mux = door_keeper();
        // In memory: what a sync makes durable is known without a disk.
        let builder = tempfile::Builder::new();
        let root = builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let saslauthd = Some(mux.path().join("mux"));
        let options = Options { root, saslauthd, ..Options::default() };
        let (kept, pool) = (BTreeMap::new(), PathBuf::new());
        let world = World { site: Site::start(options), kept, pool, pools: 0, mux };
        for name in ["conf", "staging", "pool", "one", "two"] {
            fs::create_dir_all(world.path().join(name)).unwrap();
        }
        let shown = world.path().display();
        let conf = format!(
            "configdirectory: {shown}/conf\nbackup_db_path: {shown}/backups.db\n\
             backuppartition-one: {shown}/one\nbackuppartition-two: {shown}/two\n\
             partition_select_exclude: two\nbackup_staging_path: {shown}/staging\n\
             admins: admin\nservername: cut.test\nallowplaintext: yes\nsasl_mech_list: PLAIN\n\
             sasl_pwcheck_method: saslauthd\nsasl_saslauthd_path: {}\n\
             failedloginpause: 0s\n{}{settings}",
            world.mux.path().display(),
            machine::cyrus_user_option()
        );
        fs::write(world.conf(), conf).unwrap();
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.site.path()
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.path().join("conf/imapd.conf")
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.path().join("backups.db")
    }

    pub(crate) fn cyrbk(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cyrbk"));
        command.arg(words[0]).arg("-C").arg(self.conf()).args(&words[1..]);
        command
    }

    /// What is there now. It is what [`World::lay_out`] begins with from now on.
    pub(crate) fn look(&mut self) -> (Vec<Node>, Names) {
        self.kept.clear();
        self.pools += 1;
        self.pool = self.path().join("pool").join(self.pools.to_string());
        fs::create_dir(&self.pool).unwrap();
        let (mut nodes, mut names) = (Vec::new(), Names::new());
        let mut numbers = BTreeMap::new();
        for path in self.files() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let number = *numbers.entry(meta.ino()).or_insert_with(|| {
                nodes.push(node(&path, &meta));
                nodes.len() - 1
            });
            if meta.is_file() {
                self.keep(number, &path);
            }
            names.insert(path, number);
        }
        (nodes, names)
    }

    /// Does something that begins with a look of its own.
    pub(crate) fn aside<T>(&mut self, act: impl FnOnce(&mut World) -> T) -> T {
        let (kept, pool) = (mem::take(&mut self.kept), mem::take(&mut self.pool));
        let result = act(self);
        fs::remove_dir_all(mem::replace(&mut self.pool, pool)).unwrap();
        self.kept = kept;
        result
    }

    fn keep(&mut self, number: usize, path: &Path) {
        let link = self.pool.join(number.to_string());
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        if !self.kept.contains_key(&number) {
            fs::hard_link(path, &link).unwrap();
        }
        self.kept.insert(number, Kept { path: link, modified });
    }

    /// Everything below the site, but for what is not tried, directories first.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                let is_other = directory == self.path()
                    && OTHERS.iter().any(|other| entry.file_name() == *other);
                if is_other {
                    continue;
                }
                files.push(entry.path());
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                }
            }
        }
        files.sort();
        files
    }

    /// Puts a state in the place of whatever is there.
    pub(crate) fn lay_out(&mut self, names: &Names, node: impl Fn(usize) -> Node) {
        for path in self.files().into_iter().rev() {
            let is_directory = fs::symlink_metadata(&path).unwrap().is_dir();
            if is_directory { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
        }
        for (path, &number) in names {
            match node(number) {
                Node::Directory => fs::create_dir(path).unwrap(),
                Node::Link(to) => symlink(to, path).unwrap(),
                Node::File(octets) => {
                    let kept = self.kept.entry(number).or_insert_with(|| Kept {
                        path: self.pool.join(number.to_string()),
                        modified: SystemTime::UNIX_EPOCH,
                    });
                    let mut options = fs::OpenOptions::new();
                    options.write(true).create(true).truncate(true);
                    let mut file = options.open(&kept.path).unwrap();
                    file.write_all(&octets).unwrap();
                    // As if nobody had changed it since, which is not safe to believe.
                    file.set_modified(kept.modified).unwrap();
                    fs::hard_link(&kept.path, path).unwrap();
                }
            }
        }
    }

    /// Runs the real program and learns what it does.
    pub(crate) fn record(
        &mut self,
        nodes: Vec<Node>,
        names: Names,
        run: impl FnOnce(&World, &Path),
    ) -> Disk {
        self.give_away();
        let file = tempfile::NamedTempFile::new().unwrap();
        run(self, file.path());
        let mut disk = Disk::new(self.path(), nodes, names);
        disk.run(&trace::read(file.path()));
        let found = self.files();
        assert_eq!(found, disk.live.keys().cloned().collect::<Vec<_>>(), "not all was seen");
        for (path, &number) in &disk.live {
            let meta = fs::symlink_metadata(path).unwrap();
            let seen = disk.now(number);
            assert!(node(path, &meta) == seen, "not all was seen of {}", path.display());
            if meta.is_file() {
                self.keep(number, path);
            }
        }
        disk
    }

    /// Runs a tool, which must end in one of these ways; returns in which.
    pub(crate) fn trace_tool(&self, words: &[&str], statuses: &[i32], trace: &Path) -> i32 {
        let mut command = trace::traced(&self.cyrbk(words), trace);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let status = output.status.code().filter(|status| statuses.contains(status));
        status.unwrap_or_else(|| panic!("{words:?}: {}: {said}", output.status))
    }

    /// Runs the server while `talk` talks to it at its address.
    pub(crate) fn trace_server(&self, trace: &Path, talk: impl FnOnce(SocketAddr)) {
        let words = ["serve", "--listen", "127.0.0.1:0"];
        let mut command = trace::traced(&self.cyrbk(&words), trace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut strace = Traced(command.process_group(0).spawn().unwrap());
        let mut log = BufReader::new(strace.0.stderr.take().unwrap()).lines();
        let listening = log.find_map(|line| {
            line.unwrap().strip_prefix("listening on ").map(|address| address.parse().unwrap())
        });
        let rest = thread::spawn(move || {
            for line in log.map_while(Result::ok) {
                eprintln!("server: {line}");
            }
        });
        talk(listening.expect("the server listens"));
        let children = format!("/proc/{0}/task/{0}/children", strace.0.id());
        let server = fs::read_to_string(children).unwrap();
        kill(Pid::from_raw(server.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
        assert!(strace.0.wait().unwrap().success());
        rest.join().unwrap();
    }

    /// To whom the program runs as.
    fn give_away(&self) {
        let mut directories = vec![self.path().to_owned()];
        machine::give_away(self.path());
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                let is_directory = entry.file_type().unwrap().is_dir();
                if is_directory {
                    directories.push(entry.path());
                }
                if !entry.file_type().unwrap().is_symlink() {
                    machine::give_away(&entry.path());
                }
            }
        }
    }
}

fn node(path: &Path, meta: &fs::Metadata) -> Node {
    if meta.is_dir() {
        Node::Directory
    } else if meta.is_symlink() {
        Node::Link(fs::read_link(path).unwrap())
    } else {
        Node::File(fs::read(path).unwrap())
    }
}
