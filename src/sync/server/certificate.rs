//! The name in a client's certificate, which is who the client is.
//!
//! ```text
//! Certificate    = SEQUENCE { TBSCertificate, ... }
//! TBSCertificate = SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer,
//!                             validity, subject, ... }
//! subject        = SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value }
//! ```

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// UTF8String, PrintableString, IA5String.
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The first common name of the subject, as Cyrus takes it; `None` if there is none, or if
/// it is not text. `der` was verified before: anybody may have written it otherwise.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let certificate = &mut &*der;
    let tbs = &mut expect(&mut expect(certificate, SEQUENCE)?, SEQUENCE)?;
    if tbs.first() == Some(&VERSION) {
        element(tbs)?;
    }
    for _ in ["serialNumber", "signature", "issuer", "validity"] {
        element(tbs)?;
    }
    let subject = &mut expect(tbs, SEQUENCE)?;
    while !subject.is_empty() {
        let names = &mut expect(subject, SET)?;
        while !names.is_empty() {
            let name = &mut expect(names, SEQUENCE)?;
            if expect(name, OBJECT_IDENTIFIER)? == COMMON_NAME {
                let (tag, value) = element(name)?;
                let text = STRINGS.contains(&tag).then_some(value)?;
                return String::from_utf8(text.to_vec()).ok();
            }
        }
    }
    None
}

/// The content of the next element, which must have this tag.
fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(input).filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// Tag and content of the next element. Tags have one octet here, lengths up to four.
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0, |len, &octet| len << 8 | usize::from(octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    *input = rest;
    Some((tag, content))
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
