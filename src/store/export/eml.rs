//! A file for each message, octet for octet: `<folder>/<folder>/<uid>.eml`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use super::Sink;
use super::directory;
use super::item::Item;

/// A directory of folders of files.
pub struct Eml {
    root: PathBuf,
    made: BTreeSet<PathBuf>,
}

impl Eml {
    /// Errors: that of [`io::ErrorKind::AlreadyExists`] if there is something already.
    pub fn create(root: PathBuf) -> io::Result<Eml> {
        directory::claim(&root)?;
        let made = BTreeSet::from([root.clone()]);
        Ok(Eml { root, made })
    }

    /// Beside what is in the directory already, which is not touched.
    pub fn beside(root: PathBuf) -> io::Result<Eml> {
        fs::create_dir_all(&root)?;
        let made = BTreeSet::from([root.clone()]);
        Ok(Eml { root, made })
    }
}

impl Sink for Eml {
    /// A file is there whole or not at all.
    fn message(&mut self, item: &Item, _: u64, octets: &mut dyn Read) -> io::Result<()> {
        let mut folder = self.root.clone();
        for component in item.folder.directories() {
            folder.push(component);
            if self.made.insert(folder.clone()) {
                fs::create_dir(&folder)?;
            }
        }
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        io::copy(octets, &mut file)?;
        directory::set_time(file.as_file(), item.internaldate)?;
        file.as_file().sync_all()?;
        let name = folder.join(format!("{}.eml", item.stem()));
        file.persist_noclobber(name).map(drop).map_err(|e| e.error)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.made.iter().try_for_each(|folder| directory::sync(folder))
    }
}
