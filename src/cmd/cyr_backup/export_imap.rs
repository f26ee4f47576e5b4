//! `cyrbk export --imap`: messages to any IMAP server.
//!
//! Which messages are there already is asked first, mailbox by mailbox, and those are passed
//! over: the command can be given again after whatever went wrong, and goes on.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::store::export::{Item, Sink};
use crate::sync::client::imap::{Appended, Identity, ImapError, Mailstore};
use crate::sync::client::{
    Certificates, Destination, Login, Options, Password, Protocol, TlsMode, Verify,
};

/// Where to, and who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imap {
    /// `host`, `host:port`, `imap://...` or `imaps://...`.
    pub server: String,
    /// Who logs in.
    pub user: Option<String>,
    /// Its first line is the password; else it is in the environment.
    pub password_file: Option<PathBuf>,
    /// Roots of certificates, in PEM; else those of the system.
    pub ca_file: Option<PathBuf>,
    /// Without TLS, password and mail in the clear.
    pub no_tls: bool,
    /// A folder there for everything, components separated by `/`.
    pub under: Option<String>,
}

/// Where names and passwords may be; never on a command line, which everybody can read.
const USER_VARIABLE: &str = "CYRBK_IMAP_USER";
const PASSWORD_VARIABLE: &str = "CYRBK_IMAP_PASSWORD";
/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) added: u64,
    pub(super) there_already: u64,
    /// Why the server would not take some.
    pub(super) refused: Vec<String>,
}

/// Puts messages on a server, one mailbox for each folder.
pub(super) struct ImapSink {
    store: Option<Mailstore>,
    under: Vec<String>,
    known: HashMap<String, Known>,
    pub(super) tally: Tally,
}

/// What is in a mailbox, and how often.
type Known = HashMap<Identity, u32>;

impl ImapSink {
    pub(super) fn connect(imap: &Imap) -> Result<ImapSink, Failure> {
        let options = options(imap).map_err(Failure::Text)?;
        let text = |error: ImapError| Failure::Text(format!("{}: {error}", imap.server));
        let store = Mailstore::connect(&options).map_err(text)?;
        let under = imap.under.iter().flat_map(|path| path.split('/'));
        let under = under.filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let (known, tally) = (HashMap::new(), Tally::default());
        Ok(ImapSink { store: Some(store), under, known, tally })
    }

    /// The mailbox of an item; it is made if it is missing.
    fn mailbox(&mut self, item: &Item) -> Result<String, ImapError> {
        let path: Vec<String> = self.under.iter().chain(&item.folder.path).cloned().collect();
        let Some(store) = &mut self.store else { return Ok(String::new()) };
        let name = store.names().join(&path);
        if !self.known.contains_key(&name) {
            let contents = match store.contents(&name)? {
                Some(contents) => contents,
                None => {
                    store.create(&name)?;
                    Vec::new()
                }
            };
            let mut known = Known::new();
            contents.into_iter().for_each(|id| *known.entry(id).or_default() += 1);
            self.known.insert(name.clone(), known);
        }
        Ok(name)
    }

    fn append(&mut self, item: &Item, size: u64, octets: &mut dyn Read) -> Result<bool, ImapError> {
        let name = self.mailbox(item)?;
        let known = self.known.entry(name.clone()).or_default();
        // Each copy there stands for one copy here.
        let mut is_there = |id: &Identity| match known.get_mut(id) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        };
        let flags = item.flags().collect();
        let message = Appended { flags, internaldate: item.internaldate, size };
        match &mut self.store {
            Some(store) => store.append(&name, &message, octets, &mut is_there),
            None => Ok(false),
        }
    }
}

