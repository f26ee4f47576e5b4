//! Who the tools run as.

use nix::unistd::{Gid, Group, Uid, User, geteuid, initgroups, setgid, setuid};

use crate::config::Settings;

/// The group of Cyrus's files where nothing else is said.
const DEFAULT_GROUP: &str = "mail";

/// Root could not become the Cyrus user.
#[derive(Debug, thiserror::Error)]
#[error("must run as the Cyrus user")]
pub(super) struct NotCyrus;

/// Started as root: becomes the Cyrus user for good, with its group and
/// supplementary groups. Started as anybody else: stays that.
///
/// User: `CYRUS_USER` in the environment, option `cyrus_user`, `cyrus`. Group:
/// `CYRUS_GROUP`, option `cyrus_group`, `mail` (the user's own where there is no
/// such group).
pub(super) fn become_cyrus(settings: &Settings) -> Result<(), NotCyrus> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let name = std::env::var("CYRUS_USER").unwrap_or_else(|_| settings.cyrus_user.clone());
    let user = User::from_name(&name).ok().flatten().ok_or(NotCyrus)?;
    let group = std::env::var("CYRUS_GROUP").ok().or_else(|| settings.cyrus_group.clone());
    switch(&user, group_id(group.as_deref(), user.gid)?).map_err(|_| NotCyrus)
}

fn group_id(configured: Option<&str>, own: Gid) -> Result<Gid, NotCyrus> {
    let group = Group::from_name(configured.unwrap_or(DEFAULT_GROUP)).ok().flatten();
    match (group, configured) {
        (Some(group), _) => Ok(group.gid),
        (None, Some(_)) => Err(NotCyrus),
        (None, None) => Ok(own),
    }
}

fn switch(user: &User, group: Gid) -> nix::Result<()> {
    if user.uid == Uid::from_raw(0) {
        return Ok(());
    }
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| nix::Error::EINVAL)?;
    initgroups(&name, group)?;
    setgid(group)?;
    setuid(user.uid)
}
