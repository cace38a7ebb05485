//! Sessions, authorization codes and refresh families of one subject: one aggregate, changed as one.
//!
//! Whether a session lives also depends on the record ([`Record::session_lives`](crate::domain::hold::Record)):
//! a change that ends sessions writes nothing here, so it cannot be half done.

pub mod signed_out;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use self::signed_out::SignedOut;
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};

/// A session at the broker: one log-in at the IdP, one browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The OIDC `sid`; stays what it is for as long as the session lives (ISS-7).
    pub id: String,
    /// Whose it is: opaque tokens carry only the store's key.
    pub subject: Subject,
    /// The IdP's session id, if it told us.
    pub upstream_sid: Option<String>,
    /// When it began here.
    pub began: Timestamp,
    /// When the user logged in, by the IdP's word.
    pub auth_time: Option<Timestamp>,
    /// The IdP's `acr`, passed on.
    pub acr: Option<String>,
    /// The IdP's `amr`, passed on.
    pub amr: Vec<String>,
    /// Claims of the IdP that the policy lets through, as a JSON object's text.
    pub claims: String,
    /// Role values, as old as `facts_at` says.
    pub roles: BTreeSet<String>,
    /// Group values, as old as `facts_at` says.
    pub groups: BTreeSet<String>,
    /// Whether the IdP was asked for this user's changes since the log-in; until then tokens say `none`.
    pub checked: bool,
    /// Whether the log-in was with factors past their probation only.
    pub eligible: bool,
    /// MAC of the browser cookie's secret; empty when the cookie was replaced by that of a later log-in.
    pub cookie: Vec<u8>,
    /// The IdP's ID token, for logging out there.
    pub id_token: String,
    /// Clients that have tokens of it.
    pub clients: BTreeSet<String>,
    /// When it was ended here, if it was.
    pub ended: Option<Timestamp>,
    /// When the IdP was last asked for the account's state, roles and groups (ISS-12). Unknown is too long ago.
    #[serde(default)]
    pub facts_at: Option<Timestamp>,
    /// When the IdP ended its own session while families that outlive it are in use: only they go on.
    #[serde(default)]
    pub closed: Option<Timestamp>,
}

impl Session {
    /// Whether state, roles and groups have to be read again: what was copied from the IdP serves for as long as an
    /// access token lives, no longer. An instant in the near future was written by a clock that stood ahead.
    #[must_use]
    pub fn is_outdated(&self, now: Timestamp, access_life: Span) -> bool {
        self.facts_at.is_none_or(|at| !is_recent(at, now, access_life))
    }
}

/// Whether `at` is less than `span` ago. What lies ahead by no more than clocks may differ was just now.
const fn is_recent(at: Timestamp, now: Timestamp, span: Span) -> bool {
    let age = now.since(at).millis();
    age < span.millis() && age >= -SKEW.millis()
}

/// What the IdP has withdrawn. It was proven, and it only ever restricts, so it is believed at once (ISS-12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// One session at the IdP has ended.
    Session {
        /// Its id there.
        sid: String,
        /// When, by the IdP's clock.
        at: Timestamp,
        /// Families that outlive their session end too.
        offline: bool,
    },
    /// Every session of the account there has ended.
    Sessions {
        /// When, by the IdP's clock.
        at: Timestamp,
        /// Families that outlive their session end too.
        offline: bool,
    },
    /// The account was disabled or deleted.
    Account,
}

impl Withdrawal {
    /// Whether it ends `session`. Log-in and end are both by the IdP's clock, in whole seconds; a session whose log-in
    /// or whose id the IdP never said counts as one of them.
    #[must_use]
    pub fn ends(&self, session: &Session) -> bool {
        let before = |at: &Timestamp| session.auth_time.is_none_or(|login| login.secs() <= at.secs());
        match self {
            Self::Session { sid, at, .. } => {
                before(at) && session.upstream_sid.as_ref().is_none_or(|own| own == sid)
            }
            Self::Sessions { at, .. } => before(at),
            Self::Account => true,
        }
    }

