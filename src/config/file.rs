//! The grammar of imapd.conf: files to options with their origin.
//!
//! ```text
//! file      = *( logical-line )
//! logical   = physical lines, joined where one ends in a backslash
//! statement = *SP ( "" / "#" ... / name ":" value / "@include:" path )
//! name      = 1*( ALPHA / DIGIT / "-" / "_" )        folded to lower case
//! value     = the rest without surrounding blanks, not empty
//! ```
//!
//! The source of these rules is what Cyrus 3.6 does with such files; the
//! tests of this module are a table of both.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, Origin};
use super::value::trim;

/// The largest file that is read, in bytes: far above any configuration, and a
/// bound for `-C /dev/zero`.
pub const FILE_LEN_MAX: u64 = 64 << 20;

/// One `name: value`, in the order of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name in lower case.
    pub name: String,
    /// The value: not empty, without NUL, no blanks at the ends; any encoding.
    pub value: Vec<u8>,
    /// Where it stands.
    pub origin: Origin,
}

/// The options of a configuration file and its includes as they stand, not yet
/// typed, checked for duplicates or applied to one service.
#[derive(Clone, Debug)]
pub struct ImapdConf {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl ImapdConf {
    /// Reads `path` and whatever it includes.
    ///
    /// With a `prefix` (the value of `CYRUS_PREFIX`), the plain concatenation
    /// of prefix and name is tried first for each file, then the name itself.
    /// Relative names are relative to the working directory.
    pub fn read(path: &Path, prefix: Option<&OsStr>) -> Result<ImapdConf, ConfigError> {
        let mut reader = Reader { prefix, names: HashSet::new(), open: Vec::new() };
        let mut entries = Vec::new();
        reader.enter(path, None)?;
        while let Some(statement) = reader.next_statement()? {
            match statement {
                Statement::Option(entry) => entries.push(entry),
                Statement::Include(path, origin) => reader.enter(&path, Some(origin))?,
            }
        }
        Ok(ImapdConf { path: path.to_owned(), entries })
    }

    /// The main file, by the name asked for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every option, in the order of reading.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

enum Statement {
    Option(Entry),
    Include(PathBuf, Origin),
}

/// The stack of files being read. Includes are kept here and not on the
/// program's stack: a long chain of files must not overflow it.
struct Reader<'a> {
    prefix: Option<&'a OsStr>,
    names: HashSet<PathBuf>,
    open: Vec<Lines>,
}

impl Reader<'_> {
    fn enter(&mut self, path: &Path, origin: Option<Origin>) -> Result<(), ConfigError> {
        let (bytes, opened) = match self.load(path) {
            Ok(loaded) => loaded,
            Err(source) => {
                let path = path.to_owned();
                return Err(ConfigError::Open { path, source, origin });
            }
        };
        let path = path.to_owned();
        if bytes.len() as u64 > FILE_LEN_MAX {
            return Err(ConfigError::TooLarge { path, origin });
        }
        let name = Arc::from(path.as_path());
        if !self.names.insert(path.clone())
            && let Some(origin) = origin
        {
            return Err(ConfigError::IncludedTwice { path, origin });
        }
        self.open.push(Lines { name, file: Arc::from(opened), bytes, at: 0, line: 0 });
        Ok(())
    }

    /// The content of a file and the name under which it was found.
    fn load(&self, path: &Path) -> io::Result<(Vec<u8>, PathBuf)> {
        if let Some(prefix) = self.prefix {
            let mut name = OsString::from(prefix);
            name.push(path);
            if let Ok(file) = File::open(&name) {
                return Ok((read_bounded(file)?, name.into()));
            }
        }
        Ok((read_bounded(File::open(path)?)?, path.to_owned()))
    }

    /// The next statement of the innermost file, leaving files at their end.
    fn next_statement(&mut self) -> Result<Option<Statement>, ConfigError> {
        while let Some(lines) = self.open.last_mut() {
            while let Some((text, line)) = lines.next_logical() {
                let origin = Origin { file: Arc::clone(&lines.file), line };
                if let Some(statement) = parse(&text, origin, &lines.name)? {
                    return Ok(Some(statement));
                }
            }
            self.open.pop();
        }
        Ok(None)
    }
}

