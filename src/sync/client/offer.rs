//! What a server offers: its greeting and its capabilities.
//!
//! ```text
//! csync = *( "* " name *( SP argument ) CRLF ) "* OK " text CRLF
//! imap  = "* OK " [ "[CAPABILITY" *( SP name ) "] " ] text CRLF
//! ```

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// In upper case.
    pub(super) mechanisms: Vec<String>,
    pub(super) starttls: bool,
    /// Deflate.
    pub(super) compress: bool,
    pub(super) sieve_mailbox: bool,
    /// `X-REPLICATION`; IMAP only.
    pub(super) replication: bool,
    /// Whether AUTHENTICATE may carry the first response; IMAP only.
    pub(super) sasl_ir: bool,
    /// Whether literals need not wait; IMAP only.
    pub(super) literal_plus: bool,
    /// RFC 2342; IMAP only.
    pub(super) namespace: bool,
}

impl Offer {
    /// Adds a line of a csync banner, `* NAME argument ...`. What is unknown is passed over.
    pub(super) fn add_csync(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace().skip(1).map(str::to_ascii_uppercase);
        match words.next().as_deref() {
            Some("SASL") => self.mechanisms.extend(words),
            Some("STARTTLS") => self.starttls = true,
            // Not the spelling of IMAP.
            Some("COMPRESS") => self.compress |= words.any(|word| word == "DEFLATE"),
            Some("SIEVE-MAILBOX") => self.sieve_mailbox = true,
            _ => {}
        }
    }

    /// Reads IMAP capabilities from `* CAPABILITY ...`, or from a status line with
    /// `[CAPABILITY ...]`; `None` if the line has none.
    pub(super) fn from_imap(line: &str) -> Option<Offer> {
        let upper = line.to_ascii_uppercase();
        let words = match upper.strip_prefix("* CAPABILITY ") {
            Some(words) => words,
            None => upper.split_once("[CAPABILITY ")?.1.split(']').next()?,
        };
        let mut offer = Offer::default();
        for word in words.split_ascii_whitespace() {
            match word {
                "STARTTLS" => offer.starttls = true,
                "COMPRESS=DEFLATE" => offer.compress = true,
                "SASL-IR" => offer.sasl_ir = true,
                "LITERAL+" => offer.literal_plus = true,
                "NAMESPACE" => offer.namespace = true,
                "X-REPLICATION" => offer.replication = true,
                "X-SIEVE-MAILBOX" => offer.sieve_mailbox = true,
                _ => offer.mechanisms.extend(word.strip_prefix("AUTH=").map(str::to_owned)),
            }
        }
        Some(offer)
    }
}

/// Whether the text of a `* OK` is that of a server that speaks csync and nothing else.
pub(super) fn is_csync_greeting(text: &str) -> bool {
    [" Cyrus sync server", " Cyrus backup server"].iter().any(|kind| text.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csync_banners() {
        let mut offer = Offer::default();
        for line in [
            "* SASL PLAIN scram-sha-1",
            "* STARTTLS",
            "* COMPRESS=DEFLATE",
            "* SIEVE-MAILBOX",
            "* NONSENSE a b",
            "*",
            "",
        ] {
            offer.add_csync(line);
        }
        assert_eq!(offer.mechanisms, ["PLAIN", "SCRAM-SHA-1"]);
        assert!(offer.starttls && offer.sieve_mailbox && !offer.compress);
        offer.add_csync("* COMPRESS DEFLATE");
        assert!(offer.compress);
    }

    #[test]
    fn imap_capabilities() {
        let greeting = "* OK [CAPABILITY IMAP4rev1 LITERAL+ STARTTLS AUTH=PLAIN auth=SCRAM-SHA-256 \
                        SASL-IR] mail.example.com Cyrus IMAP 3.6.1 server ready";
        let offer = Offer::from_imap(greeting).unwrap_or_default();
        assert_eq!(offer.mechanisms, ["PLAIN", "SCRAM-SHA-256"]);
        assert!(offer.starttls && offer.sasl_ir && !offer.replication && !offer.compress);
        let line = "* CAPABILITY IMAP4rev1 X-REPLICATION X-SIEVE-MAILBOX COMPRESS=DEFLATE";
        let offer = Offer::from_imap(line).unwrap_or_default();
        assert!(offer.replication && offer.sieve_mailbox && offer.compress);
        assert_eq!(Offer::from_imap("* OK mail ready"), None);
        assert_eq!(Offer::from_imap("* OK [CAPABILITY "), Some(Offer::default()));
    }

    #[test]
    fn who_speaks_csync_only() {
        assert!(is_csync_greeting("mail.example.com Cyrus sync server 3.6.1"));
        assert!(is_csync_greeting("mail.example.com Cyrus backup server 3.6.1"));
        assert!(!is_csync_greeting("mail.example.com Cyrus IMAP 3.6.1 server ready"));
    }
}
