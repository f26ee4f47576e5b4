//! What a trace did to a file system, and what of it survives a power cut.
//!
//! Nothing is durable that was not synced: octets and length of a file are by `fsync` or
//! `fdatasync` of it, names by `fsync` of their directory. All else may be there or not,
//! in any combination: a later rename without an earlier one, a length without octets, sectors
//! of one write and not of another. A rename and the making or removal of a name are atomic.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::change::{Change, Edit};
use super::trace::{Call, Step};

/// What is in a file system: files, directories and links have numbers.
pub(crate) type Names = BTreeMap<PathBuf, usize>;

/// What a number means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    File(Vec<u8>),
    Directory,
    Link(PathBuf),
}

/// A change, the moment at which it was made, and the one from which on it is durable.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) change: Change,
    pub(crate) at: usize,
    pub(crate) durable: usize,
}

/// A moment at which the power may go.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) at: usize,
    pub(crate) what: String,
    /// Replies that have been sent by then.
    pub(crate) replies: usize,
}

/// A file system and its history. Its own paths are below one directory.
pub(crate) struct Disk {
    root: PathBuf,
    /// As it was at the beginning.
    pub(crate) nodes: Vec<Node>,
    pub(crate) names: Names,
    /// As it is.
    pub(crate) live: Names,
    pub(crate) history: Vec<Made>,
    pub(crate) cuts: Vec<Cut>,
    open: HashMap<u64, Descriptor>,
    syncs: HashMap<usize, (Target, usize)>,
    moment: usize,
    replies: usize,
}

#[derive(Clone, Debug)]
struct Descriptor {
    target: Target,
    position: usize,
    appends: bool,
}

#[derive(Clone, Debug)]
enum Target {
    File(usize),
    Directory(PathBuf),
}

impl Disk {
    pub(crate) fn new(root: &Path, nodes: Vec<Node>, names: Names) -> Disk {
        Disk {
            root: root.to_owned(),
            live: names.clone(),
            nodes,
            names,
            history: Vec::new(),
            cuts: Vec::new(),
            open: HashMap::new(),
            syncs: HashMap::new(),
            moment: 0,
            replies: 0,
        }
    }

    /// Does all that a trace tells of.
    pub(crate) fn run(&mut self, steps: &[Step]) {
        self.note("the beginning");
        for step in steps {
            match step {
                Step::Begun(_, call) if call.name == "close" => {
                    self.open.remove(&call.number(0));
                }
                Step::Begun(number, call) => self.begin_sync(*number, call),
                Step::Ended(number) => self.end_sync(*number),
                Step::Made(call) => self.call(call),
            }
        }
        self.note("the end");
    }

    fn note(&mut self, what: &str) {
        let what = what.replace(&*self.root.to_string_lossy(), "");
        self.cuts.push(Cut { at: self.moment, what, replies: self.replies });
    }

    fn make(&mut self, change: Change) {
        self.moment += 1;
        self.history.push(Made { change, at: self.moment, durable: usize::MAX });
    }

    fn begin_sync(&mut self, number: usize, call: &Call) {
        let Some(open) = self.open.get(&call.number(0)) else { return };
        let target = open.target.clone();
        self.note(&format!("in front of the sync of {}", self.shown(&target)));
        self.syncs.insert(number, (target, self.moment));
    }

    fn end_sync(&mut self, number: usize) {
        let Some((target, since)) = self.syncs.remove(&number) else { return };
        self.moment += 1;
        for made in self.history.iter_mut().filter(|made| made.at <= since) {
            let is_synced = match (&made.change, &target) {
                (Change::Write { file, .. } | Change::Cut { file, .. }, Target::File(synced)) => {
                    file == synced
                }
                (Change::Name(edits), Target::Directory(directory)) => {
                    edits.iter().any(|edit| edit.path.parent() == Some(directory))
                }
                _ => false,
            };
            if is_synced {
                made.durable = made.durable.min(self.moment);
            }
        }
        self.note(&format!("behind the sync of {}", self.shown(&target)));
    }

    fn shown(&self, target: &Target) -> String {
        match target {
            Target::Directory(path) => path.display().to_string(),
            Target::File(number) => {
                let path = self.live.iter().find(|(_, file)| *file == number);
                path.map_or("an unlinked file".into(), |(path, _)| path.display().to_string())
            }
        }
    }

    fn is_ours(&self, path: &Path) -> bool {
        path.strip_prefix(&self.root).is_ok_and(|rest| {
            let elsewhere = ["conf", "staging", "log", "pool"];
            !elsewhere.iter().any(|other| rest.starts_with(other))
        })
    }

    fn call(&mut self, call: &Call) {
        match &*call.name {
            "open" => self.opened(call, 0),
            "openat" => self.opened(call, 1),
            "lseek" => {
                if let Some(open) = self.open.get_mut(&call.number(0)) {
                    open.position = call.result as usize;
                }
            }
            "fcntl" if call.word(1).starts_with("F_DUPFD") => {
                if let Some(open) = self.open.get(&call.number(0)).cloned() {
                    self.open.insert(call.result, open);
                }
            }
            "fcntl" | "clone" => {}
            "write" => self.written(call, None),
            "pwrite64" => self.written(call, Some(call.number(3) as usize)),
            "ftruncate" => {
                if let Some(file) = self.file(call.number(0)) {
                    self.make(Change::Cut { file, len: call.number(1) as usize });
                }
            }
            "rename" => self.renamed(&call.path(0), &call.path(1)),
            "renameat" | "renameat2" => self.renamed(&call.path(1), &call.path(3)),
            "link" => self.linked(&call.path(0), &call.path(1)),
            "linkat" => self.linked(&call.path(1), &call.path(3)),
            "symlink" => self.made_new(&call.path(1), Node::Link(call.path(0))),
            "symlinkat" => self.made_new(&call.path(2), Node::Link(call.path(0))),
            "unlink" | "rmdir" => self.unlinked(&call.path(0)),
            "unlinkat" => self.unlinked(&call.path(1)),
            "mkdir" => self.made_new(&call.path(0), Node::Directory),
            "mkdirat" => self.made_new(&call.path(1), Node::Directory),
            "sendto" if is_reply(call.octets(1)) => {
                self.replies += 1;
                self.note("a reply");
            }
            "sendto" | "sendmsg" => {}
            // The others are not used on files of ours.
            name => {
                let touched = call.args.iter().any(|arg| match arg {
                    super::trace::Arg::Word(word) => {
                        word.parse().is_ok_and(|fd: u64| self.open.contains_key(&fd))
                    }
                    super::trace::Arg::Octets(_) => name.starts_with("creat"),
                });
                assert!(!touched, "not understood: {call:?}");
            }
        }
    }

