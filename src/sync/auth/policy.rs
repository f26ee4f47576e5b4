//! Who a login name stands for and what it may do: Cyrus's canonical user
//! names, its realm rule, the `admins` list and proxying.

use std::ffi::CString;

use nix::unistd::{Gid, Group, User, getgrouplist};

use super::{AuthFailure, Identity, Mech};

/// The longest canonical user name, in octets.
pub const MAX_NAME_LEN: usize = 80;

/// How user names are brought into their canonical form; plain values of the
/// options of the same names.
#[derive(Clone, Debug)]
pub struct NamePolicy {
    /// `virtdomains` is `userid` or `on`: a name may carry a domain. (Cyrus's
    /// `on` also takes a domain from the reverse name of the server's address;
    /// that is not done.)
    pub virtdomains: bool,
    /// `defaultdomain`: stripped from names, with `virtdomains` only.
    pub defaultdomain: Option<String>,
    /// `loginrealms`: the domains from which logins are taken. An empty list
    /// admits none without `virtdomains`, all with it.
    pub loginrealms: Vec<String>,
    /// `username_tolower` (on by default in Cyrus).
    pub username_tolower: bool,
}

impl Default for NamePolicy {
    fn default() -> Self {
        NamePolicy {
            virtdomains: false,
            defaultdomain: None,
            loginrealms: Vec::new(),
            username_tolower: true,
        }
    }
}

/// Why a name cannot be a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or nothing but white space.
    #[error("the user name is empty")]
    Empty,
    /// More than [`MAX_NAME_LEN`] octets.
    #[error("the user name is longer than {MAX_NAME_LEN} octets")]
    TooLong,
    /// A character that Cyrus does not take in a user name.
    #[error("the user name contains {0:?}")]
    Character(char),
}

impl NamePolicy {
    /// The canonical form of `name`: white space around it removed, the default
    /// domain stripped, lower case if so configured.
    pub fn canonical(&self, name: &str) -> Result<String, NameError> {
        let name = name.trim_matches(|c: char| c.is_ascii_whitespace());
        let mut name = self.without_default_domain(name);
        check_name(&name)?;
        if self.username_tolower {
            name.make_ascii_lowercase();
        }
        Ok(name)
    }

    /// With virtual domains `user%domain` is another spelling of `user@domain`.
    fn without_default_domain(&self, name: &str) -> String {
        if !self.virtdomains {
            return name.to_owned();
        }
        let Some(at) = name.rfind('@').or_else(|| name.rfind('%')) else {
            return name.to_owned();
        };
        let (user, domain) = (&name[..at], &name[at + 1..]);
        match &self.defaultdomain {
            Some(default) if default.eq_ignore_ascii_case(domain) => user.to_owned(),
            _ => format!("{user}@{domain}"),
        }
    }

    /// Whether a log-in under the canonical name may come from its realm.
    fn admits_realm_of(&self, name: &str) -> bool {
        let Some((_, realm)) = name.split_once('@') else {
            return true;
        };
        if self.virtdomains && self.loginrealms.is_empty() {
            return true;
        }
        self.loginrealms.iter().any(|admitted| admitted.eq_ignore_ascii_case(realm))
    }
}

/// Refuses what Cyrus's `unix` authorisation refuses: control characters,
/// everything beyond ASCII, and `% & * / : ?`.
pub(super) fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong);
    }
    let refused = |c: char| !matches!(c, ' '..='~') || "%&*/:?".contains(c);
    match name.chars().find(|&c| refused(c)) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// What an authenticated user may do.
///
/// `authcid` is canonical and its password was verified; `authzid` is what the
/// client asked to be, empty or absent for itself. An administrator may become
/// anybody, and is an administrator no longer then; all others are only
/// themselves.
pub(super) fn authorise(
    names: &NamePolicy,
    admins: &[String],
    mech: Mech,
    authcid: &str,
    authzid: Option<&str>,
) -> Result<Identity, AuthFailure> {
    if !names.admits_realm_of(authcid) {
        return Err(AuthFailure::CrossRealm { user: authcid.to_owned() });
    }
    let is_admin = is_admin(admins, authcid);
    let authzid = match authzid {
        None | Some("") => authcid.to_owned(),
        Some(asked) => names
            .canonical(asked)
            .map_err(|error| AuthFailure::BadUserName { user: printable(asked), error })?,
    };
    let is_proxying = authzid != authcid;
    if is_proxying && !is_admin {
        return Err(AuthFailure::ProxyDenied { authcid: authcid.to_owned(), authzid });
    }
    Ok(Identity {
        authcid: authcid.to_owned(),
        authzid,
        mech: mech.name(),
        is_admin: is_admin && !is_proxying,
    })
}

/// Whether `admins` lists the canonical name `user`: literally, as `anyone`, or
/// through `group:name`. Entries are compared with case, as Cyrus does.
pub fn is_admin(admins: &[String], user: &str) -> bool {
    let mut groups = None;
    admins.iter().any(|entry| match entry.strip_prefix("group:") {
        Some(name) => {
            let groups = groups.get_or_insert_with(|| groups_of(user));
            matches!(Group::from_name(name), Ok(Some(g)) if groups.contains(&g.gid))
        }
        None => entry == user || entry == "anyone",
    })
}

