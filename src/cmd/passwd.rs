//! `cyrbk passwd USER`: gives a user of the password file a password, or takes
//! the user out of it. The password comes from the terminal, asked for twice
//! and not shown, or as one line from a pipe; never from the command line,
//! where every process of the machine could see it.

use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};

use crate::sync::auth::{MAX_PASSWORD_LEN, NamePolicy, PasswordFile};

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As typed; its canonical form goes into the file, as log-ins look it up.
    pub user: &'a str,
    /// The password file.
    pub file: &'a Path,
    /// How user names are understood by the server.
    pub names: &'a NamePolicy,
    /// Remove the user instead.
    pub remove: bool,
}

/// Runs the command. `input` is standard input, and `is_tty` says that it is a
/// terminal.
///
/// When this returns, the change is on disk, and a running server takes it into
/// account at the next log-in. Returns the user in canonical form.
pub fn run(request: Request<'_>, mut input: impl BufRead, is_tty: bool) -> Result<String> {
    let user = request
        .names
        .canonical(request.user)
        .with_context(|| format!("{:?} cannot be a user", request.user))?;
    let file = PasswordFile::new(request.file);
    if request.remove {
        file.remove(&user)?;
        return Ok(user);
    }
    let password = if is_tty {
        let stdin = io::stdin();
        let _quiet = QuietTerminal::new(stdin.as_fd()).context("cannot switch off the echo")?;
        ask_twice(&user, &mut input)?
    } else {
        read_password(&mut input)?
    };
    file.set(&user, &password)?;
    Ok(user)
}

fn ask_twice(user: &str, input: &mut impl BufRead) -> Result<String> {
    eprint!("New password for {user}: ");
    let first = read_password(input);
    eprintln!();
    let first = first?;
    eprint!("Again: ");
    let second = read_password(input);
    eprintln!();
    if first != second? {
        bail!("the passwords differ; nothing was changed");
    }
    Ok(first)
}

/// What an interrupt key leaves in a line of a [`QuietTerminal`].
const INTERRUPT: u8 = 0x03;

/// Reads one line and drops its end. Nothing beyond it is looked at.
fn read_password(input: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    loop {
        let available = match input.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            available => available.context("cannot read the password")?,
        };
        let end = available.iter().position(|b| [b'\n', INTERRUPT].contains(b));
        let len = end.map_or(available.len(), |at| at + 1);
        line.extend_from_slice(&available[..len]);
        input.consume(len);
        if end.is_some() || len == 0 || line.len() > MAX_PASSWORD_LEN + 2 {
            break;
        }
    }
    if line.last() == Some(&INTERRUPT) {
        bail!("interrupted; nothing was changed");
    }
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        bail!("no password was given; nothing was changed");
    }
    String::from_utf8(line.to_vec()).context("the password is not valid UTF-8")
}

/// A terminal that shows nothing of what is typed, until this is dropped.
///
/// The keys that send signals are off as well: a process killed by one of them
/// would leave the terminal mute. The interrupt key ends the line instead.
struct QuietTerminal<'fd> {
    fd: BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> QuietTerminal<'fd> {
    fn new(fd: BorrowedFd<'fd>) -> nix::Result<Self> {
        let before = tcgetattr(fd)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        quiet.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        tcsetattr(fd, SetArg::TCSAFLUSH, &quiet)?;
        Ok(QuietTerminal { fd, before })
    }
}

impl Drop for QuietTerminal<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.fd, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{BufReader, Write};

    fn request<'a>(user: &'a str, file: &'a Path, names: &'a NamePolicy) -> Request<'a> {
        Request { user, file, names, remove: false }
    }

    #[test]
    fn a_line_from_a_pipe_becomes_the_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cyrbk.passwd");
        let names = NamePolicy::default();
        let user = run(request("Tom", &path, &names), &b"secret\r\nrest"[..], false).unwrap();
        assert_eq!(user, "tom");
        let accounts = PasswordFile::new(&path).load().unwrap();
        assert_eq!(accounts.users().collect::<Vec<_>>(), ["tom"]);
        let remove = Request { remove: true, ..request("tom", &path, &names) };
        run(remove, io::empty(), false).unwrap();
        assert_eq!(PasswordFile::new(&path).load().unwrap().users().count(), 0);
        let error = run(remove, io::empty(), false).unwrap_err().to_string();
        assert!(error.contains("no user \"tom\""), "{error}");
    }

    #[test]
    fn what_is_no_password_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cyrbk.passwd");
        let names = NamePolicy::default();
        let long = vec![b'x'; MAX_PASSWORD_LEN + 1];
        for input in [&b""[..], b"\n", b"\r\n", b"\xff\n", b"ab\x03", b"a\x01b\n", &long] {
            run(request("tom", &path, &names), input, false).unwrap_err();
        }
        run(request("t:m", &path, &names), &b"pw\n"[..], false).unwrap_err();
        assert!(!path.exists());
    }

    #[test]
    fn both_answers_must_agree() {
        assert_eq!(ask_twice("tom", &mut &b"pw\npw\n"[..]).unwrap(), "pw");
        for input in [&b"pw\npW\n"[..], b"pw\n", b"\n\n", b"pw\n\x03"] {
            ask_twice("tom", &mut &*input).unwrap_err();
        }
    }

    #[test]
    fn the_terminal_is_mute_while_asking() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let flags = || tcgetattr(&pty.slave).unwrap().local_flags;
        assert!(flags().contains(LocalFlags::ECHO | LocalFlags::ISIG));
        let quiet = QuietTerminal::new(pty.slave.as_fd()).unwrap();
        assert!(!flags().intersects(LocalFlags::ECHO | LocalFlags::ISIG));
        let mut keyboard = File::from(pty.master.try_clone().unwrap());
        let mut lines = BufReader::new(File::from(pty.slave.try_clone().unwrap()));
        keyboard.write_all(b"pw\nab\x03").unwrap();
        assert_eq!(read_password(&mut lines).unwrap(), "pw");
        let interrupted = read_password(&mut lines).unwrap_err().to_string();
        assert!(interrupted.contains("interrupted"), "{interrupted}");
        drop(quiet);
        assert!(flags().contains(LocalFlags::ECHO | LocalFlags::ISIG));
    }
}