/// Reads at most one byte more than [`FILE_LEN_MAX`].
fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One open file, cut into logical lines.
struct Lines {
    /// The name asked for, which Cyrus prints.
    name: Arc<Path>,
    /// The name opened, which the administrator has to edit.
    file: Arc<Path>,
    bytes: Vec<u8>,
    at: usize,
    line: u32,
}

impl Lines {
    /// The next logical line without its newline, and the number of its last
    /// physical line. Joining comes before anything else is recognised: a
    /// comment that ends in a backslash swallows the line below.
    fn next_logical(&mut self) -> Option<(Vec<u8>, u32)> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let mut text = Vec::new();
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            self.line = self.line.saturating_add(1);
            let Some(end) = rest.iter().position(|&b| b == b'\n') else {
                // Without a newline, a backslash at the end is one.
                text.extend_from_slice(rest);
                self.at = self.bytes.len();
                break;
            };
            self.at += end + 1;
            match &rest[..end] {
                [joined @ .., b'\\'] => text.extend_from_slice(joined),
                whole => {
                    text.extend_from_slice(whole);
                    break;
                }
            }
        }
        Some((text, self.line))
    }
}

/// One logical line; `None` if there is nothing on it.
fn parse(text: &[u8], origin: Origin, asked: &Arc<Path>) -> Result<Option<Statement>, ConfigError> {
    let text = trim(text);
    if text.is_empty() || text[0] == b'#' {
        return Ok(None);
    }
    if text.contains(&0) {
        return Err(ConfigError::NulByte { origin });
    }
    let (directive, text) = match text {
        [b'@', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let end = text.iter().position(|&b| !is_name_byte(b));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let [b':', value @ ..] = rest else {
        let name = Arc::clone(asked);
        return Err(ConfigError::OptionName { origin, name });
    };
    if name.is_empty() && !directive {
        // Cyrus aborts here.
        let name = Arc::clone(asked);
        return Err(ConfigError::OptionName { origin, name });
    }
    let value = trim(value);
    if value.is_empty() {
        return Err(ConfigError::EmptyValue { origin });
    }
    let value = value.to_vec();
    if !directive {
        return Ok(Some(Statement::Option(Entry { name, value, origin })));
    }
    if name != "include" {
        let name = Arc::clone(asked);
        return Err(ConfigError::Directive { origin, name });
    }
    let path = PathBuf::from(OsString::from_vec(value));
    Ok(Some(Statement::Include(path, origin)))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A directory with files in it.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &[u8])]) -> Files {
            let dir = tempfile::tempdir().unwrap();
            for (name, content) in files {
                let path = dir.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let root = dir.path().display().to_string();
                let content = match std::str::from_utf8(content) {
                    Ok(text) => text.replace("$DIR", &root).into_bytes(),
                    Err(_) => content.to_vec(),
                };
                std::fs::write(path, content).unwrap();
            }
            Files(dir)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// The options as `name=value@line`, or the error without directory.
        fn read(&self, prefix: Option<&OsStr>) -> Result<Vec<String>, String> {
            let conf = ImapdConf::read(&self.path("imapd.conf"), prefix)
                .map_err(|e| e.to_string().replace(&format!("{}/", self.0.path().display()), ""))?;
            let show =
                |e: &Entry| format!("{}={}@{}", e.name, e.value.escape_ascii(), e.origin.line);
            Ok(conf.entries().iter().map(show).collect())
        }
    }

    fn read(content: &[u8]) -> Result<Vec<String>, String> {
        Files::new(&[("imapd.conf", content)]).read(None)
    }

    #[test]
    fn lines_are_read_as_cyrus_reads_them() {
        let rows: &[(&[u8], &[&str])] = &[
            (b"", &[]),
            (b"\n \t\n", &[]),
            (b"admins: a\\\n  b\n", &["admins=a  b@2"]),
            (b"# c\\\nadmins: x\nb: c\n", &["b=c@3"]),
            (b"  # c\n\\\nadmins: x\n", &["admins=x@3"]),
            (b"admins: a\\ \n", &["admins=a\\\\@1"]),
            (b"admins: a\\", &["admins=a\\\\@1"]),
            (b"admins: a\\\n", &["admins=a@1"]),
            (b"admins: a\\\r\nfoo: b\r\n", &["admins=a\\\\@1", "foo=b@2"]),
            (b"admins: a #c\n", &["admins=a #c@1"]),
            (b"\t AdMins:x y \r\n", &["admins=x y@1"]),
            (b"admins: a: b", &["admins=a: b@1"]),
            (b"a: \x0bb\x0bc\x0c\n", &["a=b\\x0bc@1"]),
            (b"a-b_9: \xff\n", &["a-b_9=\\xff@1"]),
            (b"-: x\n", &["-=x@1"]),
            (b"a: 1\na: 2\n", &["a=1@1", "a=2@2"]),
            (b"# \x00\na: 1\n", &["a=1@2"]),
        ];
        for (content, expected) in rows {
            let shown = content.escape_ascii();
            assert_eq!(read(content).unwrap(), *expected, "{shown}");
        }
    }

    #[test]
    fn malformed_lines_are_refused_in_cyrus_words() {
        let name =
            |line| format!("invalid option name on line {line} of configuration file imapd.conf");
        let empty = |line| {
            format!(
                "empty option value on line {line} of configuration file (file imapd.conf: \
                 give a value after the colon, or remove the line to get the default)"
            )
        };
        let directive = "invalid directive on line 1 of configuration file imapd.conf".to_owned();
        let nul = "NUL byte on line 1 of configuration file imapd.conf (is this a text file?)";
        let rows: &[(&[u8], String)] = &[
            (b"\nadmins : x\n", name(2)),
            (b"admins x\n", name(1)),
            (b"\n\n\na\\\nb\\\nc d\n", name(6)),
            (b": x\n", name(1)),
            (b"x", name(1)),
            (b"; c", name(1)),
            (b"a@dmins: x\n", name(1)),
            (b"ad.mins: x\n", name(1)),
            (b"adm\xc3\xa9: x\n", name(1)),
            (b"\xef\xbb\xbfadmins: x\n", name(1)),
            (b"@include /x\n", name(1)),
            (b"@ include: /x\n", name(1)),
            (b"@include : /x\n", name(1)),
            (b"admins:\n", empty(1)),
            (b"admins:  \t \r\n", empty(1)),
            (b"a\\\n\\\nb:", empty(3)),
            (b"@include:\n", empty(1)),
            (b"@includes: x\n", directive.clone()),
            (b"@: x\n", directive.clone()),
            (b"@admins: x\n", directive),
            (b"admins: a\x00b\n", nul.to_owned()),
            (b"ad\x00mins: b\n", nul.to_owned()),
            (b"\x00\n", nul.to_owned()),
        ];
        for (content, expected) in rows {
            let shown = content.escape_ascii();
            assert_eq!(&read(content).unwrap_err(), expected, "{shown}");
        }
    }

    #[test]
    fn included_options_stand_in_place() {
        let files = Files::new(&[
            ("imapd.conf", b"a: 1\n@Include: $DIR/one\nb: 2\n".as_slice()),
            ("one", b"\nc: 3\n@include: $DIR/two"),
            ("two", b"d: 4"),
        ]);
        let expected = ["a=1@1", "c=3@2", "d=4@1", "b=2@3"];
        assert_eq!(files.read(None).unwrap(), expected);
        let conf = ImapdConf::read(&files.path("imapd.conf"), None).unwrap();
        assert_eq!(&*conf.entries()[2].origin.file, files.path("two"));
    }

    #[test]
    fn loops_end_and_bad_includes_name_their_line() {
        let rows: &[(&[u8], &str)] = &[
            (
                b"@include: $DIR/imapd.conf\n",
                "configuration file imapd.conf included twice \
                 (file imapd.conf: included on line 1)",
            ),
            (
                b"\n@include: $DIR/back\n",
                "configuration file imapd.conf included twice (file back: included on line 1)",
            ),
            (
                b"\n@include: $DIR/nope\n",
                "can't open configuration file nope: No such file or directory \
                 (file imapd.conf: included on line 2)",
            ),
            (
                b"@include: $DIR/dir\n",
                "can't open configuration file dir: Is a directory \
                 (file imapd.conf: included on line 1)",
            ),
            (
                b"@include: $DIR/empty\n@include: $DIR/empty\n",
                "configuration file empty included twice (file imapd.conf: included on line 2)",
            ),
        ];
        for (content, expected) in rows {
            let files = Files::new(&[
                ("imapd.conf", content),
                ("back", b"@include: $DIR/imapd.conf\n"),
                ("empty", b""),
                ("dir/file", b""),
            ]);
            assert_eq!(files.read(None).unwrap_err(), *expected);
        }
    }

    #[test]
    fn a_long_chain_of_includes_is_no_recursion() {
        let dir = tempfile::tempdir().unwrap();
        let name = |n: u32| dir.path().join(n.to_string());
        for n in 0..3000 {
            let text = format!("o{n}: x\n@include: {}\n", name(n + 1).display());
            std::fs::write(name(n), text).unwrap();
        }
        std::fs::write(name(3000), "end: x").unwrap();
        let conf = ImapdConf::read(&name(0), None).unwrap();
        assert_eq!(conf.entries().len(), 3001);
    }

    #[test]
    fn the_prefix_is_tried_first() {
        let files = Files::new(&[("imapd.conf", b"a: plain\n".as_slice())]);
        let prefix = tempfile::tempdir().unwrap();
        let prefixed = prefix.path().join(files.path("imapd.conf").strip_prefix("/").unwrap());
        let value = |prefix: &str| files.read(Some(OsStr::new(prefix))).unwrap();
        let prefix = prefix.path().to_str().unwrap();
        assert_eq!(value(prefix), ["a=plain@1"]);
        assert_eq!(value(""), ["a=plain@1"]);
        std::fs::create_dir_all(prefixed.parent().unwrap()).unwrap();
        std::fs::write(&prefixed, "a: prefixed\n").unwrap();
        assert_eq!(value(prefix), ["a=prefixed@1"]);
        // Cyrus names the file without the prefix; the origin has it in full.
        std::fs::write(&prefixed, "a prefixed\n").unwrap();
        let error = files.read(Some(OsStr::new(prefix))).unwrap_err();
        assert_eq!(error, "invalid option name on line 1 of configuration file imapd.conf");
        std::fs::write(&prefixed, "a: b\n").unwrap();
        let conf = ImapdConf::read(&files.path("imapd.conf"), Some(OsStr::new(prefix))).unwrap();
        assert_eq!(&*conf.entries()[0].origin.file, prefixed);
    }

    #[test]
    fn huge_lines_are_just_lines_and_endless_files_are_refused() {
        let mut content = b"a: ".to_vec();
        content.resize(10 << 20, b'x');
        content.extend_from_slice(b"\nb: 1\n");
        assert_eq!(read(&content).unwrap()[1], "b=1@2");
        let error = ImapdConf::read(Path::new("/dev/zero"), None).unwrap_err();
        assert!(matches!(error, ConfigError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = ImapdConf::read(Path::new("/nonexistent/imapd.conf"), None).unwrap_err();
        let text =
            "can't open configuration file /nonexistent/imapd.conf: No such file or directory";
        assert_eq!(error.to_string(), text);
        assert_eq!(error.exit_code(), 78);
        let error = ImapdConf::read(Path::new("/"), None).unwrap_err();
        assert_eq!(error.to_string(), "can't open configuration file /: Is a directory");
    }
}