/// The system groups of `user`, the primary one included. A user without a
/// system account may still be named in the group file.
fn groups_of(user: &str) -> Vec<Gid> {
    let nobody = Gid::from_raw(u32::MAX);
    let primary = match User::from_name(user) {
        Ok(Some(account)) => account.gid,
        _ => nobody,
    };
    let Ok(c_name) = CString::new(user) else {
        return Vec::new();
    };
    match getgrouplist(&c_name, primary) {
        Ok(groups) => groups.into_iter().filter(|&g| g != nobody).collect(),
        Err(error) => {
            tracing::warn!(user, %error, "cannot read the system groups");
            Vec::new()
        }
    }
}

/// A name as a client sent it, fit for one short log line.
pub(crate) fn printable(name: &str) -> String {
    name.chars().take(MAX_NAME_LEN).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|&w| w.to_owned()).collect()
    }

    fn virtual_domains() -> NamePolicy {
        NamePolicy {
            virtdomains: true,
            defaultdomain: Some("example.com".into()),
            ..NamePolicy::default()
        }
    }

    /// Expectations here were taken from backupd 3.6.1.
    #[test]
    fn names_become_canonical() {
        let plain = NamePolicy::default();
        assert_eq!(plain.canonical(" Cyrus\t").unwrap(), "cyrus");
        assert_eq!(plain.canonical("w w").unwrap(), "w w");
        assert_eq!(plain.canonical("12345").unwrap(), "12345");
        assert_eq!(plain.canonical("a,b=c").unwrap(), "a,b=c");
        assert_eq!(plain.canonical("u@Example.com").unwrap(), "u@example.com");
        let kept = NamePolicy { username_tolower: false, ..NamePolicy::default() };
        assert_eq!(kept.canonical("Cyrus").unwrap(), "Cyrus");
        let domains = virtual_domains();
        for name in ["cyrus@example.com", "cyrus@EXAMPLE.com", "cyrus%example.com"] {
            assert_eq!(domains.canonical(name).unwrap(), "cyrus", "{name}");
        }
        assert_eq!(domains.canonical("adm%X.org").unwrap(), "adm@x.org");
    }

    #[test]
    fn names_that_cyrus_refuses() {
        let names = NamePolicy::default();
        for c in "\x01\x1f%&*/:?\x7f\u{e9}".chars() {
            let refusal = names.canonical(&format!("a{c}b"));
            assert_eq!(refusal, Err(NameError::Character(c)));
        }
        for c in "!\"#$'()+,-.0;<=>@[\\]^_`{|}~".chars() {
            names.canonical(&c.to_string()).unwrap();
        }
        assert_eq!(names.canonical(" "), Err(NameError::Empty));
        names.canonical(&"a".repeat(80)).unwrap();
        assert_eq!(names.canonical(&"a".repeat(81)), Err(NameError::TooLong));
        let twice = virtual_domains().canonical("a%b@c");
        assert_eq!(twice, Err(NameError::Character('%')));
        let only_domain = virtual_domains().canonical("@example.com");
        assert_eq!(only_domain, Err(NameError::Empty));
    }

    #[test]
    fn realms() {
        let mut names = NamePolicy::default();
        assert!(names.admits_realm_of("tom"));
        assert!(!names.admits_realm_of("tom@example.org"));
        names.loginrealms = strings(&["example.net", "Example.org"]);
        assert!(names.admits_realm_of("tom@example.org"));
        assert!(!names.admits_realm_of("tom@example.or"));
        names.virtdomains = true;
        assert!(!names.admits_realm_of("tom@example.com"));
        names.loginrealms.clear();
        assert!(names.admits_realm_of("tom@example.com"));
        let refused = authorise(
            &NamePolicy::default(),
            &strings(&["tom@example.org"]),
            Mech::Plain,
            "tom@example.org",
            None,
        );
        assert!(matches!(refused, Err(AuthFailure::CrossRealm { .. })));
    }

    #[test]
    fn admins_are_named_literally_or_by_group() {
        assert!(is_admin(&strings(&["x", "cyrus"]), "cyrus"));
        assert!(is_admin(&strings(&["anyone"]), "tom"));
        let near_misses = strings(&["Cyrus", "cyrus@example.com", "cyr", "group:cyrus-not"]);
        assert!(!is_admin(&near_misses, "cyrus"));
        assert!(!is_admin(&[], "cyrus"));
        let me = User::from_uid(nix::unistd::getuid()).unwrap().unwrap();
        let group = Group::from_gid(me.gid).unwrap().unwrap();
        let entry = vec![format!("group:{}", group.name)];
        assert!(is_admin(&entry, &me.name));
        assert!(!is_admin(&entry, "no-such-user-here"));
    }

    #[test]
    fn proxying_needs_an_admin_and_drops_the_right() {
        let names = NamePolicy::default();
        let admins = strings(&["cyrus"]);
        let ask = |authcid, authzid| authorise(&names, &admins, Mech::Plain, authcid, authzid);
        for itself in [None, Some(""), Some("cyrus"), Some(" CYRUS")] {
            let identity = ask("cyrus", itself).unwrap();
            assert_eq!((identity.authzid.as_str(), identity.is_admin), ("cyrus", true));
        }
        let identity = ask("cyrus", Some("tom@example.net")).unwrap();
        assert_eq!(identity.authcid, "cyrus");
        assert_eq!(identity.authzid, "tom@example.net");
        assert!(!identity.is_admin);
        assert!(!ask("tom", None).unwrap().is_admin);
        let denied = ask("tom", Some("cyrus"));
        assert!(matches!(denied, Err(AuthFailure::ProxyDenied { .. })));
        let bad = ask("cyrus", Some("bad?user"));
        assert!(matches!(bad, Err(AuthFailure::BadUserName { .. })));
    }
}
