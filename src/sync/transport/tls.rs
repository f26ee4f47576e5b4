//! Either side of one TLS connection, over buffers.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, ProtocolVersion, ServerConfig, ServerConnection,
};

use super::{Buffer, TransportError};

/// RFC 9266, 2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// What a handshake agreed upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsPeer {
    /// `TLSv1.3` and the like.
    pub(crate) version: String,
    /// As IANA spells it.
    pub(crate) cipher: String,
    /// The other side's certificate; a client's was verified.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// `tls-exporter` (RFC 9266), which needs TLS 1.3.
    pub(crate) exporter: Option<Vec<u8>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tls {
    connection: Connection,
    is_reported: bool,
}

impl Tls {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Tls, rustls::Error> {
        Ok(Tls::new(ServerConnection::new(config)?.into()))
    }

    /// A client of the server of this name; its first words go to `wire`.
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        wire: &mut Buffer,
    ) -> Result<Tls, rustls::Error> {
        let mut tls = Tls::new(ClientConnection::new(config, name)?.into());
        tls.pull(wire);
        Ok(tls)
    }

    fn new(mut connection: Connection) -> Tls {
        // All that is written is taken out at once.
        connection.set_buffer_limit(None);
        Tls { connection, is_reported: false }
    }

    pub(super) fn take_handshake(&mut self) -> Option<TlsPeer> {
        if self.is_reported || self.connection.is_handshaking() {
            return None;
        }
        self.is_reported = true;
        let version = self.connection.protocol_version().and_then(|v| v.as_str());
        let cipher = self.connection.negotiated_cipher_suite();
        let cipher = cipher.and_then(|suite| suite.suite().as_str());
        let certificates = self.connection.peer_certificates();
        Some(TlsPeer {
            version: version.unwrap_or("TLS").replace("TLSv1_", "TLSv1."),
            cipher: cipher.unwrap_or("unknown").to_owned(),
            exporter: self.exporter(),
            certificate: certificates.and_then(<[_]>::first).map(|c| c.clone().into_owned()),
        })
    }

    fn exporter(&self) -> Option<Vec<u8>> {
        let version = self.connection.protocol_version();
        let export = || self.connection.export_keying_material([0; 32], EXPORTER_LABEL, None);
        (version == Some(ProtocolVersion::TLSv1_3)).then(export)?.ok().map(Vec::from)
    }

    /// Decrypts from `raw` until `out` has something; 0 if more input is needed or
    /// the stream has ended. What the protocol itself has to say goes to `wire`, the alert
    /// that comes before an error too.
    pub(super) fn read(
        &mut self,
        raw: &mut Buffer,
        wire: &mut Buffer,
        at_end: &mut bool,
        out: &mut [u8],
    ) -> Result<usize, TransportError> {
        loop {
            match self.connection.reader().read(out) {
                Ok(0) => {
                    *at_end = true;
                    return Ok(0);
                }
                Ok(len) => return Ok(len),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    *at_end = true;
                    return Ok(0);
                }
            }
            // One handshake per step, so that it can be reported before data.
            if raw.is_empty() {
                return Ok(0);
            }
            let mut rest = raw.rest();
            let read = self.connection.read_tls(&mut rest);
            let used = raw.len() - rest.len();
            raw.skip(used);
            let processed = self.connection.process_new_packets().map(drop);
            self.pull(wire);
            processed?;
            if read.is_err() || used == 0 {
                return Err(rustls::Error::General("octets not taken".into()).into());
            }
        }
    }

    pub(super) fn write(&mut self, plain: &[u8], wire: &mut Buffer) -> Result<(), TransportError> {
        let written = self.connection.writer().write_all(plain);
        self.pull(wire);
        written.map_err(|_| rustls::Error::General("octets not written".into()).into())
    }

    pub(super) fn close(&mut self, wire: &mut Buffer) {
        self.connection.send_close_notify();
        self.pull(wire);
    }

    fn pull(&mut self, wire: &mut Buffer) {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Sink(wire)) {
                Ok(len) if len > 0 => {}
                // A buffer takes everything.
                _ => return,
            }
        }
    }
}

struct Sink<'a>(&'a mut Buffer);

impl Write for Sink<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.push(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
