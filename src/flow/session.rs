//! Sessions at the broker: one log-in at the IdP, one browser.

use std::collections::BTreeSet;

use crate::domain::entitlement::{Asking, Entitlement, Request};
use crate::domain::hold::Record;
use crate::domain::session::{Grants, Session};
use crate::domain::subject::Subject;
use crate::domain::time::{Now, Span, Timestamp};
use crate::flow::entitle::decide;
use crate::flow::farewell;
use crate::flow::ingest::{self, Checked};
use crate::flow::opaque::{self, Opaque};
use crate::flow::step::{self, Step};
use crate::flow::{Flow, FlowError};
use crate::ports::idp::IdpError;
use crate::ports::seal::{Purpose, SubjectKey};
use crate::ports::store::{Loaded, Parts, StoreError};

/// What the IdP said at a log-in, checked.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who.
    pub subject: Subject,
    /// The IdP's session.
    pub upstream_sid: Option<String>,
    /// When the user logged in there.
    pub auth_time: Option<Timestamp>,
    /// `acr`.
    pub acr: Option<String>,
    /// `amr`.
    pub amr: Vec<String>,
    /// Claims that the policy lets through, as a JSON object's text.
    pub claims: String,
    /// The ID token.
    pub id_token: String,
}

/// A session that was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Where its subject lives.
    pub key: SubjectKey,
    /// The session.
    pub session: Session,
    /// The value of the browser's cookie.
    pub cookie: String,
}

/// Why no session was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenRefusal {
    /// The IdP's session is older than a change that ended it: a fresh log-in is needed (ISS-6).
    #[error("the session at the identity provider began before a change that ended it")]
    Stale,
    /// The IdP's admin side knows no account of that `sub`: the log-in client has pairwise subjects (contract section
    /// 3 refuses them: no change could ever be found for them), or the account is gone.
    #[error(
        "the identity provider knows no account of this `sub`; its log-in client must not have pairwise subjects"
    )]
    UnknownSubject,
    /// State.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The `sub` is none.
    #[error(transparent)]
    Flow(#[from] FlowError),
}

/// What the log-in-time check contributes to a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Role values.
    pub roles: BTreeSet<String>,
    /// Group values.
    pub groups: BTreeSet<String>,
    /// Logged in with factors past their probation only.
    pub eligible: bool,
}

impl From<Checked> for Looked {
    fn from(checked: Checked) -> Self {
        let facts = checked.reading.facts.unwrap_or_default();
        Self {
            roles: facts.roles,
            groups: facts.groups,
            eligible: checked.eligible,
        }
    }
}

impl Looked {
    /// Notes on the session that the IdP has been asked.
    pub fn mark(&self, session: &mut Session) {
        session.checked = true;
        session.roles.clone_from(&self.roles);
        session.groups.clone_from(&self.groups);
        session.eligible = self.eligible;
    }
}

/// Asks the IdP for this account's latest changes; `None` when it did not answer: tokens say `none` until it does.
pub async fn look(flow: &Flow, subject: &Subject) -> Option<Looked> {
    looked(subject, ingest::login_check(flow, subject).await)
}

fn looked(subject: &Subject, checked: Result<Checked, FlowError>) -> Option<Looked> {
    match checked {
        Ok(checked) => Some(checked.into()),
        Err(error) => {
            metrics::counter!("reentry_login_checks_failed_total").increment(1);
            tracing::warn!(upstream = %subject.upstream, %error, "log-in-time check without answer: tokens say none");
            None
        }
    }
}

/// Opens a session after a log-in at the IdP, with a new id (contract section 3: the IdP is asked first). The cookie
/// of `replaces` dies; its families live on, their `sid` is what it was (ISS-7).
///
/// # Errors
/// [`OpenRefusal`]; nothing was stored then, except the changes the IdP told about.
pub async fn open(flow: &Flow, login: &Login, replaces: Option<&str>) -> Result<Opened, OpenRefusal> {
    let looked = match ingest::login_check(flow, &login.subject).await {
        Err(FlowError::Idp(IdpError::UnknownSubject)) => return Err(OpenRefusal::UnknownSubject),
        checked => looked(&login.subject, checked),
    };
    let key = flow.key(&login.subject);
    let (id, secret) = (flow.random::<16>(), flow.random::<32>());
    let mac = flow.seal.mac(Purpose::Cookie, secret.as_bytes());
    let life = flow.policy.load().lifetimes.session;
    let former = replaces
        .and_then(|c| read_cookie(flow, c))
        .filter(|(o, _)| o.key == key)
        .map(|(o, _)| o.id);
    let opened = step::run(flow, &key, &|loaded, now| {
        if loaded.record.as_ref().is_some_and(|r| stale(r, login)) {
            return Step::done(None);
        }
        let mut session = session(login, &id, mac.to_vec(), began(loaded.record.as_ref(), now));
        if let Some(looked) = &looked {
            looked.mark(&mut session);
        }
        let mut grants = loaded.grants.clone().unwrap_or_default();
        for old in grants
            .sessions
            .iter_mut()
            .filter(|s| Some(&s.id) == former.as_ref())
        {
            old.cookie.clear();
        }
        grants.sessions.push(session.clone());
        grants.prune(now.earliest(), life);
        Step::store(Some(session), grants)
    })
    .await?;
    let session = opened.ok_or(OpenRefusal::Stale)?;
    let token = Opaque {
        key,
        id,
        generation: 0,
    };
    let sealed = opaque::seal(flow, Purpose::Cookie, &token)
        .ok_or_else(|| FlowError::Unknown("session".to_owned()))?;
    Ok(Opened {
        key,
        session,
        cookie: format!("{sealed}.{secret}"),
    })
}

