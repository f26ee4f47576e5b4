//! Message bodies that wait beside their line.

/// Where the octets of one body are until the line is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In memory.
    Memory(Vec<u8>),
    /// In the session's staging file.
    Staged {
        /// First octet in the staging file.
        offset: u64,
        /// Octets.
        len: u64,
    },
}

impl Body {
    /// Octets of the message.
    pub fn len(&self) -> u64 {
        match self {
            Body::Memory(octets) => octets.len() as u64,
            Body::Staged { len, .. } => *len,
        }
    }

    /// Whether the message has no octets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
