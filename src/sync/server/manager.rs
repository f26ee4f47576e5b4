//! What a server tells the process that started it: Cyrus's master over a pipe, or
//! systemd by its socket; and when it leaves in order to be replaced.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use sd_notify::NotifyState;

use super::Program;

/// Who started the server.
#[derive(Debug, Default)]
pub enum Manager {
    /// Nobody who wants to know.
    #[default]
    None,
    /// Cyrus's master: the write end of its status pipe.
    Master(File),
    /// systemd, if `NOTIFY_SOCKET` is set; nobody otherwise.
    Systemd,
}

/// When a server leaves by itself.
#[derive(Clone, Debug, Default)]
pub struct Retirement {
    /// After so many connections, as soon as there is none.
    pub connections: Option<u64>,
    /// After so long without a connection, once there was one.
    pub idle_time: Option<Duration>,
    /// On SIGHUP: no more connections, and leave after the last one. Without it SIGHUP
    /// makes certificates be read again.
    pub on_hangup: bool,
    /// After the last connection: the server was started for those it has.
    pub when_empty: bool,
    /// When a client comes and there is another program in the place of this one: that client is
    /// left to the successor, and the server leaves after its last connection.
    pub on_change: Option<Program>,
}

/// Message numbers of master's status pipe: two native 32-bit integers, this and
/// the process id. A new process counts as available; so do servers that take many
/// connections at once, until they leave.
const UNAVAILABLE: i32 = 2;
const CONNECTION_MULTI: i32 = 4;

impl Manager {
    /// The server is about to take connections.
    pub(super) fn ready(&self, listeners: usize) {
        if let Manager::Systemd = self {
            let status = format!("listening on {listeners} sockets");
            notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        }
    }

    /// A connection was accepted.
    pub(super) fn connection(&mut self) {
        self.tell_master(CONNECTION_MULTI);
    }

    /// No more connections are taken. Once.
    pub(super) fn stopping(&mut self) {
        self.tell_master(UNAVAILABLE);
        if let Manager::Systemd = self {
            notify(&[NotifyState::Stopping]);
        }
    }

    /// The server is alive; how many connections it has.
    pub(super) fn alive(&self, connections: usize) {
        if let Manager::Systemd = self {
            let status = format!("{connections} connections");
            notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
        }
    }

    /// How often systemd wants to be told that the server is alive.
    pub(super) fn alive_interval(&self) -> Option<Duration> {
        match self {
            Manager::Systemd => sd_notify::watchdog_enabled().map(|limit| limit / 2),
            Manager::None | Manager::Master(_) => None,
        }
    }

    fn tell_master(&mut self, message: i32) {
        let Manager::Master(pipe) = self else { return };
        let pid = std::process::id().cast_signed();
        let mut octets = [0; 8];
        octets[..4].copy_from_slice(&message.to_ne_bytes());
        octets[4..].copy_from_slice(&pid.to_ne_bytes());
        if let Err(error) = pipe.write_all(&octets) {
            tracing::error!(%error, "cannot tell master of message {message}");
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn messages_are_two_native_integers() {
        let file = tempfile::tempfile().unwrap();
        let mut manager = Manager::Master(file.try_clone().unwrap());
        manager.ready(1);
        manager.connection();
        manager.alive(1);
        manager.stopping();
        let mut file = file;
        file.rewind().unwrap();
        let mut octets = Vec::new();
        file.read_to_end(&mut octets).unwrap();
        let numbers: Vec<i32> =
            octets.chunks(4).map(|four| i32::from_ne_bytes(four.try_into().unwrap())).collect();
        let pid = std::process::id().cast_signed();
        assert_eq!(numbers, [4, pid, 2, pid]);
    }
}
