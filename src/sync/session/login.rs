//! AUTHENTICATE, and the SASL exchange behind it.

use super::{Action, LIMITS_UNKNOWN, Phase, Session};
use crate::sync::auth;
use crate::sync::work::{AuthReply, Work};

/// Longest name of a SASL mechanism (RFC 4422, 3.1).
const MECH_MAX: usize = 20;

impl Session {
    pub(super) fn authenticate(&mut self, argument: Option<&[u8]>) {
        let Some(argument) = argument else {
            return self.send("BAD Missing required argument to Authenticate");
        };
        if self.phase != Phase::Unknown {
            return self.send("BAD Already authenticated");
        }
        let mut words = argument.split(|&c| c == b' ');
        let mech = words.next().unwrap_or_default();
        let initial = words.next();
        let is_mech_char = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        let mech = match std::str::from_utf8(mech) {
            Ok(mech)
                if (1..=MECH_MAX).contains(&mech.len())
                    && mech.bytes().all(|c| is_mech_char(&c)) =>
            {
                mech
            }
            _ => return self.send("BAD Invalid mechanism"),
        };
        if words.next().is_some() {
            return self.send("BAD Unexpected extra arguments to Authenticate");
        }
        match initial.map(auth::decode_initial_response).transpose() {
            Ok(initial) => self.submit(Work::Authenticate {
                mech: mech.to_owned(),
                initial,
                channel: self.channel(),
            }),
            Err(failure) => self.auth_reply(refusal(&failure)),
        }
    }

    pub(super) fn sasl_response(&mut self, line: &[u8]) {
        self.phase = Phase::Unknown;
        match auth::decode_base64(line) {
            Ok(response) => self.submit(Work::Respond(response)),
            Err(failure) => self.auth_reply(refusal(&failure)),
        }
    }

    pub(super) fn auth_reply(&mut self, reply: AuthReply) {
        match reply {
            AuthReply::Challenge(text) => {
                self.phase = Phase::Challenged;
                self.send(&format!("+ {text}"));
            }
            AuthReply::Success { user, is_admin } => {
                self.phase = if is_admin { Phase::Ready } else { Phase::Denied };
                self.framer.set_limits(if is_admin {
                    self.settings.limits
                } else {
                    LIMITS_UNKNOWN
                });
                self.send(match self.is_tls {
                    true => "OK Success (tls protection)",
                    false => "OK Success (no protection)",
                });
                self.actions.push_back(Action::LoggedIn(user));
            }
            AuthReply::Failure { status, is_delayed } => {
                if is_delayed {
                    self.actions.push_back(Action::Pause);
                }
                self.send(&status);
            }
        }
    }
}

fn refusal(failure: &auth::AuthFailure) -> AuthReply {
    AuthReply::Failure {
        status: failure.status_text().to_owned(),
        is_delayed: failure.is_delayed(),
    }
}
