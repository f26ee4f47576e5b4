//! Internal mailbox names and their owners.
//!
//! ```text
//! intname = [ domain "!" ] ( path / DELETEDPREFIX "." path "." time )
//! path    = "user." user *( "." component )   ; a user's mailbox
//!         / component *( "." component )      ; a shared mailbox
//! ```
//!
//! A dot that is part of a component is written `^`. The time is hexadecimal, but whatever stands
//! in its place passes for it, as in Cyrus.

/// The key under which all mailboxes without an owner are backed up.
pub const SHARED: &[u8] = b"%SHARED";

/// What a site's configuration says about names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRules {
    /// First component of deleted mailboxes (`deletedprefix`).
    pub deleted_prefix: Vec<u8>,
    /// The domain that names do not carry (`defaultdomain`).
    pub default_domain: Option<Vec<u8>>,
}

impl Default for NameRules {
    fn default() -> NameRules {
        NameRules {
            deleted_prefix: b"DELETED".to_vec(),
            default_domain: Some(b"internal".to_vec()),
        }
    }
}

impl NameRules {
    /// The key of the backup that holds the mailbox `name`: its owner's
    /// userid, or [`SHARED`].
    pub fn backup_key(&self, name: &[u8]) -> Vec<u8> {
        let (domain, local) = match name.iter().position(|&c| c == b'!') {
            Some(at) => (Some(&name[..at]), &name[at + 1..]),
            None => (None, name),
        };
        let mut components = self.without_deleted(local).split(|&c| c == b'.');
        let Some(user) = components
            .next()
            .filter(|first| *first == b"user")
            .and_then(|_| components.next())
            .filter(|user| !user.is_empty())
        else {
            return SHARED.to_vec();
        };
        let mut key: Vec<u8> = user.iter().map(|&c| if c == b'^' { b'.' } else { c }).collect();
        if let Some(domain) = domain.filter(|d| Some(*d) != self.default_domain.as_deref()) {
            key.push(b'@');
            key.extend_from_slice(domain);
        }
        key
    }

    /// What a deleted mailbox was called: without the prefix and the time stamp. `None` if the
    /// name is not that of one.
    pub fn undeleted(&self, name: &[u8]) -> Option<Vec<u8>> {
        let at = name.iter().position(|&c| c == b'!').map_or(0, |at| at + 1);
        let (domain, local) = name.split_at(at);
        let was = self.without_deleted(local);
        (was.len() < local.len()).then(|| [domain, was].concat())
    }

    /// When a mailbox was deleted, as its name says: Unix time, 0 if something else stands in its
    /// place. `None` if the name is not that of a deleted one.
    pub fn deleted_at(&self, name: &[u8]) -> Option<i64> {
        self.undeleted(name)?;
        let stamp = name.rsplit(|&c| c == b'.').next().unwrap_or_default();
        let hex = std::str::from_utf8(stamp).ok();
        Some(hex.and_then(|hex| i64::from_str_radix(hex, 16).ok()).unwrap_or_default())
    }

    /// The INBOX of whoever owns a mailbox, by its internal name; `None` if nobody does.
    pub fn inbox_of(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = self.undeleted(name).unwrap_or_else(|| name.to_vec());
        let at = name.iter().position(|&c| c == b'!').map_or(0, |at| at + 1);
        let user = name[at..].strip_prefix(b"user.")?;
        let len = user.iter().position(|&c| c == b'.').unwrap_or(user.len());
        (len > 0).then(|| name[..at + b"user.".len() + len].to_vec())
    }

    /// The key of the backup of a userid as it travels on the wire: verbatim,
    /// except that the default domain is dropped and nothing means shared.
    pub fn userid_key(&self, userid: &[u8]) -> Vec<u8> {
        if userid.is_empty() {
            return SHARED.to_vec();
        }
        if let Some(at) = userid.iter().rposition(|&c| c == b'@')
            && at > 0
            && Some(&userid[at + 1..]) == self.default_domain.as_deref()
        {
            return userid[..at].to_vec();
        }
        userid.to_vec()
    }

