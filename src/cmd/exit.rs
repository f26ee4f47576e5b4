//! How a run ends.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::EXIT_CONFIG;

/// Exit statuses, those of Cyrus's tools (`sysexits.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: all done.
    Ok,
    /// 1: a server could not go on.
    Failure,
    /// 64: the words make no sense.
    Usage,
    /// 70: a service that was not started as one.
    Software,
    /// 75: something could not be done, whatever the reason.
    TempFail,
    /// 78: the configuration cannot be read or is wrong.
    Config,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failure => 1,
            Exit::Usage => 64,
            Exit::Software => 70,
            Exit::TempFail => 75,
            Exit::Config => EXIT_CONFIG as u8,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        exit.code().into()
    }
}

/// An error with its causes, each once: some are in the text of what they caused.
pub(super) fn in_full(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Why a command stopped before its end.
#[derive(Debug)]
pub enum Stop {
    /// Everything has been said.
    Exit(Exit),
    /// Output could not be written.
    Output(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}

/// The status of a run. Whoever closed the pipe has seen enough: not a failure.
pub(super) fn conclude(result: Result<Exit, Stop>, err: &mut dyn Write) -> Exit {
    match result {
        Ok(exit) | Err(Stop::Exit(exit)) => exit,
        Err(Stop::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(Stop::Output(e)) => {
            // If this fails too there is nobody left to tell.
            let _ = writeln!(err, "fatal error: cannot write output: {e}");
            Exit::TempFail
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot listen: {source}")]
        struct Outer {
            source: io::Error,
        }
        let error = anyhow::Error::new(Outer { source: io::Error::other("in use") });
        assert_eq!(in_full(&error), "cannot listen: in use");
        assert_eq!(in_full(&error.context("no server")), "no server: cannot listen: in use");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let mut err = Vec::new();
        let closed = Err(Stop::Output(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(conclude(closed, &mut err), Exit::Ok);
        assert!(err.is_empty());
        let full = Err(Stop::Output(io::ErrorKind::StorageFull.into()));
        assert_eq!(conclude(full, &mut err), Exit::TempFail);
        assert!(err.starts_with(b"fatal error: cannot write output: "));
        assert_eq!(conclude(Err(Stop::Exit(Exit::Config)), &mut err).code(), 78);
    }
}
