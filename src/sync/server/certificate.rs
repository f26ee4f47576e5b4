//! The name in a client's certificate, which is who the client is.

use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};

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
