//! Mailbox names as an administrator types them, to internal ones.
//!
//! ```text
//! extname = path [ "@" domain ]       domain only with virtdomains
//! path    = component *( sep component )      sep: "/", or "." (unixhierarchysep)
//! ```
//!
//! Empty components do not count. With `/`, a dot in a component becomes `^`. The default
//! domain is that of names without one.

use crate::config::{NameRules, Virtdomains};

/// The internal name of the mailbox of that external name. What can be nobody's
/// mailbox, because of its separators, becomes the empty name.
pub(super) fn internal(rules: &NameRules, extname: &[u8]) -> Vec<u8> {
    let at = match rules.virtdomains {
        Virtdomains::Off => None,
        _ => extname.iter().rposition(|&c| c == b'@'),
    };
    let (path, domain) =
        at.map_or((extname, None), |at| (&extname[..at], Some(&extname[at + 1..])));
    let separator = if rules.unixhierarchysep { b'/' } else { b'.' };
    // What Cyrus makes of these is nobody's mailbox.
    let stranger = if rules.unixhierarchysep { b'^' } else { b'/' };
    if path.contains(&b'!') || path.contains(&stranger) {
        return Vec::new();
    }
    let mut name = Vec::new();
    let default = rules.defaultdomain.as_deref().map(str::as_bytes);
    if let Some(domain) = domain.filter(|domain| Some(*domain) != default) {
        name.extend_from_slice(domain);
        name.push(b'!');
    }
    let components = path.split(|&c| c == separator).filter(|component| !component.is_empty());
    for (i, component) in components.enumerate() {
        if i > 0 {
            name.push(b'.');
        }
        name.extend(component.iter().map(|&c| if c == b'.' { b'^' } else { c }));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mboxname;

    fn key(name: &str, virtdomains: Virtdomains, unixhierarchysep: bool) -> String {
        let rules = NameRules {
            virtdomains,
            defaultdomain: Some("example.com".into()),
            deletedprefix: "DELETED".into(),
            unixhierarchysep,
            altnamespace: true,
        };
        let owners = mboxname::NameRules {
            deleted_prefix: b"DELETED".to_vec(),
            default_domain: Some(b"example.com".to_vec()),
        };
        let key = owners.backup_key(&internal(&rules, name.as_bytes()));
        String::from_utf8_lossy(&key).into_owned()
    }

    /// All answers are those of Cyrus 3.6.1.
    #[test]
    fn slashes() {
        for (name, expected) in [
            ("user/alice", "alice"),
            ("user/alice@example.com", "alice"),
            ("user/erin/x@virt.example", "erin@virt.example"),
            ("user/a.b@virt.example", "a.b@virt.example"),
            ("user/al@ice@example.com", "al@ice"),
            ("/user//alice/", "alice"),
            ("DELETED/user/alice/x/6B014EEA", "alice"),
            ("user.alice", "%SHARED"),
            ("user/a^b", "%SHARED"),
            ("virt.example!user.dave", "%SHARED"),
            ("Foo@virt.example", "%SHARED"),
            ("user/", "%SHARED"),
            ("INBOX", "%SHARED"),
            ("@", "%SHARED"),
            ("", "%SHARED"),
        ] {
            assert_eq!(key(name, Virtdomains::Userid, true), expected, "{name}");
        }
    }

    /// As Cyrus's `cyr_backup ... show mailboxes` finds them.
    #[test]
    fn the_default_domain_is_no_part_of_a_name() {
        let rules = |unixhierarchysep| NameRules {
            virtdomains: Virtdomains::Userid,
            defaultdomain: Some("example.com".into()),
            deletedprefix: "DELETED".into(),
            unixhierarchysep,
            altnamespace: false,
        };
        for (unixhierarchysep, extname, name) in [
            (true, "user/alice/My Folder@example.com", "user.alice.My Folder"),
            (true, "user/alice/a.b@virt.example", "virt.example!user.alice.a^b"),
            (false, "user.alice@example.com", "user.alice"),
            (false, "user.alice.a^b", "user.alice.a^b"),
            (false, "user.alice.a/b", ""),
        ] {
            let internal = internal(&rules(unixhierarchysep), extname.as_bytes());
            assert_eq!(internal, name.as_bytes(), "{extname}");
        }
    }

    #[test]
    fn dots_and_no_domains() {
        assert_eq!(key("user.dave.x@virt.example", Virtdomains::On, false), "dave@virt.example");
        assert_eq!(key("user..alice", Virtdomains::On, false), "alice");
        assert_eq!(key("user/alice", Virtdomains::On, false), "%SHARED");
        assert_eq!(key("virt.example!user.dave", Virtdomains::On, false), "%SHARED");
        assert_eq!(key("user/alice@example.com", Virtdomains::Off, true), "alice@example.com");
    }
}
