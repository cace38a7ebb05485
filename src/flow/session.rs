//! Sessions at the broker: one log-in at the IdP, one browser.

use std::collections::BTreeSet;

use crate::domain::audit::Entry;
use crate::domain::entitlement::{Asking, Entitlement, Request};
use crate::domain::hold::Record;
use crate::domain::session::{Displaced, Family, Grants, MAX_FAMILIES, MAX_SESSIONS, Session, Withdrawal};
use crate::domain::subject::Subject;
use crate::domain::time::{Now, Span, Timestamp};
use crate::flow::entitle::decide;
use crate::flow::farewell;
use crate::flow::ingest::{self, Checked};
use crate::flow::opaque::{self, Opaque};
use crate::flow::signed_out::{sign_out, signed_out};
use crate::flow::step::{self, Step};
use crate::flow::{Flow, FlowError};
use crate::ports::idp::IdpError;
use crate::ports::seal::{Purpose, SubjectKey};
use crate::ports::store::{Loaded, Parts, StoreError, Updated};

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
    /// The account was disabled at the identity provider (ISS-12).
    #[error("the account is disabled at the identity provider")]
    Disabled,
    /// State.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The `sub` is none.
    #[error(transparent)]
    Flow(#[from] FlowError),
}

/// What the log-in-time check contributes to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Role values.
    pub roles: BTreeSet<String>,
    /// Group values.
    pub groups: BTreeSet<String>,
    /// Logged in with factors past their probation only.
    pub eligible: bool,
    /// When it was asked, by our own clock; `None` when roles and groups could not be read.
    asked: Option<Timestamp>,
}

impl Looked {
    fn of(checked: Checked, asked: Timestamp) -> Self {
        let asked = checked.reading.facts.is_some().then_some(asked);
        let facts = checked.reading.facts.unwrap_or_default();
        Self {
            roles: facts.roles,
            groups: facts.groups,
            eligible: checked.eligible,
            asked,
        }
    }

    /// Notes on the session `id` that the IdP has been asked since its log-in, and on every session of the account
    /// what it said. Which factors a log-in was with is known at the log-in alone.
    pub fn mark(&self, sessions: &mut [Session], id: &str, flow: &Flow, now: Now) {
        let facts_at = self.asked.map(|at| {
            let age = flow.clock.now().since(at);
            now.stamp().minus(age)
        });
        for session in sessions.iter_mut().filter(|s| s.ended.is_none()) {
            if session.id == id && !session.checked {
                session.checked = true;
                session.eligible = self.eligible;
            }
            session.roles.clone_from(&self.roles);
            session.groups.clone_from(&self.groups);
            session.facts_at = facts_at;
        }
    }
}

/// What the IdP says about an account when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its latest changes are stored, and this is how it stands.
    Known(Looked),
    /// No answer: tokens say `none` until there is one.
    Silent,
    /// It was disabled or deleted there: it gets nothing, and what it has here ends (ISS-12).
    Gone,
}

/// How long ago somebody else may have asked for the answer to serve.
const TOGETHER: Span = Span::from_secs(1);

/// Asks the IdP for this account's latest changes, state, roles and groups; once for all that ask at the same time. Whoever
/// has just logged in wants an answer to a question of afterwards.
pub async fn look(flow: &Flow, session: &Session) -> Answer {
    let now = flow.clock.now();
    let since = if session.checked { now.minus(TOGETHER) } else { now };
    let key = flow.key(&session.subject);
    let ask = async {
        let asked = flow.clock.now();
        answered(
            &session.subject,
            Box::pin(ingest::login_check(flow, &session.subject)).await,
            asked,
        )
    };
    flow.watch.once(&key, since, || flow.clock.now(), ask).await
}

fn answered(subject: &Subject, checked: Result<Checked, FlowError>, asked: Timestamp) -> Answer {
    match checked {
        Ok(checked) if checked.reading.is_withdrawn() => Answer::Gone,
        Ok(checked) => Answer::Known(Looked::of(checked, asked)),
        Err(FlowError::Idp(IdpError::UnknownSubject)) => Answer::Gone,
        Err(error) => {
            metrics::counter!("reentry_login_checks_failed_total").increment(1);
            tracing::warn!(upstream = %subject.upstream, %error, "log-in-time check without answer: tokens say none");
            Answer::Silent
        }
    }
}

