//! A program is run under `strace`; what it did to files, call by call.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine;

/// Calls that change files, their names, or make either durable; and those by which descriptors
/// come to mean something else.
const CALLS: &str = "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,\
    pwritev,pwritev2,truncate,ftruncate,fallocate,copy_file_range,sendfile,splice,fsync,fdatasync,\
    sync_file_range,sync,syncfs,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,\
    unlinkat,mkdir,mkdirat,rmdir,sendto,sendmsg,clone,fork,vfork";

/// A call that succeeded.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) args: Vec<Arg>,
    pub(crate) result: u64,
}

/// An argument, as far as it is understood.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    Octets(Vec<u8>),
    Word(String),
}

/// In the order of a trace.
#[derive(Debug)]
pub(crate) enum Step {
    /// A sync or a `close` has begun: its number, name and arguments. While a file is being closed
    /// another thread may already be given its descriptor.
    Begun(usize, Call),
    /// It has ended.
    Ended(usize),
    /// Any other call, at its end.
    Made(Call),
}

impl Call {
    pub(crate) fn number(&self, at: usize) -> u64 {
        let Arg::Word(word) = &self.args[at] else { panic!("{self:?}") };
        word.parse().unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub(crate) fn word(&self, at: usize) -> &str {
        let Arg::Word(word) = &self.args[at] else { panic!("{self:?}") };
        word
    }

    pub(crate) fn octets(&self, at: usize) -> &[u8] {
        let Arg::Octets(octets) = &self.args[at] else { panic!("{self:?}") };
        octets
    }

    pub(crate) fn path(&self, at: usize) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.octets(at).to_vec()))
    }
}

/// Whether there is a strace that may look at others, and knows what it is told.
pub(crate) fn is_possible() -> bool {
    machine::can_trace_by(&mut traced(&Command::new("true"), Path::new("/dev/null")))
}

/// What runs `command` under strace, which writes to `file`.
pub(crate) fn traced(command: &Command, file: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-xx", "-s", "99999999", "--seccomp-bpf", "-o"]).arg(file);
    strace.args(["-e", &format!("trace={CALLS}"), "-e", "signal=none", "--"]);
    strace.arg(command.get_program()).args(command.get_args());
    // Scratch files are none of ours.
    strace.env_remove("TMPDIR").env_remove("SQLITE_TMPDIR");
    strace
}

/// Reads a trace.
pub(crate) fn read(file: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut unfinished: HashMap<&str, (String, Option<usize>)> = HashMap::new();
    let mut steps = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (thread, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            let head = head.trim_end().to_owned();
            let begun = call(&format!("{head}) = 0")).filter(counts_early).map(|call| {
                steps.push(Step::Begun(number, call));
                number
            });
            unfinished.insert(thread, (head, begun));
            continue;
        }
        let resumed = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        let (whole, begun) = match resumed {
            Some((_, tail)) => {
                let (head, begun) = unfinished.remove(thread).unwrap();
                (format!("{head}{tail}"), begun)
            }
            None => (rest.to_owned(), None),
        };
        let Some(call) = call(&whole) else {
            assert!(begun.is_none(), "failed: {whole}");
            continue;
        };
        match begun {
            Some(begun) => steps.push(Step::Ended(begun)),
            None if counts_early(&call) => {
                steps.extend([Step::Begun(number, call), Step::Ended(number)]);
            }
            None => steps.push(Step::Made(call)),
        }
    }
    steps
}

fn counts_early(call: &Call) -> bool {
    matches!(&*call.name, "close" | "fsync" | "fdatasync")
}

/// `name(args) = result`; `None` if it failed, or never came back.
fn call(text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (args, result) = rest.rsplit_once(" = ")?;
    let args = args.trim_end().strip_suffix(')')?;
    let result = result.split(' ').next()?;
    let result = match result.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => result.parse().ok()?,
    };
    // Vectors are taken apart: their octets follow each other.
    let args = args.replace(['[', ']', '{', '}'], "");
    let args = args.split(", ").filter(|arg| !arg.is_empty()).map(|arg| arg_of(arg.trim()));
    Some(Call { name: name.to_owned(), args: args.collect(), result })
}

fn arg_of(text: &str) -> Arg {
    let text = text.strip_prefix("iov_base=").unwrap_or(text);
    let Some(quoted) = text.strip_prefix('"') else { return Arg::Word(text.to_owned()) };
    let hex = quoted.strip_suffix('"').unwrap_or_else(|| panic!("cut short: {quoted}"));
    let octet = |digits: &str| u8::from_str_radix(digits, 16).unwrap();
    Arg::Octets(hex.split("\\x").skip(1).map(octet).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_strace_writes_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "7 openat(AT_FDCWD, \"\\x2f\\x61\", O_RDWR|O_CREAT, 0600) = 3\n\
            7 pwrite64(3, \"\\x00\\x2c\\x20\", 3, 512) = 3\n\
            8 fsync(3 <unfinished ...>\n\
            7 close(3 <unfinished ...>\n\
            9 openat(AT_FDCWD, \"\\x2f\\x63\", O_RDONLY) = 3\n\
            7 <... close resumed>)              = 0\n\
            8 <... fsync resumed>)              = 0\n\
            7 unlink(\"\\x2f\\x62\") = -1 ENOENT (No such file or directory)\n\
            7 +++ exited with 0 +++\n";
        std::fs::write(file.path(), text).unwrap();
        let steps = read(file.path());
        let [
            Step::Made(open),
            Step::Made(write),
            Step::Begun(2, sync),
            Step::Begun(3, close),
            Step::Made(reused),
            Step::Ended(3),
            Step::Ended(2),
        ] = &*steps
        else {
            panic!("{steps:?}")
        };
        assert_eq!((open.path(1), open.result), ("/a".into(), 3));
        assert_eq!((write.octets(1), write.number(3)), (&b"\0, "[..], 512));
        assert_eq!((sync.number(0), close.number(0), reused.result), (3, 3, 3));
    }
}
