//! Maildir, with folders as Dovecot has them (Maildir++): the inbox at the root, `.Work.2026`
//! beside it.
//!
//! ```text
//! new/<date>.<n>U<uid>.cyrbk,S=<size>             without any flag
//! cur/<date>.<n>U<uid>.cyrbk,S=<size>:2,<flags>   D F P R S T, in this order
//! ```
//!
//! The time of a file is that of the message. Other flags have no letter that every reader
//! knows; they are left out.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Sink;
use super::directory;
use super::item::Item;

/// Letters in the order in which they stand.
const LETTERS: [(&[u8], char); 5] = [
    (b"\\draft", 'D'),
    (b"\\flagged", 'F'),
    (b"$forwarded", 'P'),
    (b"\\answered", 'R'),
    (b"\\seen", 'S'),
];

/// A Maildir that is being written.
pub struct Maildir {
    root: PathBuf,
    made: BTreeSet<PathBuf>,
    count: u64,
}

impl Maildir {
    /// Errors: that of [`io::ErrorKind::AlreadyExists`] if there is something already.
    pub fn create(root: PathBuf) -> io::Result<Maildir> {
        directory::claim(&root)?;
        let mut maildir = Maildir { root: root.clone(), made: BTreeSet::new(), count: 0 };
        maildir.folder(&root, true)?;
        Ok(maildir)
    }

    fn folder(&mut self, path: &Path, is_root: bool) -> io::Result<()> {
        if !self.made.insert(path.to_owned()) {
            return Ok(());
        }
        if !is_root {
            fs::create_dir(path)?;
            File::create_new(path.join("maildirfolder"))?;
        }
        ["cur", "new", "tmp"].iter().try_for_each(|name| fs::create_dir(path.join(name)))
    }
}

impl Sink for Maildir {
    /// Written in `tmp`, synced, and only then given its place.
    fn message(&mut self, item: &Item, size: u64, octets: &mut dyn Read) -> io::Result<()> {
        let mut folder = self.root.clone();
        if !item.folder.path.is_empty() {
            folder.push(format!(".{}", item.folder.file_name()));
        }
        self.folder(&folder, false)?;
        self.count += 1;
        let name = format!("{}.{}U{}.cyrbk,S={size}", item.internaldate, self.count, item.uid);
        let tmp = folder.join("tmp").join(&name);
        let mut file = File::create_new(&tmp)?;
        io::copy(octets, &mut file)?;
        directory::set_time(&file, item.internaldate)?;
        file.sync_all()?;
        fs::rename(&tmp, folder.join(place(&name, item)))
    }

    fn finish(&mut self) -> io::Result<()> {
        for folder in &self.made {
            directory::sync(folder)?;
            ["cur", "new"].iter().try_for_each(|name| directory::sync(&folder.join(name)))?;
        }
        Ok(())
    }
}

fn place(name: &str, item: &Item) -> String {
    let mut letters: String = LETTERS
        .iter()
        .filter(|(flag, _)| item.flags().any(|f| f.eq_ignore_ascii_case(flag)))
        .map(|(_, letter)| letter)
        .collect();
    if item.expunged.is_some() || item.flags().any(|f| f.eq_ignore_ascii_case(b"\\deleted")) {
        letters.push('T');
    }
    if letters.is_empty() { format!("new/{name}") } else { format!("cur/{name}:2,{letters}") }
}