/// Opens a session after a log-in at the IdP, with a new id (contract section 3: the IdP is asked first). The cookie
/// of `replaces` dies; its families live on, their `sid` is what it was (ISS-7).
///
/// # Errors
/// [`OpenRefusal`]; nothing was stored then, except the changes the IdP told about.
pub async fn open(flow: &Flow, login: &Login, replaces: Option<&str>) -> Result<Opened, OpenRefusal> {
    let asked = flow.clock.now();
    let checked = Box::pin(ingest::login_check(flow, &login.subject)).await;
    let unknown = matches!(checked, Err(FlowError::Idp(IdpError::UnknownSubject)));
    let answer = answered(&login.subject, checked, asked);
    if answer == Answer::Gone {
        withdraw(flow, &login.subject, &Withdrawal::Account).await?;
        return Err(if unknown {
            OpenRefusal::UnknownSubject
        } else {
            OpenRefusal::Disabled
        });
    }
    sign_out(flow, &login.subject).await?;
    let key = flow.key(&login.subject);
    let (id, secret) = (flow.random::<16>(), flow.random::<32>());
    let mac = flow.seal.mac(Purpose::Cookie, secret.as_bytes());
    let life = flow.policy.load().lifetimes.session;
    let former = replaces
        .and_then(|c| read_cookie(flow, c))
        .filter(|(o, _)| o.key == key)
        .map(|(o, _)| o.id);
    let opened = step::run(flow, &key, &|loaded, now| {
        let out = signed_out(flow, &login.subject);
        if out.ends_login(login.auth_time) || loaded.record.as_ref().is_some_and(|r| stale(r, login)) {
            return Step::done(None);
        }
        let session = session(login, &id, mac.to_vec(), began(loaded.record.as_ref(), now));
        let mut grants = loaded.grants.clone().unwrap_or_default();
        for old in grants
            .sessions
            .iter_mut()
            .filter(|s| Some(&s.id) == former.as_ref())
        {
            old.cookie.clear();
        }
        grants.sessions.push(session);
        if let Answer::Known(looked) = &answer {
            looked.mark(&mut grants.sessions, &id, flow, now);
        }
        let displaced = grants.prune(now.earliest(), life);
        let opened = grants.session(&id).cloned();
        displacing(flow, Step::store(opened, grants), &login.subject, displaced, now)
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
        facts_at: None,
        closed: None,
    }
}

/// Tells about what had to leave for want of room: relying parties of the session that it has ended, and everybody who
/// reads the audit log.
pub(super) fn displacing<T>(
    flow: &Flow,
    step: Step<T>,
    subject: &Subject,
    displaced: Displaced,
    now: Now,
) -> Step<T> {
    let Displaced { sessions, families } = displaced;
    let step = sessions.into_iter().fold(step, |step, mut session| {
        let clients = words(&session.clients);
        let id = format!("displaced:{}", session.id);
        let entry = Entry::system(id, now.stamp(), "session_displaced", None)
            .with("session", &session.id)
            .with("clients", clients)
            .with("most", MAX_SESSIONS);
        let effects = farewell::of(flow, &mut session);
        step.with(subject.clone(), effects).saying(subject, entry)
    });
    families.into_iter().fold(step, |step, family| {
        let id = format!("displaced:{}", family.id);
        let entry = Entry::system(id, now.stamp(), "refresh_family_displaced", None)
            .with("client", &family.client)
            .with("offline", family.offline)
            .with("most", MAX_FAMILIES);
        step.saying(subject, entry)
    })
}

fn words(clients: &BTreeSet<String>) -> String {
    clients.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Ends what the IdP has withdrawn, and tells the relying parties. Heard again it changes nothing.
///
/// # Errors
/// [`StoreError`]: nothing has ended, and it has to come again.
pub async fn withdraw(flow: &Flow, subject: &Subject, withdrawn: &Withdrawal) -> Result<Updated, StoreError> {
    let what = match withdrawn {
        Withdrawal::Session { .. } => "session ended",
        Withdrawal::Sessions { .. } => "signed out everywhere",
        Withdrawal::Account => "account disabled or deleted",
    };
    ending(flow, subject, what, &|grants, now| {
        grants.withdraw(withdrawn, now)
    })
    .await
}

/// Ends sessions in `grants` and gives their ids.
pub(super) type End<'a> = dyn Fn(&mut Grants, Timestamp) -> Vec<String> + Send + Sync + 'a;

/// Ends sessions of an account, tells their relying parties, and writes it down.
pub(super) async fn ending(
    flow: &Flow,
    subject: &Subject,
    what: &str,
    end: &End<'_>,
) -> Result<Updated, StoreError> {
    let key = flow.key(subject);
    let ended = step::run(flow, &key, &|loaded, now| {
        let mut grants = loaded.grants.clone().unwrap_or_default();
        let ended = end(&mut grants, now.stamp());
        let Some(first) = ended.first() else {
            return Step::done(0);
        };
        let entry = Entry::system(
            format!("withdrawn:{first}"),
            now.stamp(),
            "sessions_withdrawn",
            None,
        )
        .with("what", what)
        .with("sessions", ended.len());
        let gone = grants.sessions.iter_mut().filter(|s| ended.contains(&s.id));
        let effects = gone.flat_map(|s| farewell::of(flow, s)).collect();
        Step::store(ended.len(), grants)
            .with(subject.clone(), effects)
            .saying(subject, entry)
    })
    .await?;
    if ended == 0 {
        return Ok(Updated::Unchanged);
    }
    metrics::counter!("reentry_sessions_withdrawn_total").increment(u64::try_from(ended).unwrap_or(u64::MAX));
    tracing::info!(upstream = %subject.upstream, sessions = ended, "ended here what the identity provider has ended");
    Ok(Updated::Stored)
}

/// A session begins after every cut that its opening has seen, even within one tick of the clock.
fn began(record: Option<&Record>, now: Now) -> Timestamp {
    let cuts = record.map(|r| r.cuts.iter().map(|c| c.at).max());
    cuts.flatten()
        .map_or(now.stamp(), |cut| now.stamp().max(cut.plus(Span::from_millis(1))))
}

/// Whether the IdP's session is one that a change has ended: it began before the change and is not the change's own.
/// The IdP may not have been told yet; its cookie must not open a new session here meanwhile. `auth_time` has whole
/// seconds, so the second of the change itself counts as after it. An IdP that does not say when the log-in was has not
/// said that it was afterwards.
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
        !own && login.auth_time.is_none_or(|at| at.secs() < change.secs())
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
    let session = alive(flow, &grants, loaded.record.as_ref(), &opaque.id, now, life)
        .filter(ours)
        .cloned();
    Ok(session.map(|session| Found {
        key: opaque.key,
        session,
        loaded,
        now,
    }))
}

/// A session of that id that lives: not ended here, within its lifetime (when one is given), not ended by a change (ISS-6)
/// nor by everybody's being signed out at the IdP (ISS-12).
#[must_use]
pub fn alive<'a>(
    flow: &Flow,
    grants: &'a Grants,
    record: Option<&Record>,
    id: &str,
    now: Now,
    life: Option<Span>,
) -> Option<&'a Session> {
    lives(flow, grants.session(id)?, record, now, life)
}