    /// Whether families that outlive their session end with it (Back-Channel Logout 1.0 section 2.7 spares them).
    #[must_use]
    pub const fn ends_offline(&self) -> bool {
        match self {
            Self::Session { offline, .. } | Self::Sessions { offline, .. } => *offline,
            Self::Account => true,
        }
    }
}

/// What had to leave because there was no more room for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Displaced {
    /// Sessions that were in use, as they were.
    pub sessions: Vec<Session>,
    /// Families that were in use, as they were.
    pub families: Vec<Family>,
}

/// A relying party has to be told that a session has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// The relying party.
    pub client: String,
    /// The session's `sid`.
    pub session: String,
}

/// An authorization code, kept after its use so that a second use is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Its id inside the opaque code.
    pub id: String,
    /// The client.
    pub client: String,
    /// The redirect URI, verbatim.
    pub redirect_uri: String,
    /// PKCE challenge (S256), when there was one.
    pub challenge: Option<String>,
    /// `nonce` of the request.
    pub nonce: Option<String>,
    /// Scopes consented to, whole.
    pub scopes: BTreeSet<String>,
    /// The session it came from.
    pub session: String,
    /// Whether the request asked for `offline_access` outside any hold.
    pub offline: bool,
    /// `acr` values that the request called essential were met by this one.
    pub acr: Option<String>,
    /// Not valid from here on.
    pub expires: Timestamp,
    /// The family that its use began.
    pub used: Option<String>,
}

/// A refresh family: every refresh token that descends from one code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// Its id.
    pub id: String,
    /// The client.
    pub client: String,
    /// The session it began in.
    pub session: String,
    /// Scopes consented to, whole: the ceiling is a filter at issuance, never part of the grant (ISS-3).
    pub scopes: BTreeSet<String>,
    /// When it began.
    pub began: Timestamp,
    /// Ends here whatever happens.
    pub expires: Timestamp,
    /// Outlives its session (granted outside any hold).
    pub offline: bool,
    /// `nonce` of the authorization request.
    pub nonce: Option<String>,
    /// Generation of the current refresh token, from 1.
    pub generation: u32,
    /// When the current generation was made.
    pub rotated: Timestamp,
    /// Revoked: by the client, by a log-out, or because an old token came back.
    pub revoked: Option<Timestamp>,
    /// Access tokens of this family that were revoked one by one, by `jti` (every `jti` begins with the family's id,
    /// so that all of them die with it).
    pub denied: Vec<String>,
}

/// Everything of one subject at the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Sessions, oldest first.
    pub sessions: Vec<Session>,
    /// Codes, oldest first.
    pub codes: Vec<Code>,
    /// Families, oldest first.
    pub families: Vec<Family>,
}

/// The most sessions one subject has. What has ended goes first, then the oldest without an offline family, then the
/// oldest.
pub const MAX_SESSIONS: usize = 32;
/// The most refresh families one subject has. What was revoked goes first, then the oldest that ends with its session,
/// then the oldest.
pub const MAX_FAMILIES: usize = 128;
/// The most codes one subject has open.
pub const MAX_CODES: usize = 32;
/// The most access tokens of one family that are revoked one by one.
pub const MAX_DENIED: usize = 64;
/// How far the clocks that write down instants may differ before an instant ahead of us is no longer "just now".
pub const SKEW: Span = Span::from_secs(30);
/// How long a used or expired code is remembered.
pub const CODE_MEMORY: Span = Span::from_mins(10);

/// Why a code is refused. All of them are `invalid_grant` outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeRefusal {
    /// Unknown, expired, or of another client or redirect URI.
    #[error("the code is unknown, expired or not for this client")]
    Invalid,
    /// Used before: everything that came from it is revoked now.
    #[error("the code was used before")]
    Replayed,
}

/// What a refresh token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The family moved to this generation.
    Moved(u32),
    /// The reply was lost: the same successor again.
    Again(u32),
    /// An old token: the family is revoked now.
    Reused,
    /// Unknown, expired, revoked or of another client.
    Invalid,
}

