//! Log-ins: the SASL exchange of one session, and the lines of the log that
//! watchers like fail2ban look for.

use super::{NOTICE, Peer};
use crate::sync::auth::{self, AuthFailure, Authenticator, Exchange, Identity, Step};
use crate::sync::{AuthReply, Channel};

/// The exchange under way, if any.
#[derive(Debug, Default)]
pub(super) struct Login {
    exchange: Option<Exchange>,
    mech: String,
    channel: Channel,
}

impl Login {
    /// `AUTHENTICATE mech [initial]`. May block.
    pub(super) fn authenticate(
        &mut self,
        authenticator: &Authenticator,
        peer: &Peer,
        mech: &str,
        initial: Option<&[u8]>,
        channel: Channel,
    ) -> AuthReply {
        let (exchange, step) = match &channel.identity {
            Some(identity) if mech.eq_ignore_ascii_case("EXTERNAL") => {
                authenticator.start_external(identity, initial)
            }
            _ => authenticator.start(mech, initial, channel.is_private, &channel.bindings),
        };
        *self = Login { exchange, mech: mech.to_ascii_uppercase(), channel };
        self.take(peer, step)
    }

    /// The client's answer to a challenge. May block.
    pub(super) fn respond(&mut self, peer: &Peer, response: &[u8]) -> AuthReply {
        let step = match &mut self.exchange {
            Some(exchange) => exchange.step(response),
            None => Step::Failure(AuthFailure::BadProtocol),
        };
        self.take(peer, step)
    }

    fn take(&mut self, peer: &Peer, step: Step) -> AuthReply {
        match step {
            Step::Challenge(text) => AuthReply::Challenge(auth::encode_base64(&text)),
            Step::Success(identity) => {
                let tls = if self.channel.is_tls { "+TLS" } else { "" };
                let (user, mech) = (&identity.authzid, identity.mech);
                tracing::info!(target: NOTICE, "login: {peer} {user} {mech}{tls} User logged in");
                if let Some(why) = why_powerless(&identity) {
                    tracing::warn!("{user} may do nothing here: {why}");
                }
                *self = Login::default();
                AuthReply::Success { user: identity.authzid, is_admin: identity.is_admin }
            }
            Step::Failure(failure) => {
                tracing::warn!(target: NOTICE, "{}", badlogin(peer, &self.mech, &failure));
                *self = Login::default();
                AuthReply::Failure {
                    status: failure.status_text().to_owned(),
                    is_delayed: failure.is_delayed(),
                }
            }
        }
    }
}

/// Why somebody who is let in may do nothing.
fn why_powerless(identity: &Identity) -> Option<String> {
    if identity.is_admin {
        None
    } else if identity.authzid == identity.authcid {
        Some("admins does not name this user".to_owned())
    } else {
        let Identity { authcid, .. } = identity;
        Some(format!("{authcid} is an administrator only without another user's name"))
    }
}

fn badlogin(peer: &Peer, mech: &str, failure: &AuthFailure) -> String {
    format!("badlogin: {peer} {mech} [{}{failure}]", sasl_error(failure))
}

/// What libsasl calls it, number and text: log watchers look for `SASL(-13)`.
fn sasl_error(failure: &AuthFailure) -> &'static str {
    match failure {
        AuthFailure::WrongPassword { .. }
        | AuthFailure::BadUserName { .. }
        | AuthFailure::CrossRealm { .. }
        | AuthFailure::ProxyDenied { .. } => "SASL(-13): authentication failure: ",
        AuthFailure::Backend(_) => "SASL(-1): generic failure: ",
        AuthFailure::NoMechanism => "SASL(-4): no mechanism available: ",
        AuthFailure::BadProtocol => "SASL(-5): bad protocol / cancel: ",
        AuthFailure::EncryptionNeeded => "SASL(-16): encryption needed to use mechanism: ",
        AuthFailure::Cancelled => "SASL(-5): bad protocol / cancel: ",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn why_a_log_in_is_of_no_use() {
        let why = |authzid: &str, is_admin| {
            let authzid = authzid.to_owned();
            why_powerless(&Identity { authcid: "cyrus".into(), authzid, mech: "PLAIN", is_admin })
        };
        assert_eq!(why("cyrus", true), None);
        assert_eq!(why("cyrus", false).unwrap(), "admins does not name this user");
        let proxied = why("root", false).unwrap();
        assert_eq!(proxied, "cyrus is an administrator only without another user's name");
    }

    /// Lines of backupd 3.6.1, up to where its words are about its own insides.
    #[test]
    fn log_watchers_find_what_they_look_for() {
        let peer = Peer::new(SocketAddr::new("192.0.2.5".parse().unwrap(), 1));
        let user = "admin".to_owned();
        for (mech, failure, cyrus) in [
            (
                "PLAIN",
                AuthFailure::WrongPassword { user: user.clone() },
                "badlogin: [192.0.2.5] PLAIN [SASL(-13): authentication failure: ",
            ),
            (
                "LOGIN",
                AuthFailure::WrongPassword { user: user.clone() },
                "badlogin: [192.0.2.5] LOGIN [SASL(-13): authentication failure: ",
            ),
            (
                "PLAIN",
                AuthFailure::ProxyDenied { authcid: user.clone(), authzid: user },
                "badlogin: [192.0.2.5] PLAIN [SASL(-13): authentication failure: ",
            ),
            (
                "NOSUCH",
                AuthFailure::NoMechanism,
                "badlogin: [192.0.2.5] NOSUCH [SASL(-4): no mechanism available: ",
            ),
            (
                "SCRAM-SHA-1",
                AuthFailure::BadProtocol,
                "badlogin: [192.0.2.5] SCRAM-SHA-1 [SASL(-5): bad protocol / cancel: ",
            ),
        ] {
            let line = badlogin(&peer, mech, &failure);
            assert!(line.starts_with(cyrus) && line.ends_with(']'), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }
}