impl Sink for ImapSink {
    /// A message that is refused is remembered, and the others go on.
    fn message(&mut self, item: &Item, size: u64, octets: &mut dyn Read) -> io::Result<()> {
        match self.append(item, size, octets) {
            Ok(true) => self.tally.added += 1,
            Ok(false) => self.tally.there_already += 1,
            Err(error @ ImapError::Refused { .. }) => {
                let place = String::from_utf8_lossy(&item.folder.mboxname).into_owned();
                self.tally.refused.push(format!("{place} uid {} {}: {error}", item.uid, item.guid));
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        match self.store.take().map(Mailstore::log_out) {
            Some(Err(error)) => Err(io::Error::other(error)),
            _ => Ok(()),
        }
    }
}

impl Imap {
    /// What words and environment show by themselves: where to, and that somebody can log in.
    pub(super) fn check(&self) -> Result<(), String> {
        self.place()?;
        self.user()?;
        if self.password_file.is_none() {
            password_in_environment()?;
        }
        Ok(())
    }

    /// Where to, and whether by TLS from the first octet on.
    fn place(&self) -> Result<(Destination, bool), String> {
        let (is_imaps, place) = match self.server.split_once("://") {
            None => (false, self.server.as_str()),
            Some(("imap", place)) => (false, place),
            Some(("imaps", place)) => (true, place),
            Some((scheme, _)) => return Err(format!("{scheme}: neither imap nor imaps")),
        };
        let destination = Destination::parse(place.trim_end_matches('/'));
        Ok((destination.map_err(|error| error.to_string())?, is_imaps))
    }

    fn user(&self) -> Result<String, String> {
        let user = self.user.clone().or_else(|| std::env::var(USER_VARIABLE).ok());
        user.ok_or(format!("no user: give --imap-user or set {USER_VARIABLE}"))
    }

    fn password(&self) -> Result<Password, String> {
        let password = match &self.password_file {
            Some(file) => first_line(file),
            None => password_in_environment(),
        };
        password.map(Password::new)
    }
}

fn password_in_environment() -> Result<String, String> {
    std::env::var(PASSWORD_VARIABLE)
        .map_err(|_| format!("no password: give --password-file or set {PASSWORD_VARIABLE}"))
}

fn options(imap: &Imap) -> Result<Options, String> {
    let (destination, is_imaps) = imap.place()?;
    let mut options = Options::new(destination);
    options.protocol = Protocol::Imap;
    options.tls = match (is_imaps, imap.no_tls) {
        (true, _) => TlsMode::OnConnect,
        (false, true) => TlsMode::Never,
        (false, false) => TlsMode::Required,
    };
    if options.tls != TlsMode::Never {
        let file = imap.ca_file.clone().or_else(system_roots);
        let file = Some(file.ok_or("no root certificates on this system: name a --ca-file")?);
        options.certificates =
            Certificates { verify: Verify::Roots { file, dir: None }, own: None };
    }
    let (authname, password) = (imap.user()?, imap.password()?);
    options.login = Some(Login { authname, authzid: None, password, mechanisms: None });
    Ok(options)
}

fn system_roots() -> Option<PathBuf> {
    SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists())
}

fn first_line(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(format!("{}: no password in it", file.display()));
    }
    Ok(line.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn imap(server: &str, dir: &Path) -> Imap {
        let password_file = dir.join("password");
        std::fs::write(&password_file, "secret\nmore\n").unwrap();
        Imap {
            server: server.to_owned(),
            user: Some("alice".to_owned()),
            password_file: Some(password_file),
            ca_file: Some(dir.join("ca.pem")),
            no_tls: false,
            under: None,
        }
    }

    #[test]
    fn tls_is_the_rule() {
        let dir = tempfile::tempdir().unwrap();
        let tls = |server: &str| options(&imap(server, dir.path())).map(|options| options.tls);
        assert_eq!(tls("mail.example.com"), Ok(TlsMode::Required));
        assert_eq!(tls("imap://mail.example.com:143/"), Ok(TlsMode::Required));
        assert_eq!(tls("imaps://mail.example.com"), Ok(TlsMode::OnConnect));
        assert!(tls("http://mail.example.com").is_err() && tls("").is_err());
        let clear = Imap { no_tls: true, ..imap("mail", dir.path()) };
        assert_eq!(options(&clear).map(|options| options.tls), Ok(TlsMode::Never));
        let made = options(&imap("mail", dir.path())).unwrap();
        assert_eq!(made.login.unwrap().password.expose(), "secret");
    }

    #[test]
    fn without_a_password_nobody_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut nobody = imap("mail", dir.path());
        std::fs::write(dir.path().join("password"), "\n").unwrap();
        assert!(options(&nobody).unwrap_err().contains("no password in it"));
        nobody.password_file = Some(dir.path().join("missing"));
        assert!(options(&nobody).unwrap_err().contains("No such file"));
    }
}
