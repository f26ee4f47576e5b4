//! What a session asks of the store, and what comes back: plain values.

use super::auth::ChannelBindings;
use crate::wire::Body;

/// A job that may block. A session has one at a time.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// `AUTHENTICATE mech [initial]`; the initial response is decoded.
    Authenticate {
        /// Mechanism name as sent.
        mech: String,
        /// Initial response.
        initial: Option<Vec<u8>>,
        /// What surrounds the dialogue.
        channel: Channel,
    },
    /// The client's answer to a challenge, decoded.
    Respond(Vec<u8>),
    /// Octets of message bodies to be staged.
    Stage {
        /// The octets.
        octets: Vec<u8>,
        /// They are the first of their line: nothing that is staged already counts.
        is_first: bool,
    },
    /// The line whose bodies were staged goes no further: their room is given back.
    Unstage,
    /// `GET`, what follows the word.
    Get(Vec<u8>),
    /// `APPLY`, what follows the word, and the message bodies beside it.
    Apply(Vec<u8>, Vec<Body>),
    /// `RESTART`: make everything durable. The backups may be kept for a moment.
    Restart,
    /// `EXIT`: make everything durable and let go of every backup, before the connection closes.
    Exit,
    /// The same, without a reply: the session is idle, and may go on where it stopped.
    Release,
    /// The connection is gone: all that it has begun ends.
    Close,
}

/// What surrounds a dialogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// TLS is active.
    pub is_tls: bool,
    /// Nobody can listen: TLS, or something that the administrator vouches for.
    pub is_private: bool,
    /// Who the client is by its certificate.
    pub identity: Option<String>,
    /// What a log-in can be bound to; none without TLS.
    pub bindings: ChannelBindings,
}

/// The result of a [`Work`].
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// Of `Authenticate` and `Respond`.
    Auth(AuthReply),
    /// Of `Stage`: whether it worked.
    Staged(bool),
    /// The complete reply: untagged lines and the final line.
    Reply(Vec<u8>),
    /// Of `Unstage`, `Release` and `Close`.
    Released,
}

/// How an authentication goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum AuthReply {
    /// Send `+ ` and this text (base64), and wait for the answer.
    Challenge(String),
    /// The client is who it claims to be.
    Success {
        /// Whom it acts for.
        user: String,
        /// Whether it may do anything.
        is_admin: bool,
    },
    /// It is not.
    Failure {
        /// The final line.
        status: String,
        /// Whether the answer is held back for the login pause.
        is_delayed: bool,
    },
}
