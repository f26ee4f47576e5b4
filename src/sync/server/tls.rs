//! Certificates from files to what a handshake needs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificate::end_point;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

/// Where certificates are, and what is asked of clients; the options of Cyrus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `tls_server_cert`: the server's certificate, and those that lead to its root.
    pub cert: PathBuf,
    /// `tls_server_key`: its private key.
    pub key: PathBuf,
    /// `tls_client_ca_file`: roots for clients' certificates.
    pub client_ca_file: Option<PathBuf>,
    /// `tls_client_ca_dir`: the same, one file each.
    pub client_ca_dir: Option<PathBuf>,
    /// `tls_client_certs`
    pub client_certs: ClientCerts,
    /// `tls_versions` has `tls1_2`.
    pub tls12: bool,
    /// `tls_versions` has `tls1_3`.
    pub tls13: bool,
}

/// `tls_client_certs`: whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCerts {
    /// They are not asked.
    Off,
    /// They may.
    Optional,
    /// Without a valid one there is no connection.
    Require,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, or is not what it should be.
    #[error("{}: {source}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A directory cannot be read.
    #[error("{}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate in a file that should have one.
    #[error("{}: no certificate in it", .0.display())]
    NoCertificate(PathBuf),
    /// Clients need certificates, and there is none to check them with.
    #[error("tls_client_certs: require needs tls_client_ca_file or tls_client_ca_dir")]
    NoClientRoots,
    /// A root certificate that is none.
    #[error("no usable client root: {0}")]
    Roots(#[from] rustls::client::VerifierBuilderError),
    /// `tls_versions` names none that there is.
    #[error("tls_versions: only tls1_2 and tls1_3 are supported, and neither is named")]
    NoVersion,
    /// Certificate and key do not go together, or something like it.
    #[error("{}: {source}", path.display())]
    Config {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// What the files hold.
#[derive(Clone, Debug)]
pub struct LoadedTls {
    /// For handshakes.
    pub(super) config: Arc<ServerConfig>,
    /// `tls-server-end-point` of the server's certificate.
    pub(super) end_point: Option<Arc<[u8]>>,
}

impl TlsFiles {
    /// Reads the files. To be called again when they may have changed.
    pub fn load(&self) -> Result<LoadedTls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let failed = |source| TlsError::Config { path: self.cert.clone(), source };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions()?)
            .map_err(failed)?;
        let roots = self.client_roots()?;
        let builder = match self.client_certs {
            ClientCerts::Require if roots.is_empty() => return Err(TlsError::NoClientRoots),
            ClientCerts::Off => builder.with_no_client_auth(),
            ClientCerts::Optional if roots.is_empty() => builder.with_no_client_auth(),
            wanted => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match wanted {
                    ClientCerts::Require => verifier,
                    _ => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let chain = certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|source| TlsError::Pem { path: self.key.clone(), source })?;
        let end_point = chain.first().and_then(|own| end_point(own)).map(Arc::from);
        let config = builder.with_single_cert(chain, key).map(Arc::new).map_err(failed)?;
        Ok(LoadedTls { config, end_point })
    }

    fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
        let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
        versions.extend(self.tls13.then_some(&TLS13));
        versions.extend(self.tls12.then_some(&TLS12));
        if versions.is_empty() { Err(TlsError::NoVersion) } else { Ok(versions) }
    }

    fn client_roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        if self.client_certs == ClientCerts::Off {
            return Ok(roots);
        }
        if let Some(file) = &self.client_ca_file {
            roots.add_parsable_certificates(certificates(file)?);
        }
        if let Some(directory) = &self.client_ca_dir {
            for file in files_in(directory)? {
                // Directories of certificates hold other things as well.
                if let Ok(found) = certificates(&file) {
                    roots.add_parsable_certificates(found);
                }
            }
        }
        Ok(roots)
    }
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>, TlsError> {
    let failed = |source| TlsError::Directory { path: directory.to_owned(), source };
    let entries = std::fs::read_dir(directory).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(found) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        TlsFiles {
            cert,
            key,
            client_ca_file: None,
            client_ca_dir: None,
            client_certs: ClientCerts::Optional,
            tls12: true,
            tls13: true,
        }
    }

    #[test]
    fn usable_files_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        files.load().unwrap();
        let roots = TlsFiles { client_ca_file: Some(files.cert.clone()), ..files.clone() };
        roots.load().unwrap();
        let roots = TlsFiles { client_certs: ClientCerts::Require, ..roots };
        roots.load().unwrap();
        // The key in this directory is no certificate, and is passed over.
        let directory = Some(dir.path().to_owned());
        TlsFiles { client_ca_file: None, client_ca_dir: directory, ..roots }.load().unwrap();
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let error = |files: TlsFiles| files.load().unwrap_err().to_string();
        let cert = files.cert.clone();
        let missing = dir.path().join("missing.pem");
        let no_key = error(TlsFiles { key: missing.clone(), ..files.clone() });
        assert!(no_key.contains("missing.pem"), "{no_key}");
        let no_cert = error(TlsFiles { cert: files.key.clone(), ..files.clone() });
        assert!(no_cert.ends_with("key.pem: no certificate in it"), "{no_cert}");
        let key_is_cert = error(TlsFiles { key: cert, ..files.clone() });
        assert!(key_is_cert.contains("cert.pem"), "{key_is_cert}");
        let other = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        std::fs::write(&missing, other.signing_key.serialize_pem()).unwrap();
        let wrong_key = error(TlsFiles { key: missing, ..files.clone() });
        assert!(wrong_key.contains("cert.pem"), "{wrong_key}");
        let require = TlsFiles { client_certs: ClientCerts::Require, ..files.clone() };
        assert!(error(require).starts_with("tls_client_certs"));
        let none = TlsFiles { tls12: false, tls13: false, ..files };
        assert!(error(none).starts_with("tls_versions"));
    }
}
