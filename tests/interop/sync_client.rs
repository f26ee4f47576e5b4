//! What a run of `sync_client -v -v` did: its exit code and the protocol it spoke.

use crate::process::Output;

/// A finished run.
#[must_use]
pub(crate) struct SyncRun {
    pub(crate) output: Output,
}

impl SyncRun {
    /// Of a run with `-v -v`, whose stderr holds the protocol trace.
    pub(crate) fn new(output: Output) -> Self {
        Self { output }
    }

    /// Panics unless the exit code is 0.
    pub(crate) fn success_with_refusals(self) -> Self {
        assert_eq!(self.output.code(), 0, "{}", self.output);
        self
    }

    /// Panics unless the exit code is 0 and no request was refused.
    pub(crate) fn success(self) -> Self {
        let this = self.success_with_refusals();
        assert_eq!(this.refusals(), Vec::<String>::new(), "{}", this.output);
        this
    }

    /// The requests sent, as verb and name: `GET USER`, `APPLY MESSAGE`, `RESTART`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.traced(b'>')
            .map(|line| {
                let words: Vec<&str> = line.split_ascii_whitespace().take(2).collect();
                words.join(" ")
            })
            .collect()
    }

    /// Those of [`SyncRun::requests`] that change the store.
    pub(crate) fn applied(&self) -> Vec<String> {
        let mut requests = self.requests();
        requests.retain(|request| request.starts_with("APPLY "));
        requests
    }

    /// Panics unless `request` (`APPLY MESSAGE`) was sent at least once.
    pub(crate) fn assert_sent(&self, request: &str) {
        let requests = self.requests();
        assert!(requests.iter().any(|sent| sent == request), "no {request}: {}", self.output);
    }

    /// Final lines received that are not OK.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.traced(b'<')
            .filter(|line| ["NO ", "BAD ", "BYE "].into_iter().any(|word| line.starts_with(word)))
            .collect()
    }

    /// First lines of the trace's blocks in one direction: `>time>` sent, `<time<` received.
    fn traced(&self, direction: u8) -> impl Iterator<Item = String> {
        self.output.stderr.split(|&byte| byte == b'\n').filter_map(move |line| {
            let rest = line.strip_prefix(&[direction])?;
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let first = rest[digits..].strip_prefix(&[direction])?;
            (digits >= 9).then(|| {
                let shown = &first[..first.len().min(300)];
                String::from_utf8_lossy(shown).trim_end().to_owned()
            })
        })
    }
}
