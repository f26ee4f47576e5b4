//! Channel binding (RFC 5056): a log-in that is bound to its TLS connection is worth nothing to
//! somebody in the middle.

use rsasl::prelude::ChannelBindingCallback;

/// What both ends of one TLS connection know, and nobody else; empty without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelBindings {
    /// `tls-exporter` (RFC 9266): of TLS 1.3.
    pub exporter: Option<Vec<u8>>,
    /// `tls-server-end-point` (RFC 5929): the hash of the server's certificate.
    pub end_point: Option<Vec<u8>>,
}

impl ChannelBindings {
    /// Whether there is nothing to bind to.
    pub fn is_empty(&self) -> bool {
        self.exporter.is_none() && self.end_point.is_none()
    }

    /// By the name that clients give it. `tls-unique` is not there: TLS 1.3 has none, and rustls
    /// does not give away that of TLS 1.2.
    pub(super) fn named(&self, name: &str) -> Option<&[u8]> {
        match name {
            "tls-exporter" => self.exporter.as_deref(),
            "tls-server-end-point" => self.end_point.as_deref(),
            _ => None,
        }
    }
}

impl ChannelBindingCallback for ChannelBindings {
    fn get_cb_data(&self, name: &str) -> Option<&[u8]> {
        self.named(name)
    }
}
