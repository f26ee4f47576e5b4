//! Counts connections, in all and by address.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Peer, ServerLimits};

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Limit {
    #[error("too many connections")]
    All,
    #[error("too many connections from this address")]
    Address,
}

/// The connections there are.
#[derive(Debug)]
pub(super) struct Origins {
    max: usize,
    max_per_address: usize,
    count: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Origins {
    pub(super) fn new(limits: &ServerLimits) -> Origins {
        Origins {
            max: limits.connections_max,
            max_per_address: limits.connections_per_address_max,
            count: 0,
            by_address: HashMap::new(),
        }
    }

    /// Whether there is room for one more. A process on this machine always finds some:
    /// it is the administrator who wants to see what is going on.
    pub(super) fn admits(&self, peer: &Peer) -> Result<(), Limit> {
        let Some(address) = peer.origin() else { return Ok(()) };
        if self.count >= self.max {
            return Err(Limit::All);
        }
        match self.by_address.get(&address) {
            Some(count) if *count >= self.max_per_address => Err(Limit::Address),
            _ => Ok(()),
        }
    }

    pub(super) fn add(&mut self, peer: &Peer) {
        self.count += 1;
        if let Some(address) = peer.origin() {
            *self.by_address.entry(address).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, peer: &Peer) {
        self.count = self.count.saturating_sub(1);
        let Some(address) = peer.origin() else { return };
        if let Some(count) = self.by_address.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn origins(all: usize, per_address: usize) -> Origins {
        Origins::new(&ServerLimits {
            connections_max: all,
            connections_per_address_max: per_address,
            ..ServerLimits::default()
        })
    }

    fn peer(address: &str) -> Peer {
        Peer::new(std::net::SocketAddr::new(address.parse().unwrap(), 1))
    }

    #[test]
    fn each_address_has_its_share() {
        let mut origins = origins(10, 2);
        let (one, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        origins.add(&one);
        assert_eq!(origins.admits(&one), Ok(()));
        origins.add(&one);
        assert_eq!(origins.admits(&one), Err(Limit::Address));
        assert_eq!(origins.admits(&other), Ok(()));
        origins.remove(&one);
        assert_eq!(origins.admits(&one), Ok(()));
        origins.remove(&one);
        assert!(origins.by_address.is_empty());
    }

    #[test]
    fn all_together_have_theirs() {
        let mut origins = origins(2, 2);
        origins.add(&peer("192.0.2.1"));
        assert_eq!(origins.admits(&peer("192.0.2.2")), Ok(()));
        origins.add(&peer("192.0.2.2"));
        assert_eq!(origins.admits(&peer("192.0.2.3")), Err(Limit::All));
        assert_eq!(origins.admits(&Peer::local()), Ok(()));
        origins.remove(&peer("192.0.2.1"));
        assert_eq!(origins.admits(&peer("192.0.2.3")), Ok(()));
    }
}
