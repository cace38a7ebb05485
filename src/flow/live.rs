//! What is true of a token now: introspection, userinfo, revocation.
//!
//! The answer is the stricter of what the token says and what is true now (ISS-8). A token whose session or family has
//! ended is revoked, whatever else it says (ISS-10). When state cannot be read the answer is `none`, not an error: what
//! is self-contained needs no stored state (ISS-2).

use std::collections::BTreeSet;

use crate::domain::entitlement::{Entitlement, Issued, Request};
use crate::domain::session::{Family, Grants, Session};
use crate::domain::subject::Subject;
use crate::domain::time::{Now, Timestamp};
use crate::flow::Flow;
use crate::flow::entitle::{decide, heard};
use crate::flow::opaque::{self, Opaque};
use crate::flow::session::{asking, bears, entitled};
use crate::flow::step::{self, Step};
use crate::ports::seal::{Purpose, SubjectKey};
use crate::ports::store::{Loaded, Parts, StoreError};

/// An access token of ours, verified.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whose it is.
    pub subject: Subject,
    /// Where its subject lives.
    pub key: SubjectKey,
    /// The client.
    pub client: String,
    /// The session.
    pub sid: String,
    /// Its `jti`: the family's id, a dot, and its own.
    pub jti: String,
    /// Its scopes.
    pub scopes: BTreeSet<String>,
    /// Its role values.
    pub roles: BTreeSet<String>,
    /// Its group values.
    pub groups: BTreeSet<String>,
    /// Its ceiling and epoch.
    pub issued: Issued,
}

impl Access {
    /// The family it came from.
    #[must_use]
    pub fn family(&self) -> &str {
        self.jti.split_once('.').map_or("", |(family, _)| family)
    }
}

/// What is true now.
#[derive(Clone, Debug)]
pub enum Live {
    /// Revoked, ended, frozen: nothing else is said.
    Inactive,
    /// It may be used for this.
    Active {
        /// The stricter of then and now.
        entitlement: Box<Entitlement>,
        /// The session; `None` when state could not be read.
        session: Option<Box<Session>>,
        /// When.
        at: Timestamp,
    },
}

/// Looks at an access token. Never fails.
pub async fn access(flow: &Flow, token: &Access) -> Live {
    let mut loaded = flow.store.read(&token.key, Parts::DECISION).await;
    let (session, now) = match &mut loaded {
        Ok(loaded) => {
            let now = flow.now(loaded.store_time);
            let Some(session) = standing(flow, loaded, token, now) else {
                return Live::Inactive;
            };
            (Some(session), now)
        }
        Err(_) => (None, Now::exact(flow.clock.now())),
    };
    let request = Request {
        client: &token.client,
        session: session.as_ref().map(asking),
        scopes: &token.scopes,
        roles: &token.roles,
        groups: &token.groups,
        issued: Some(token.issued.clone()),
    };
    let heard = heard(flow, &token.subject.upstream);
    let known = heard.as_ref().and(loaded.as_ref());
    let entitlement = decide(flow, known, &request);
    if entitlement.contested {
        return Live::Inactive;
    }
    Live::Active {
        entitlement: Box::new(entitlement),
        session: session.map(Box::new),
        at: now.latest(),
    }
}

/// The session of a token that nobody has revoked, taken out of what was read.
fn standing(flow: &Flow, loaded: &mut Loaded, token: &Access, now: Now) -> Option<Session> {
    let grants = loaded.grants.as_mut()?;
    let family = grants
        .family(token.family())
        .filter(|f| f.client == token.client && f.session == token.sid)?;
    if family.denied.contains(&token.jti) {
        return None;
    }
    // No lifetime here: the token's own end is never after the session's.
    bears(flow, grants, loaded.record.as_ref(), family, now, None)?;
    let at = grants
        .sessions
        .iter()
        .position(|s| s.id == token.sid && s.ended.is_none())?;
    Some(grants.sessions.swap_remove(at))
}

/// A refresh token that may be used.
#[derive(Clone, Debug)]
pub struct Refreshable {
    /// Its family.
    pub family: Family,
    /// Its session.
    pub session: Session,
    /// What a refresh would give now.
    pub entitlement: Entitlement,
}

/// Looks at a refresh token of `client`; `None` is inactive.
///
/// # Errors
/// [`StoreError`]: a refresh token is nothing without stored state (ISS-2).
pub async fn refresh(flow: &Flow, client: &str, token: &str) -> Result<Option<Refreshable>, StoreError> {
    let Some(opaque) = opaque::open(flow, Purpose::Refresh, token) else {
        return Ok(None);
    };
    let loaded = flow.store.read(&opaque.key, Parts::GRANTS).await?;
    let now = flow.now(loaded.store_time);
    let life = flow.policy.load().lifetimes.session;
    let grants = loaded.grants.clone().unwrap_or_default();
    let Some(family) = current(&grants, &opaque, client, now) else {
        return Ok(None);
    };
    let Some(session) = bears(flow, &grants, loaded.record.as_ref(), family, now, Some(life)) else {
        return Ok(None);
    };
    heard(flow, &session.subject.upstream)?;
    let entitlement = entitled(flow, &loaded, session, client, &family.scopes);
    let usable = !entitlement.contested;
    Ok(usable.then(|| Refreshable {
        family: family.clone(),
        session: session.clone(),
        entitlement,
    }))
}

fn current<'a>(grants: &'a Grants, token: &Opaque, client: &str, now: Now) -> Option<&'a Family> {
    let ours =
        |f: &&Family| f.client == client && f.generation == token.generation && now.latest() < f.expires;
    grants.family(&token.id).filter(ours)
}

/// Revokes a refresh token of `client` with everything that came from it. Gives whether it was one of ours
/// (RFC 7009 §2.1); somebody else's is left alone.
///
/// # Errors
/// [`StoreError`]; nothing was revoked then.
pub async fn revoke_refresh(flow: &Flow, client: &str, token: &str) -> Result<bool, StoreError> {
    let Some(opaque) = opaque::open(flow, Purpose::Refresh, token) else {
        return Ok(false);
    };
    step::run(flow, &opaque.key, &|loaded, now| {
        let mut grants = loaded.grants.clone().unwrap_or_default();
        if grants.family(&opaque.id).is_none_or(|f| f.client != client) {
            return Step::done(true);
        }
        grants.revoke_family(&opaque.id, now.stamp());
        Step::store(true, grants)
    })
    .await
}

/// Revokes one access token.
///
/// # Errors
/// [`StoreError`]; nothing was revoked then.
pub async fn revoke_access(flow: &Flow, token: &Access) -> Result<(), StoreError> {
    step::run(flow, &token.key, &|loaded, now| {
        let mut grants = loaded.grants.clone().unwrap_or_default();
        grants.deny_token(token.family(), &token.jti, now.stamp());
        Step::store((), grants)
    })
    .await
}
