//! Sessions, authorization codes and refresh families of one subject: one aggregate, changed as one.
//!
//! Whether a session lives also depends on the record ([`Record::session_lives`](crate::domain::hold::Record)):
//! a change that ends sessions writes nothing here, so it cannot be half done.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

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
    /// Role values at log-in.
    pub roles: BTreeSet<String>,
    /// Group values at log-in.
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

/// The most sessions one subject has; the oldest goes first.
pub const MAX_SESSIONS: usize = 32;
/// The most refresh families one subject has; the oldest goes first.
pub const MAX_FAMILIES: usize = 128;
/// The most codes one subject has open.
pub const MAX_CODES: usize = 32;
/// The most access tokens of one family that are revoked one by one.
pub const MAX_DENIED: usize = 64;
/// How long a client that lost the reply may use the former refresh token again.
pub const REPLAY_GRACE: Span = Span::from_secs(10);
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
    /// A session that has not been ended here.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.iter().find(|s| s.id == id && s.ended.is_none())
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

    /// Drops what is over, and the oldest beyond the bounds.
    pub fn prune(&mut self, now: Timestamp, session_life: Span) {
        self.codes.retain(|c| now < c.expires.plus(CODE_MEMORY));
        self.families
            .retain(|f| now < f.expires && f.revoked.is_none_or(|at| now < at.plus(session_life)));
        let families = &self.families;
        self.sessions.retain(|s| {
            let young = now < s.began.plus(session_life);
            young || families.iter().any(|f| f.session == s.id)
        });
        trim(&mut self.codes, MAX_CODES);
        trim(&mut self.families, MAX_FAMILIES);
        trim(&mut self.sessions, MAX_SESSIONS);
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
    /// changed and must be stored.
    #[must_use]
    pub fn rotate(&mut self, family: &str, client: &str, generation: u32, now: Timestamp) -> Rotation {
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
        let lost_reply = generation.checked_add(1) == Some(found.generation)
            && found.rotated <= now
            && now < found.rotated.plus(REPLAY_GRACE);
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

fn trim<T>(list: &mut Vec<T>, most: usize) {
    let over = list.len().saturating_sub(most);
    list.drain(..over);
}