    fn file(&self, descriptor: u64) -> Option<usize> {
        match self.open.get(&descriptor)?.target {
            Target::File(file) => Some(file),
            Target::Directory(_) => None,
        }
    }

    fn opened(&mut self, call: &Call, at: usize) {
        let path = call.path(at);
        self.open.remove(&call.result);
        if !self.is_ours(&path) {
            return;
        }
        let flags = call.word(at + 1).to_owned();
        assert!(!flags.contains("O_TMPFILE"), "{call:?}");
        let Some(path) = self.followed(&path) else { return };
        if !self.live.contains_key(&path) && path != self.root {
            assert!(flags.contains("O_CREAT"), "{call:?}");
            self.made_new(&path, Node::File(Vec::new()));
        }
        let target = match self.live.get(&path) {
            Some(&number) if self.nodes[number] != Node::Directory => Target::File(number),
            _ => Target::Directory(path),
        };
        if let (Target::File(file), true) = (&target, flags.contains("O_TRUNC")) {
            self.make(Change::Cut { file: *file, len: 0 });
        }
        let appends = flags.contains("O_APPEND");
        self.open.insert(call.result, Descriptor { target, position: 0, appends });
    }

    /// Where a path leads, if its last component is a link.
    fn followed(&self, path: &Path) -> Option<PathBuf> {
        match self.live.get(path).map(|&number| &self.nodes[number]) {
            Some(Node::Link(to)) => self.is_ours(to).then(|| to.clone()),
            _ => Some(path.to_owned()),
        }
    }

    fn written(&mut self, call: &Call, at: Option<usize>) {
        let descriptor = call.number(0);
        let Some(file) = self.file(descriptor) else { return };
        let octets = call.octets(1)[..call.result as usize].to_vec();
        let end = match &self.open[&descriptor] {
            Descriptor { appends: true, .. } => self.len_now(file),
            open => open.position,
        };
        let at = at.unwrap_or_else(|| {
            let open = self.open.get_mut(&descriptor);
            open.expect("it is open").position = end + octets.len();
            end
        });
        self.make(Change::Write { file, at, octets });
    }

    fn len_now(&self, file: usize) -> usize {
        match self.now(file) {
            Node::File(octets) => octets.len(),
            _ => 0,
        }
    }

    /// What a number means now.
    pub(crate) fn now(&self, number: usize) -> Node {
        let Node::File(octets) = &self.nodes[number] else { return self.nodes[number].clone() };
        let mut octets = octets.clone();
        let of_file = self.history.iter().filter(|made| made.change.file() == Some(number));
        of_file.for_each(|made| made.change.make(&mut octets));
        Node::File(octets)
    }

    fn rename(&mut self, edits: Vec<Edit>, what: &str) {
        for edit in &edits {
            match edit.is {
                Some(number) => self.live.insert(edit.path.clone(), number),
                None => self.live.remove(&edit.path),
            };
        }
        self.note(&format!("in front of {what}"));
        self.make(Change::Name(edits));
        self.note(&format!("behind {what}"));
    }

    fn made_new(&mut self, path: &Path, node: Node) {
        if self.is_ours(path) {
            self.nodes.push(node);
            let is = Some(self.nodes.len() - 1);
            let edit = Edit { path: path.to_owned(), was: None, is };
            self.rename(vec![edit], &format!("making {}", path.display()));
        }
    }

    fn linked(&mut self, from: &Path, to: &Path) {
        if self.is_ours(to) {
            let edit = Edit { path: to.to_owned(), was: None, is: Some(self.live[from]) };
            self.rename(vec![edit], &format!("linking {}", to.display()));
        }
    }

    fn unlinked(&mut self, path: &Path) {
        if let Some(&number) = self.live.get(path) {
            let edit = Edit { path: path.to_owned(), was: Some(number), is: None };
            self.rename(vec![edit], &format!("removing {}", path.display()));
        }
    }

    fn renamed(&mut self, from: &Path, to: &Path) {
        let Some(&number) = self.live.get(from) else { return };
        assert_eq!(from.parent(), to.parent(), "two directories have to be synced");
        let edits = vec![
            Edit { path: from.to_owned(), was: Some(number), is: None },
            Edit { path: to.to_owned(), was: self.live.get(to).copied(), is: Some(number) },
        ];
        self.rename(edits, &format!("renaming {} to {}", from.display(), to.display()));
    }
}

/// Whether a client is told that something was done.
fn is_reply(octets: &[u8]) -> bool {
    let text = String::from_utf8_lossy(octets);
    text.ends_with("\r\n") && text.lines().last().is_some_and(|last| last.contains("OK "))
}
