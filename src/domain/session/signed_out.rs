//! Everybody was signed out at an IdP at once.
//!
//! The IdP says so in one line that names no account. Instead of ending the sessions of accounts one by one, which would
//! take as long as there are accounts, the instant is kept, and whatever asks whether a session lives compares with it.

use serde::{Deserialize, Serialize};

use super::Session;
use crate::domain::time::{Span, Timestamp};

/// Such an instant, by two clocks: a log-in is dated by the IdP, a session by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignOut {
    /// By the IdP's clock.
    there: Timestamp,
    /// By ours.
    here: Timestamp,
}

impl SignOut {
    /// An instant by the IdP's clock, which is `ahead` of ours.
    #[must_use]
    pub const fn at(there: Timestamp, ahead: Span) -> Self {
        Self {
            there,
            here: there.minus(ahead),
        }
    }

    fn later(self, other: Self) -> Self {
        Self {
            there: self.there.max(other.there),
            here: self.here.max(other.here),
        }
    }
}

/// Until when an IdP has signed everybody out. It only ever moves on: what has ended does not come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SignedOut {
    /// Every session there, and every token, offline ones too.
    pub everybody: Option<SignOut>,
    /// Every token of the client that we log people in with. Their sessions there go on, and so does the log-in.
    pub through_us: Option<SignOut>,
}

impl SignedOut {
    /// Whether nobody was ever signed out so.
    #[must_use]
    pub const fn is_nobody(&self) -> bool {
        self.everybody.is_none() && self.through_us.is_none()
    }

    /// Whether this session has ended by it, with every refresh family in it.
    #[must_use]
    pub fn ends(&self, session: &Session) -> bool {
        let began = |out: Option<SignOut>| out.is_some_and(|out| session.began <= out.here);
        began(self.everybody) || began(self.through_us) || self.ends_login(session.auth_time)
    }

    /// Whether a log-in of then has ended by it: no session may be opened with it any more. Log-ins have whole seconds, so
    /// one in the second of the sign-out counts as after it, and a session that it opened is known by its own beginning.
    #[must_use]
    pub fn ends_login(&self, auth_time: Option<Timestamp>) -> bool {
        let before = |out: SignOut| auth_time.is_some_and(|login| login.secs() < out.there.secs());
        self.everybody.is_some_and(before)
    }

    /// What is known when both are.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let later = |one: Option<SignOut>, other: Option<SignOut>| match (one, other) {
            (Some(one), Some(other)) => Some(one.later(other)),
            (one, other) => one.or(other),
        };
        Self {
            everybody: later(self.everybody, other.everybody),
            through_us: later(self.through_us, other.through_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::session::Grants;
    use crate::domain::subject::{Subject, UpstreamId};

    fn session(id: &str, began: i64, login: Option<i64>) -> Session {
        Session {
            id: id.to_owned(),
            subject: Subject::new(UpstreamId::parse("kc").unwrap(), "ann").unwrap(),
            upstream_sid: None,
            began: Timestamp::from_millis(began),
            auth_time: login.map(Timestamp::from_secs),
            acr: None,
            amr: Vec::new(),
            claims: String::new(),
            roles: BTreeSet::new(),
            groups: BTreeSet::new(),
            checked: true,
            eligible: true,
            cookie: Vec::new(),
            id_token: String::new(),
            clients: BTreeSet::new(),
            ended: None,
            facts_at: None,
            closed: None,
        }
    }

    // P16, ISS-12
    #[test]
    fn what_began_before_everybody_was_signed_out_is_dead_and_nothing_that_came_after_it() {
        // The IdP's clock is 100 s ahead: there it is 1,000 s, here 900 s.
        let out = SignOut::at(Timestamp::from_secs(1_000), Span::from_secs(100));
        let everybody = SignedOut {
            everybody: Some(out),
            through_us: None,
        };
        let through_us = SignedOut {
            everybody: None,
            through_us: Some(out),
        };
        for (began, login, by_both, by_one) in [
            (899_999, Some(999), true, true),
            (900_000, Some(1_000), true, true),
            (900_001, Some(999), true, false),
            (900_001, Some(1_000), false, false),
            (900_001, None, false, false),
            (899_000, None, true, true),
        ] {
            let session = session("s", began, login);
            let found = (everybody.ends(&session), through_us.ends(&session));
            assert_eq!(found, (by_both, by_one), "{began} {login:?}");
            assert!(!SignedOut::default().ends(&session));
        }
        assert!(everybody.ends_login(Some(Timestamp::from_secs(999))));
        assert!(
            !through_us.ends_login(Some(Timestamp::from_secs(1))),
            "single sign-on goes on"
        );
        let mut grants = Grants {
            sessions: vec![session("old", 1, Some(1)), session("new", 900_001, Some(1_001))],
            ..Grants::default()
        };
        let now = Timestamp::from_secs(2_000);
        assert_eq!(grants.sign_out(&everybody, now), ["old"]);
        assert!(
            grants.sign_out(&everybody, now).is_empty(),
            "heard again it ends no other"
        );
    }

    // P10: in whatever order it is heard.
    #[test]
    fn it_only_ever_moves_on() {
        let at = |seconds| SignedOut {
            everybody: Some(SignOut::at(Timestamp::from_secs(seconds), Span::ZERO)),
            through_us: None,
        };
        assert_eq!(at(5).and(at(9)), at(9).and(at(5)));
        assert_eq!(at(5).and(at(9)), at(9));
        assert_eq!(at(5).and(SignedOut::default()), at(5));
    }
}
