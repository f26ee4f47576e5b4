//! Descriptors that whoever started this process has left open in it, by number.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use filedescriptor::FileDescriptor;

/// A copy, close-on-exec, of what is open under `number`. The original stays open.
pub(super) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    let copy = FileDescriptor::dup(&number).map_err(io::Error::other)?;
    // Another copy by itself; the first one is closed here.
    Ok(copy.as_file().map_err(io::Error::other)?.into())
}

/// Closes `number`, of which a copy was taken.
pub(super) fn close(number: RawFd) {
    // Nobody else has it: not being open is no harm.
    let _ = nix::unistd::close(number);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn copies_outlive_the_original() {
        let (reader, writer) = std::io::pipe().unwrap();
        let copy = duplicate(writer.as_raw_fd()).unwrap();
        drop(writer);
        nix::unistd::write(&copy, b"x").unwrap();
        drop(copy);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "x");
    }

    #[test]
    fn what_is_not_open_is_an_error() {
        duplicate(999_999).unwrap_err();
    }
}