    /// Strips the deleted prefix and the time stamp behind the name, if `local`
    /// has both.
    fn without_deleted<'a>(&self, local: &'a [u8]) -> &'a [u8] {
        let Some(rest) =
            local.strip_prefix(self.deleted_prefix.as_slice()).and_then(|r| r.strip_prefix(b"."))
        else {
            return local;
        };
        match rest.iter().rposition(|&c| c == b'.') {
            Some(at) => &rest[..at],
            None => local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> String {
        let rules =
            NameRules { default_domain: Some(b"example.com".to_vec()), ..NameRules::default() };
        String::from_utf8_lossy(&rules.backup_key(name.as_bytes())).into_owned()
    }

    #[test]
    fn owner_of_a_mailbox() {
        assert_eq!(key("user.tom"), "tom");
        assert_eq!(key("user.tom.Work.2024"), "tom");
        assert_eq!(key("user.a^b.X"), "a.b");
        assert_eq!(key("other.org!user.bob.X"), "bob@other.org");
        assert_eq!(key("example.com!user.bob"), "bob");
    }

    #[test]
    fn deleted_mailboxes_belong_to_their_user() {
        assert_eq!(key("DELETED.user.frank.sub.5F000000"), "frank");
        assert_eq!(key("DELETED.user.frank.5F000000"), "frank");
        assert_eq!(key("other.org!DELETED.user.bob.Folder.6B014ECA"), "bob@other.org");
        assert_eq!(key("DELETED.user.frank.sub.nothex"), "frank");
        assert_eq!(key("DELETED.user.frank.0"), "frank");
        assert_eq!(key("DELETED.user.frank"), "%SHARED");
        assert_eq!(key("DELETED.shared.news.6B014ECA"), "%SHARED");
    }

    #[test]
    fn everything_else_is_shared() {
        for name in ["user", "user.", "shared.news", "", "users.tom", "other.org!news", "!"] {
            assert_eq!(key(name), "%SHARED", "{name}");
        }
    }

    #[test]
    fn deleted_mailboxes_had_a_name() {
        let rules = NameRules::default();
        let undeleted = |name: &str| {
            rules.undeleted(name.as_bytes()).map(|was| String::from_utf8_lossy(&was).into_owned())
        };
        assert_eq!(undeleted("DELETED.user.tom.A.6B014ECA").as_deref(), Some("user.tom.A"));
        assert_eq!(
            undeleted("other.org!DELETED.user.bob.A.6B014ECA").as_deref(),
            Some("other.org!user.bob.A")
        );
        assert_eq!(undeleted("DELETED.user.tom.nothex").as_deref(), Some("user.tom"));
        assert_eq!(rules.deleted_at(b"DELETED.user.tom.A.6B014ECA"), Some(0x6B01_4ECA));
        assert_eq!(rules.deleted_at(b"DELETED.user.tom.nothex"), Some(0));
        assert_eq!(rules.deleted_at(b"user.tom.6B014ECA"), None);
        for name in ["user.tom", "DELETED", "DELETED.6B014ECA"] {
            assert_eq!(undeleted(name), None, "{name}");
        }
    }

    #[test]
    fn inboxes() {
        let rules = NameRules::default();
        for (name, inbox) in [
            ("user.tom", Some("user.tom")),
            ("user.tom.A.B", Some("user.tom")),
            ("other.org!user.bob.A", Some("other.org!user.bob")),
            ("DELETED.user.tom.A.6B014ECA", Some("user.tom")),
            ("shared.news", None),
            ("user.", None),
            ("user", None),
        ] {
            assert_eq!(rules.inbox_of(name.as_bytes()).as_deref(), inbox.map(str::as_bytes));
        }
    }

    #[test]
    fn userids_lose_the_default_domain_only() {
        let rules =
            NameRules { default_domain: Some(b"example.com".to_vec()), ..NameRules::default() };
        assert_eq!(rules.userid_key(b"tom@example.com"), b"tom");
        assert_eq!(rules.userid_key(b"tom@other.org"), b"tom@other.org");
        assert_eq!(rules.userid_key(b"tom"), b"tom");
        assert_eq!(rules.userid_key(b"@example.com"), b"@example.com");
        assert_eq!(rules.userid_key(b""), SHARED);
    }
}
