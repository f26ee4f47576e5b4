//! Child processes that never outlive a test, and waiting with a deadline.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a service may take to stop on SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls `probe` until it gives a value; panics with `what` after `timeout`.
pub(crate) fn wait_for<T>(what: &str, timeout: Duration, probe: impl FnMut() -> Option<T>) -> T {
    try_wait_for(timeout, probe).unwrap_or_else(|| panic!("{what}: not within {timeout:?}"))
}

/// [`wait_for`], giving `None` after `timeout`.
pub(crate) fn try_wait_for<T>(
    timeout: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// What a finished program left behind.
#[must_use]
pub(crate) struct Output {
    pub(crate) command: String,
    /// `None`: killed at the deadline.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) elapsed: Duration,
}

impl Output {
    /// The exit code; panics if the program was killed or ended by a signal.
    pub(crate) fn code(&self) -> i32 {
        let status = self.status.unwrap_or_else(|| panic!("timed out: {self}"));
        if let Some(signal) = status.signal() {
            panic!("ended by signal {signal}: {self}");
        }
        status.code().unwrap()
    }

    /// Standard output as text, byte for byte where it is UTF-8.
    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Panics, showing everything, unless the exit code is 0.
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code(), 0, "{self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tail = |bytes: &[u8]| {
            let from = bytes.len().saturating_sub(6000);
            String::from_utf8_lossy(&bytes[from..]).into_owned()
        };
        writeln!(f, "{} -> {:?} in {:?}", self.command, self.status, self.elapsed)?;
        writeln!(f, "--- stdout (tail)\n{}", tail(&self.stdout))?;
        writeln!(f, "--- stderr (tail)\n{}", tail(&self.stderr))
    }
}

/// Runs `command` to its end, feeding it `input`; kills it after `timeout`.
pub(crate) fn run_with(mut command: Command, input: &[u8], timeout: Duration) -> Output {
    let started = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut service = Service::spawn(command);
    let mut stdin = service.child.stdin.take().unwrap();
    // A program that ends without reading its input is no failure of the harness.
    let _ = std::io::Write::write_all(&mut stdin, input);
    drop(stdin);
    let stdout = drain(service.child.stdout.take().unwrap());
    let stderr = drain(service.child.stderr.take().unwrap());
    let status = service.wait(timeout);
    let command = service.command.clone();
    drop(service);
    Output {
        command,
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        elapsed: started.elapsed(),
    }
}

/// [`run_with`] without input.
pub(crate) fn run(command: Command, timeout: Duration) -> Output {
    run_with(command, b"", timeout)
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// A running program in a process group of its own, all of which is stopped on drop.
pub(crate) struct Service {
    pub(crate) child: Child,
    command: String,
    stopped: bool,
}

impl Service {
    /// Starts `command` in a new process group.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let shown = format!("{command:?}");
        let child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        Self { child, command: shown, stopped: false }
    }

    /// The exit status once the program has ended by itself.
    pub(crate) fn try_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the program to end by itself; `None` after `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        try_wait_for(timeout, || self.try_status())
    }

    /// SIGTERM, and the exit status; panics if the program does not obey.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let status = self.wait(STOP_TIMEOUT);
        status.unwrap_or_else(|| panic!("does not stop on SIGTERM: {}", self.command))
    }

    /// SIGTERM, without waiting.
    pub(crate) fn signal_term(&self) {
        self.signal(Signal::SIGTERM);
    }

    fn signal(&self, signal: Signal) {
        // The group may be gone already.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), signal);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGTERM);
            let child = &mut self.child;
            try_wait_for(STOP_TIMEOUT, || child.try_wait().ok().flatten());
        }
        // Whatever of the group is left.
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