impl Grants {
    /// A session that has ended neither here nor at the IdP.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<&Session> {
        self.unended(id).filter(|s| s.closed.is_none())
    }

    /// A session that has not been ended here. The IdP may have ended its own, and families go on that outlive it.
    #[must_use]
    pub fn unended(&self, id: &str) -> Option<&Session> {
        self.sessions.iter().find(|s| s.id == id && s.ended.is_none())
    }

    /// The session whose word a family's tokens carry: for as long as the session lives, or longer (`offline_access`).
    #[must_use]
    pub fn bearer(&self, family: &Family) -> Option<&Session> {
        self.unended(&family.session)
            .filter(|s| s.closed.is_none() || family.offline)
    }

    /// A family that has not been revoked.
    #[must_use]
    pub fn family(&self, id: &str) -> Option<&Family> {
        self.families.iter().find(|f| f.id == id && f.revoked.is_none())
    }

    /// Without what began at or before `floor`, nor what came from it (P5: a store that went back in time no longer
    /// knows what was ended since).
    #[must_use]
    pub fn since(mut self, floor: Timestamp) -> Self {
        self.sessions.retain(|s| s.began > floor);
        let sessions = &self.sessions;
        self.families
            .retain(|f| f.began > floor && sessions.iter().any(|s| s.id == f.session));
        self.codes.retain(|c| sessions.iter().any(|s| s.id == c.session));
        self
    }

    /// Drops what is over, and what is beyond the bounds. Gives what of that was in use, for telling.
    pub fn prune(&mut self, now: Timestamp, session_life: Span) -> Displaced {
        self.codes.retain(|c| now < c.expires.plus(CODE_MEMORY));
        self.families
            .retain(|f| now < f.expires && f.revoked.is_none_or(|at| now < at.plus(session_life)));
        let families = &self.families;
        self.sessions.retain(|s| {
            let young = now < s.began.plus(session_life);
            young || families.iter().any(|f| f.session == s.id)
        });
        let over = self.codes.len().saturating_sub(MAX_CODES);
        self.codes.drain(..over);
        let outlives =
            |families: &[Family], id: &str| families.iter().any(|f| f.session == id && f.is_offline());
        let kept = &self.families;
        let mut sessions = trim(&mut self.sessions, MAX_SESSIONS, |s| {
            (s.ended.is_none(), outlives(kept, &s.id))
        });
        sessions.retain(|s| s.ended.is_none());
        for gone in &sessions {
            for family in self.families.iter_mut().filter(|f| f.session == gone.id) {
                family.revoked.get_or_insert(now);
            }
        }
        let mut families = trim(&mut self.families, MAX_FAMILIES, |f| {
            (f.revoked.is_none(), f.offline)
        });
        families.retain(|f| f.revoked.is_none());
        Displaced { sessions, families }
    }

    /// Ends what the IdP has withdrawn. Gives the ids of the sessions that ended by it just now.
    pub fn withdraw(&mut self, withdrawn: &Withdrawal, now: Timestamp) -> Vec<String> {
        let standing = self.sessions.iter().filter(|s| s.ended.is_none());
        let named: Vec<String> = standing
            .filter(|s| withdrawn.ends(s))
            .map(|s| s.id.clone())
            .collect();
        let mut ended = Vec::new();
        for id in named {
            let spared =
                !withdrawn.ends_offline() && self.families.iter().any(|f| f.session == id && f.is_offline());
            if !spared {
                self.end_session(&id, now);
                ended.push(id);
            } else if self.close_session(&id, now) {
                ended.push(id);
            }
        }
        ended
    }

    /// Ends what ended when the IdP signed everybody out. Gives the ids of the sessions that ended by it just now.
    pub fn sign_out(&mut self, out: &SignedOut, now: Timestamp) -> Vec<String> {
        let standing = self.sessions.iter().filter(|s| s.ended.is_none());
        let ended: Vec<String> = standing.filter(|s| out.ends(s)).map(|s| s.id.clone()).collect();
        for id in &ended {
            self.end_session(id, now);
        }
        ended
    }

    /// Closes a session for everything but the families that outlive it. Says whether it was open.
    fn close_session(&mut self, id: &str, now: Timestamp) -> bool {
        let mut open = false;
        for session in self
            .sessions
            .iter_mut()
            .filter(|s| s.id == id && s.closed.is_none())
        {
            session.closed = Some(now);
            open = true;
        }
        for family in self.families.iter_mut().filter(|f| f.session == id && !f.offline) {
            family.revoked.get_or_insert(now);
        }
        open
    }

    /// Uses a code: single use, and a second use revokes what the first gave (RFC 6749 §4.1.2).
    ///
    /// # Errors
    /// [`CodeRefusal`]; on [`CodeRefusal::Replayed`] the aggregate has changed and must be stored.
    pub fn redeem(
        &mut self,
        code: &str,
        client: &str,
        redirect_uri: &str,
        family: &str,
        now: Timestamp,
    ) -> Result<Code, CodeRefusal> {
        let found = self
            .codes
            .iter_mut()
            .find(|c| c.id == code)
            .ok_or(CodeRefusal::Invalid)?;
        if let Some(used) = found.used.clone() {
            self.revoke_family(&used, now);
            return Err(CodeRefusal::Replayed);
        }
        if found.client != client || found.redirect_uri != redirect_uri || now >= found.expires {
            return Err(CodeRefusal::Invalid);
        }
        found.used = Some(family.to_owned());
        Ok(found.clone())
    }

    /// Rotates a refresh token of `generation`. On [`Rotation::Moved`] and [`Rotation::Reused`] the aggregate has
    /// changed and must be stored. A client that lost the reply may use the former token again for `grace` after it was
    /// rotated; asking again extends nothing, and once the successor was used the former is an old one.
    #[must_use]
    pub fn rotate(
        &mut self,
        family: &str,
        client: &str,
        generation: u32,
        now: Timestamp,
        grace: Span,
    ) -> Rotation {
        let Some(found) = self.families.iter_mut().find(|f| f.id == family) else {
            return Rotation::Invalid;
        };
        if found.revoked.is_some() || found.client != client || now >= found.expires {
            return Rotation::Invalid;
        }
        if generation == found.generation {
            found.generation = found.generation.saturating_add(1);
            found.rotated = now;
            return Rotation::Moved(found.generation);
        }
        let lost_reply =
            generation.checked_add(1) == Some(found.generation) && is_recent(found.rotated, now, grace);
        if lost_reply {
            return Rotation::Again(found.generation);
        }
        found.revoked = Some(now);
        Rotation::Reused
    }

    /// Revokes a family.
    pub fn revoke_family(&mut self, family: &str, now: Timestamp) {
        for f in self
            .families
            .iter_mut()
            .filter(|f| f.id == family && f.revoked.is_none())
        {
            f.revoked = Some(now);
        }
    }

    /// Revokes one access token of a family; beyond [`MAX_DENIED`] of them the family goes.
    pub fn deny_token(&mut self, family: &str, jti: &str, now: Timestamp) {
        let Some(found) = self
            .families
            .iter_mut()
            .find(|f| f.id == family && f.revoked.is_none())
        else {
            return;
        };
        if found.denied.iter().any(|d| d == jti) {
            return;
        }
        if found.denied.len() >= MAX_DENIED {
            found.revoked = Some(now);
        } else {
            found.denied.push(jti.to_owned());
        }
    }

    /// Ends a session and every family in it, offline ones too.
    pub fn end_session(&mut self, session: &str, now: Timestamp) {
        for s in self
            .sessions
            .iter_mut()
            .filter(|s| s.id == session && s.ended.is_none())
        {
            s.ended = Some(now);
        }
        for f in self
            .families
            .iter_mut()
            .filter(|f| f.session == session && f.revoked.is_none())
        {
            f.revoked = Some(now);
        }
    }
}

impl Family {
    /// Whether it is in use and outlives its session.
    fn is_offline(&self) -> bool {
        self.offline && self.revoked.is_none()
    }
}

/// Takes out what is beyond `most`: the least worth first, among equals the oldest.
fn trim<T>(list: &mut Vec<T>, most: usize, worth: impl Fn(&T) -> (bool, bool)) -> Vec<T> {
    let mut gone = Vec::new();
    while list.len() > most {
        let least = list.iter().enumerate().min_by_key(|(at, one)| (worth(one), *at));
        let Some(at) = least.map(|(at, _)| at) else { break };
        gone.push(list.remove(at));
    }
    gone
}