/// The session of a family, while the family's tokens are good: for as long as the session lives, or longer when it
/// outlives it.
#[must_use]
pub fn bears<'a>(
    flow: &Flow,
    grants: &'a Grants,
    record: Option<&Record>,
    family: &Family,
    now: Now,
    life: Option<Span>,
) -> Option<&'a Session> {
    let bound = life.filter(|_| !family.offline);
    lives(flow, grants.bearer(family)?, record, now, bound)
}

fn lives<'a>(
    flow: &Flow,
    session: &'a Session,
    record: Option<&Record>,
    now: Now,
    life: Option<Span>,
) -> Option<&'a Session> {
    let within = life.is_none_or(|life| now.latest() < session.began.plus(life));
    let spared = record.is_none_or(|r| r.session_lives(session.began, session.upstream_sid.as_deref()));
    (within && spared && !signed_out(flow, &session.subject).ends(session)).then_some(session)
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
        let Some(session) = grants.unended(id).cloned() else {
            return Step::done(None);
        };
        grants.end_session(id, now.stamp());
        let ended = grants.sessions.iter_mut().find(|s| s.id == id);
        let effects = ended.map(|s| farewell::of(flow, s)).unwrap_or_default();
        let subject = session.subject.clone();
        Step::store(Some(session), grants).with(subject, effects)
    })
    .await
}
