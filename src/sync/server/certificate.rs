//! What is taken from certificates: the name in a client's, which is who the client is, and the
//! hash of the server's own, to which a log-in can be bound.

use sha2_scram::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};

/// Signature algorithms, by the hash that they sign: RSA, ECDSA. Those of the first row are
/// hashed better than they are signed (RFC 5929, 4.1).
const SHA1: [&str; 3] = ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1"];
const SHA256: [&str; 2] = ["1.2.840.113549.1.1.11", "1.2.840.10045.4.3.2"];
const SHA384: [&str; 2] = ["1.2.840.113549.1.1.12", "1.2.840.10045.4.3.3"];
const SHA512: [&str; 2] = ["1.2.840.113549.1.1.13", "1.2.840.10045.4.3.4"];

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The first common name of the subject, as Cyrus takes it; `None` if there is none, or if
/// it is not text. `der` was verified before: anybody may have written it otherwise.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    let subject = certificate.tbs_certificate().subject();
    let value = &subject.iter().find(|attribute| attribute.oid == COMMON_NAME)?.value;
    let is_text = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String);
    let text = is_text.then(|| value.value().to_vec())?;
    String::from_utf8(text).ok()
}

/// `tls-server-end-point` (RFC 5929) of a certificate: its hash, by the hash function of its
/// signature. `None` if that has none of its own (Ed25519) or names it elsewhere (RSA-PSS).
pub(super) fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    let algorithm = certificate.signature_algorithm().oid.to_string();
    let is_one_of = |known: &[&str]| known.contains(&algorithm.as_str());
    match () {
        () if is_one_of(&SHA1) || is_one_of(&SHA256) => Some(Sha256::digest(der).to_vec()),
        () if is_one_of(&SHA384) => Some(Sha384::digest(der).to_vec()),
        () if is_one_of(&SHA512) => Some(Sha512::digest(der).to_vec()),
        () => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (name, value) in names {
            params.distinguished_name.push(name.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_among_others() {
        let long = "x".repeat(300);
        for name in ["admin", "h\u{e9}l\u{e8}ne", long.as_str()] {
            let organization = (DnType::OrganizationName, "Example");
            let der = certificate(&[organization, (DnType::CommonName, name)]);
            assert_eq!(common_name(&der).as_deref(), Some(name));
        }
        assert_eq!(common_name(&certificate(&[(DnType::OrganizationName, "admin")])), None);
        assert_eq!(common_name(&certificate(&[])), None);
    }

    #[test]
    fn a_certificate_is_hashed_as_it_was_signed() {
        for (algorithm, len) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
            let der = params.self_signed(&key).unwrap().der().to_vec();
            assert_eq!(end_point(&der).map(|hash| hash.len()), len);
        }
        assert_eq!(end_point(b"no certificate"), None);
    }

    #[test]
    fn damage_is_no_name_and_no_panic() {
        let der = certificate(&[(DnType::CommonName, "admin")]);
        for len in 0..der.len() {
            assert_eq!(common_name(&der[..len]), None, "{len}");
        }
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut der = der.clone();
                der[at] ^= 1 << bit;
                let _ = common_name(&der);
            }
        }
    }
}