fn session(login: &Login, id: &str, cookie: Vec<u8>, began: Timestamp) -> Session {
    Session {
        id: id.to_owned(),
        subject: login.subject.clone(),
        upstream_sid: login.upstream_sid.clone(),
        began,
        auth_time: login.auth_time,
        acr: login.acr.clone(),
        amr: login.amr.clone(),
        claims: login.claims.clone(),
        roles: BTreeSet::new(),
        groups: BTreeSet::new(),
        checked: false,
        eligible: false,
        cookie,
        id_token: login.id_token.clone(),
        clients: BTreeSet::new(),
        ended: None,
    }
}

/// A session begins after every cut that its opening has seen, even within one tick of the clock.
fn began(record: Option<&Record>, now: Now) -> Timestamp {
    let cuts = record.map(|r| r.cuts.iter().map(|c| c.at).max());
    cuts.flatten().map_or(now.latest(), |cut| {
        now.latest().max(cut.plus(Span::from_millis(1)))
    })
}

/// Whether the IdP's session is one that a change has ended: it began before the change and is not the change's own.
/// The IdP may not have been told yet; its cookie must not open a new session here meanwhile. `auth_time` has whole
/// seconds, so the second of the change itself counts as after it.
fn stale(record: &Record, login: &Login) -> bool {
    record.cuts.iter().any(|cut| {
        let own = cut.except.is_some() && cut.except == login.upstream_sid;
        let known = record
            .causes
            .iter()
            .filter(|c| c.holds() && c.enforced && c.at <= cut.at)
            .map(|c| c.at)
            .max();
        let change = known.unwrap_or(cut.at);
        !own && login.auth_time.is_some_and(|at| at.secs() < change.secs())
    })
}

/// Splits a cookie into its signed half and its secret.
fn read_cookie<'a>(flow: &Flow, cookie: &'a str) -> Option<(Opaque, &'a str)> {
    let (sealed, secret) = cookie.split_once('.')?;
    Some((opaque::open(flow, Purpose::Cookie, sealed)?, secret))
}

/// The id of the session that a genuine cookie of ours is of. Nothing is read: whether it lives is not said.
#[must_use]
pub fn named(flow: &Flow, cookie: &str) -> Option<String> {
    read_cookie(flow, cookie).map(|(opaque, _)| opaque.id)
}

/// A session that a browser has, with what was read beside it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where its subject lives.
    pub key: SubjectKey,
    /// The session.
    pub session: Session,
    /// Everything that was read.
    pub loaded: Loaded,
    /// When it was read.
    pub now: Now,
}

/// The living session of a browser's cookie, if there is one.
///
/// # Errors
/// [`StoreError`]: state could not be read, which is not the same as no session.
pub async fn find(flow: &Flow, cookie: &str) -> Result<Option<Found>, StoreError> {
    let Some((opaque, secret)) = read_cookie(flow, cookie) else {
        return Ok(None);
    };
    let loaded = flow.store.read(&opaque.key, Parts::GRANTS).await?;
    let now = flow.now(loaded.store_time);
    let life = Some(flow.policy.load().lifetimes.session);
    let grants = loaded.grants.clone().unwrap_or_default();
    let ours = |s: &&Session| flow.seal.verify(Purpose::Cookie, secret.as_bytes(), &s.cookie);
    let session = alive(&grants, loaded.record.as_ref(), &opaque.id, now, life)
        .filter(ours)
        .cloned();
    Ok(session.map(|session| Found {
        key: opaque.key,
        session,
        loaded,
        now,
    }))
}

/// A session of that id that lives: not ended here, within its lifetime (when one is given), and not ended by a
/// change (ISS-6).
#[must_use]
pub fn alive<'a>(
    grants: &'a Grants,
    record: Option<&Record>,
    id: &str,
    now: Now,
    life: Option<Span>,
) -> Option<&'a Session> {
    let session = grants.session(id)?;
    let within = life.is_none_or(|life| now.latest() < session.began.plus(life));
    let spared = record.is_none_or(|r| r.session_lives(session.began, session.upstream_sid.as_deref()));
    (within && spared).then_some(session)
}

/// What a session may have for `client` and `scopes`, from what was read already.
#[must_use]
pub fn entitled(
    flow: &Flow,
    loaded: &Loaded,
    session: &Session,
    client: &str,
    scopes: &BTreeSet<String>,
) -> Entitlement {
    let request = Request {
        client,
        session: Some(asking(session)),
        scopes,
        roles: &session.roles,
        groups: &session.groups,
        issued: None,
    };
    decide(flow, Ok(loaded), &request)
}

/// The session as the domain asks about it.
#[must_use]
pub fn asking(session: &Session) -> Asking<'_> {
    Asking {
        id: &session.id,
        auth_time: session.auth_time,
        checked: session.checked,
        eligible: session.eligible,
    }
}

/// Ends a session and every refresh family in it. Gives the session as it was, for logging out at the IdP.
///
/// # Errors
/// [`StoreError`]; nothing has ended then.
pub async fn end(flow: &Flow, key: &SubjectKey, id: &str) -> Result<Option<Session>, StoreError> {
    step::run(flow, key, &|loaded, now| {
        let mut grants = loaded.grants.clone().unwrap_or_default();
        let Some(session) = grants.session(id).cloned() else {
            return Step::done(None);
        };
        grants.end_session(id, now.latest());
        let ended = grants.sessions.iter_mut().find(|s| s.id == id);
        let effects = ended.map(|s| farewell::of(flow, s)).unwrap_or_default();
        let subject = session.subject.clone();
        Step::store(Some(session), grants).with(subject, effects)
    })
    .await
}
