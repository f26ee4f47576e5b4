//! Transcripts in `tests/golden/*.csync`, replayed against a lease with an empty store.
//!
//! ```text
//! # comment
//! C: what the client sends, one line each; a line end is CRLF
//! S: what it is answered, all of it
//! ```
//!
//! In either, `<TAB>` is that octet; `<time>` in an answer is any number.

use std::path::Path;
use std::sync::Arc;

use super::super::{Peer, Site};
use super::Lease;
use crate::store::Catalog;
use crate::store::partition::SelectMode;
use crate::store::placement::{Placement, Policy};
use crate::sync::auth::{AuthConfig, Authenticator, NamePolicy, PasswordSources};
use crate::sync::{Done, Work};
use crate::wire::Body;
use crate::wire::frame::{Event, Framer, Limits};
use crate::wire::mboxname::NameRules;

const LIMITS: Limits = Limits { line: 1 << 20, literal: 1 << 20, body: 1 << 20, bodies: 64 };

/// A client's side of the dialogue, without log-in.
struct Dialogue {
    lease: Lease,
    framer: Framer,
    body: Vec<u8>,
    bodies: Vec<Body>,
}

impl Dialogue {
    fn new(dir: &Path) -> Dialogue {
        let policy = Policy {
            partitions: [("one".to_owned(), dir.join("one"))].into(),
            mode: SelectMode::Random,
            umask: 0o077,
            ..Policy::default()
        };
        let site = Site {
            catalog: Catalog::open(dir.join("backups.db")),
            placement: Placement::new(policy),
            names: NameRules {
                default_domain: Some(b"example.com".to_vec()),
                ..NameRules::default()
            },
            authenticator: Authenticator::new(AuthConfig {
                mechs: None,
                sources: PasswordSources::saslauthd("/nonexistent"),
                admins: Vec::new(),
                allow_plaintext: true,
                names: NamePolicy::default(),
                service: "csync".into(),
                failed_login_pause: std::time::Duration::ZERO,
                minimum_layer: 0,
            }),
            staging_path: dir.join("staging"),
            open_backups_max: 16,
        };
        Dialogue {
            lease: Lease::new(Arc::new(site), Peer::local()),
            framer: Framer::new(LIMITS),
            body: Vec::new(),
            bodies: Vec::new(),
        }
    }

    /// The answers to all commands that are complete.
    fn say(&mut self, mut input: &[u8]) -> String {
        let mut answers = Vec::new();
        loop {
            match self.framer.next(&mut input) {
                Event::More => return String::from_utf8_lossy(&answers).into_owned(),
                Event::Body(octets) => self.body.extend_from_slice(octets),
                Event::BodyEnd => self.bodies.push(Body::Memory(std::mem::take(&mut self.body))),
                Event::Line => {
                    let line = self.framer.take_line().unwrap();
                    answers.extend(self.command(&line));
                }
                Event::BodyStart(_) | Event::Continue => {}
                Event::Lost => panic!("out of step"),
            }
        }
    }

    fn command(&mut self, line: &[u8]) -> Vec<u8> {
        let text = |word: &str| line[word.len()..].to_vec();
        let work = match line {
            b"RESTART" => Work::Restart,
            b"EXIT" => Work::Exit,
            _ if line.starts_with(b"GET ") => Work::Get(text("GET ")),
            _ if line.starts_with(b"APPLY ") => {
                Work::Apply(text("APPLY "), std::mem::take(&mut self.bodies))
            }
            _ => panic!("not for a lease: {}", line.escape_ascii()),
        };
        match self.lease.run(work) {
            Done::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }
}

fn is_as_expected(expected: &str, found: &str) -> bool {
    let mut rest = found;
    for (i, part) in expected.split("<time>").enumerate() {
        if i > 0 {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        let Some(behind) = rest.strip_prefix(part) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

fn replay(path: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let mut dialogue = Dialogue::new(dir.path());
    let transcript = std::fs::read_to_string(path).unwrap().replace("<TAB>", "\t");
    let mut answered = String::new();
    let mut lines = transcript.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let at = format!("{}:{}", path.display(), number + 1);
        if let Some(said) = line.strip_prefix("C:") {
            assert!(answered.is_empty(), "{at}: an answer is not expected: {answered}");
            let said = format!("{}\r\n", said.strip_prefix(' ').unwrap_or(said));
            answered = dialogue.say(said.as_bytes());
        } else if let Some(expected) = line.strip_prefix("S:") {
            let expected = expected.strip_prefix(' ').unwrap_or(expected);
            let (first, rest) = answered.split_once("\r\n").unwrap_or((&answered, ""));
            assert!(is_as_expected(expected, first), "{at}:\n  {expected}\nis not\n  {first}");
            answered = rest.to_owned();
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{at}: neither C: nor S:");
        }
        if lines.peek().is_none() {
            assert_eq!(answered, "", "{at}: behind the last line");
        }
    }
    assert!(dialogue.framer.at_line_start(), "{}: ends inside a line", path.display());
}

#[test]
fn transcripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension() == Some("csync".as_ref())).collect();
    files.sort();
    assert!(files.len() >= 5, "transcripts are missing");
    files.iter().for_each(|path| replay(path));
}
