//! Codes and refresh tokens: given, used, rotated.
//!
//! Each is one atomic step whose closure asks the domain with the record it has just read: a hold that lands between
//! code and token, or between two refreshes, is in the answer (P1). What is refused consumes nothing. Signing comes
//! after the commit; a client whose reply got lost asks again within the grace and gets the same successor.

use std::collections::BTreeSet;

use crate::domain::audit::Entry;
use crate::domain::entitlement::Entitlement;
use crate::domain::session::{Code, CodeRefusal, Family, Grants, Rotation, Session, Withdrawal};
use crate::domain::subject::Subject;
use crate::domain::time::{Now, Span, Timestamp};
use crate::flow::Flow;
use crate::flow::entitle::heard;
use crate::flow::opaque::{self, Opaque};
use crate::flow::session::{Answer, alive, bears, displacing, entitled, look, withdraw};
use crate::flow::signed_out::{left_over, sign_out};
use crate::flow::step::{self, Step};
use crate::flow::watch::Known;
use crate::ports::seal::{Purpose, SubjectKey};
use crate::ports::store::{Loaded, StoreError};

/// How long a code is valid.
pub const CODE_LIFE: Span = Span::from_secs(60);
/// The scope for refresh tokens that outlive the session.
const OFFLINE: &str = "offline_access";

/// The client that asks, proven already.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its id.
    pub client: &'a str,
    /// In a hold it gets nothing (contract section 2, rule 10).
    pub refuse_in_hold: bool,
}

/// Why nothing is given. Each has its words in the protocol.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Unknown, expired, used, revoked, of another client; or its session has ended. `invalid_grant`.
    #[error("the grant is not valid any more")]
    Invalid,
    /// Nothing of the scope is left, or more was asked for than was given. `invalid_scope`.
    #[error("nothing of the requested scope can be given now")]
    Scope,
    /// The account is frozen (ISS-10): `access_denied` to a browser, `invalid_grant` to a client.
    #[error("the account is frozen")]
    Contested,
    /// The client gets nothing while the account is restricted.
    #[error("the account is restricted, and this application cannot honour that")]
    Held,
    /// There is no living session: log in again.
    #[error("there is no session")]
    NoSession,
    /// State: 503, nothing consumed (ISS-2).
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was given; tokens are made of it.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The session.
    pub session: Session,
    /// The family.
    pub family: Family,
    /// What the tokens may say.
    pub entitlement: Entitlement,
    /// The refresh token.
    pub refresh: String,
    /// When.
    pub at: Timestamp,
}

/// A request for a code, judged by the protocol already.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The redirect URI.
    pub redirect_uri: &'a str,
    /// PKCE challenge.
    pub challenge: Option<&'a str>,
    /// `nonce`.
    pub nonce: Option<&'a str>,
    /// Scopes, whole.
    pub scopes: &'a BTreeSet<String>,
}

/// The outcome of a step that may find that the IdP has not been asked yet.
enum Outcome<T> {
    Settled(Result<T, Refusal>),
    AskFirst(Box<Session>),
    /// Everybody was signed out, and what that ended here does not say so yet.
    SignedOut(Subject),
}

/// Whether the IdP was asked in this very request: not yet, or with this answer.
type Asked<'a> = Option<&'a Answer>;

/// A step that judges what is stored and what the IdP said.
type Asking<'f, T> = dyn Fn(&Loaded, Now, Asked<'_>) -> Step<Outcome<T>> + Send + Sync + 'f;

/// Runs a step, and once more after asking the IdP when that has to be done first (contract section 3). An account that
/// is gone there loses what it has here.
async fn checked<T: Send>(flow: &Flow, key: &SubjectKey, step: &Asking<'_, T>) -> Result<T, Refusal> {
    let mut first = step::run(flow, key, &|loaded, now| match left_over(flow, loaded) {
        Some(subject) => Step::done(Outcome::SignedOut(subject)),
        None => step(loaded, now, None),
    })
    .await?;
    if let Outcome::SignedOut(subject) = &first {
        sign_out(flow, subject).await?;
        first = step::run(flow, key, &|loaded, now| step(loaded, now, None)).await?;
    }
    let session = match first {
        Outcome::Settled(settled) => return settled,
        Outcome::AskFirst(session) => session,
        Outcome::SignedOut(_) => return Err(Refusal::NoSession),
    };
    let answer = look(flow, &session).await;
    if answer == Answer::Gone {
        withdraw(flow, &session.subject, &Withdrawal::Account).await?;
        return Err(Refusal::NoSession);
    }
    match step::run(flow, key, &|loaded, now| step(loaded, now, Some(&answer))).await? {
        Outcome::Settled(settled) => settled,
        Outcome::AskFirst(_) | Outcome::SignedOut(_) => Err(Refusal::NoSession),
    }
}

fn refuse<T>(refusal: Refusal) -> Step<Outcome<T>> {
    Step::done(Outcome::Settled(Err(refusal)))
}

/// The session, marked with the answer of the IdP if it was asked just now. It has to be asked when it was not since the
/// log-in, when state, roles and groups are older than an access token lives, and when its log was not followed for a
/// moment (ISS-12, P16). What it does not answer restricts, as if it had never been asked.
///
/// # Errors
/// A step that ends the attempt: no session, nothing is known yet, or the IdP has to be asked first.
fn present<T>(
    flow: &Flow,
    grants: &mut Grants,
    session: Option<Session>,
    now: Now,
    asked: Asked<'_>,
) -> Result<Session, Box<Step<Outcome<T>>>> {
    let Some(mut session) = session else {
        return Err(Box::new(refuse(Refusal::NoSession)));
    };
    let upstream = &session.subject.upstream;
    heard(flow, upstream).map_err(|error| Box::new(refuse(error.into())))?;
    let access = flow.policy.load().lifetimes.access;
    let known = flow.watch.known(upstream, flow.clock.now());
    if session.checked && !session.is_outdated(now.stamp(), access) && known == Known::Now {
        return Ok(session);
    }
    match asked {
        None => Err(Box::new(Step::done(Outcome::AskFirst(Box::new(session))))),
        Some(Answer::Known(looked)) => {
            looked.mark(&mut grants.sessions, &session.id, flow, now);
            let marked = grants.unended(&session.id).cloned();
            marked.ok_or_else(|| Box::new(refuse(Refusal::NoSession)))
        }
        Some(Answer::Silent | Answer::Gone) => {
            session.checked = false;
            Ok(session)
        }
    }
}

/// What may be given, or why not: frozen (ISS-10), a client that cannot honour a hold, nothing left (ISS-3).
fn judge(entitlement: &Entitlement, asker: Asker<'_>) -> Result<(), Refusal> {
    if entitlement.contested {
        return Err(Refusal::Contested);
    }
    if asker.refuse_in_hold && !entitlement.recovery_scope.is_full() {
        return Err(Refusal::Held);
    }
    if entitlement.scopes.is_empty() {
        return Err(Refusal::Scope);
    }
    Ok(())
}

/// Gives a code for a living session.
///
/// # Errors
/// [`Refusal`]; nothing was stored then.
pub async fn authorize(
    flow: &Flow,
    key: &SubjectKey,
    session: &str,
    asker: Asker<'_>,
    wanted: &Wanted<'_>,
) -> Result<String, Refusal> {
    let id = flow.random::<16>();
    let life = flow.policy.load().lifetimes.session;
    checked(flow, key, &|loaded, now, asked| {
        let mut grants = loaded.grants.clone().unwrap_or_default();
        let found = alive(flow, &grants, loaded.record.as_ref(), session, now, Some(life)).cloned();
        let session = match present(flow, &mut grants, found, now, asked) {
            Ok(session) => session,
            Err(step) => return *step,
        };
        let entitlement = entitled(flow, loaded, &session, asker.client, wanted.scopes);
        if let Err(refusal) = judge(&entitlement, asker) {
            return refuse(refusal);
        }
        let offline = wanted.scopes.contains(OFFLINE) && entitlement.recovery_scope.is_full();
        grants
            .codes
            .push(code(&id, &session, asker, wanted, offline, now));
        let displaced = grants.prune(now.earliest(), life);
        let step = Step::store(Outcome::Settled(Ok(())), grants);
        displacing(flow, step, &session.subject, displaced, now)
    })
    .await?;
    let token = Opaque {
        key: *key,
        id,
        generation: 0,
    };
    opaque::seal(flow, Purpose::Code, &token).ok_or(Refusal::Invalid)
}

fn code(id: &str, session: &Session, asker: Asker<'_>, wanted: &Wanted<'_>, offline: bool, now: Now) -> Code {
    Code {
        id: id.to_owned(),
        client: asker.client.to_owned(),
        redirect_uri: wanted.redirect_uri.to_owned(),
        challenge: wanted.challenge.map(str::to_owned),
        nonce: wanted.nonce.map(str::to_owned),
        scopes: granted(wanted.scopes, offline),
        session: session.id.clone(),
        offline,
        acr: session.acr.clone(),
        expires: now.stamp().plus(CODE_LIFE),
        used: None,
    }
}

/// The consented scopes, whole, but for an `offline_access` that a hold has kept back (ISS-4).
fn granted(scopes: &BTreeSet<String>, offline: bool) -> BTreeSet<String> {
    scopes
        .iter()
        .filter(|s| offline || s.as_str() != OFFLINE)
        .cloned()
        .collect()
}

/// A code as it was presented.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The code.
    pub code: &'a str,
    /// `redirect_uri`, verbatim.
    pub redirect_uri: &'a str,
    /// The S256 challenge of `code_verifier`, if one was sent.
    pub challenge: Option<&'a str>,
}

/// Uses a code, once. A second use revokes what the first one gave.
///
/// # Errors
/// [`Refusal`]; but for a second use nothing was stored then.
pub async fn redeem(flow: &Flow, asker: Asker<'_>, presented: Presented<'_>) -> Result<Grant, Refusal> {
    let opaque = opaque::open(flow, Purpose::Code, presented.code).ok_or(Refusal::Invalid)?;
    let family_id = flow.random::<16>();
    let lifetimes = flow.policy.load().lifetimes;
    let (session, family, entitlement, at) = checked(flow, &opaque.key, &|loaded, now, asked| {
        let mut grants = loaded.grants.clone().unwrap_or_default();
        let known = grants.codes.iter().find(|c| c.id == opaque.id);
        // A verifier without a challenge is refused too: it would hide a downgrade (RFC 9700 §2.1.1).
        if known.is_none_or(|c| c.challenge.as_deref() != presented.challenge) {
            return refuse(Refusal::Invalid);
        }
        let code = match grants.redeem(
            &opaque.id,
            asker.client,
            presented.redirect_uri,
            &family_id,
            now.latest(),
        ) {
            Ok(code) => code,
            Err(CodeRefusal::Invalid) => return refuse(Refusal::Invalid),
            Err(CodeRefusal::Replayed) => {
                return Step::store(Outcome::Settled(Err(Refusal::Invalid)), grants);
            }
        };
        let life = Some(lifetimes.session);
        let found = alive(flow, &grants, loaded.record.as_ref(), &code.session, now, life).cloned();
        let session = match present(flow, &mut grants, found, now, asked) {
            Ok(session) => session,
            Err(step) => return *step,
        };
        let entitlement = entitled(flow, loaded, &session, asker.client, &code.scopes);
        if let Err(refusal) = judge(&entitlement, asker) {
            return refuse(refusal);
        }
        let offline = code.offline && entitlement.recovery_scope.is_full();
        let expires = if offline {
            now.stamp().plus(lifetimes.offline)
        } else {
            session.began.plus(lifetimes.session)
        };
        let family = family(&family_id, &code, offline, now, expires);
        for stored in grants.sessions.iter_mut().filter(|s| s.id == session.id) {
            stored.clients.insert(asker.client.to_owned());
        }
        grants.families.push(family.clone());
        let displaced = grants.prune(now.earliest(), lifetimes.session);
        let subject = session.subject.clone();
        let given = (session, family, entitlement, now.latest());
        let step = Step::store(Outcome::Settled(Ok(given)), grants);
        displacing(flow, step, &subject, displaced, now)
    })
    .await?;
    grant(flow, opaque.key, session, family, entitlement, at)
}

fn family(id: &str, code: &Code, offline: bool, now: Now, expires: Timestamp) -> Family {
    Family {
        id: id.to_owned(),
        client: code.client.clone(),
        session: code.session.clone(),
        scopes: granted(&code.scopes, offline),
        began: now.stamp(),
        expires,
        offline,
        nonce: code.nonce.clone(),
        generation: 1,
        rotated: now.stamp(),
        revoked: None,
        denied: Vec::new(),
    }
}

fn grant(
    flow: &Flow,
    key: SubjectKey,
    session: Session,
    family: Family,
    entitlement: Entitlement,
    at: Timestamp,
) -> Result<Grant, Refusal> {
    let token = Opaque {
        key,
        id: family.id.clone(),
        generation: family.generation,
    };
    let refresh = opaque::seal(flow, Purpose::Refresh, &token).ok_or(Refusal::Invalid)?;
    Ok(Grant {
        session,
        family,
        entitlement,
        refresh,
        at,
    })
}

/// Rotates a refresh token. `narrowed` is the `scope` of the request: never more than was consented to.
///
/// # Errors
/// [`Refusal`]; but for an old token that came back (its family is revoked) nothing was stored then.
pub async fn refresh(
    flow: &Flow,
    asker: Asker<'_>,
    token: &str,
    narrowed: Option<&BTreeSet<String>>,
) -> Result<Grant, Refusal> {
    let opaque = opaque::open(flow, Purpose::Refresh, token).ok_or(Refusal::Invalid)?;
    let lifetimes = flow.policy.load().lifetimes;
    let (session, family, entitlement, at) = checked(flow, &opaque.key, &|loaded, now, asked| {
        let mut grants = loaded.grants.clone().unwrap_or_default();
        let Some(family) = grants
            .family(&opaque.id)
            .filter(|f| f.client == asker.client && now.latest() < f.expires)
            .cloned()
        else {
            return refuse(Refusal::Invalid);
        };
        let life = Some(lifetimes.session);
        let found = bears(flow, &grants, loaded.record.as_ref(), &family, now, life).cloned();
        let session = match present(flow, &mut grants, found, now, asked) {
            Ok(session) => session,
            Err(step) => return *step,
        };
        let scopes = narrowed.unwrap_or(&family.scopes);
        if !scopes.is_subset(&family.scopes) {
            return refuse(Refusal::Scope);
        }
        let entitlement = entitled(flow, loaded, &session, asker.client, scopes);
        if let Err(refusal) = judge(&entitlement, asker) {
            return refuse(refusal);
        }
        let answer = |grants: &Grants| {
            let family = grants.family(&opaque.id).cloned().ok_or(Refusal::Invalid);
            Outcome::Settled(family.map(|f| (session.clone(), f, entitlement.clone(), now.latest())))
        };
        let grace = lifetimes.refresh_grace;
        match grants.rotate(&opaque.id, asker.client, opaque.generation, now.stamp(), grace) {
            Rotation::Moved(_) => Step::store(answer(&grants), grants),
            Rotation::Again(_) => Step::done(answer(&grants)),
            Rotation::Reused => reused(&session, &family, opaque.generation, grants, now),
            Rotation::Invalid => refuse(Refusal::Invalid),
        }
    })
    .await?;
    grant(flow, opaque.key, session, family, entitlement, at)
}

/// An old refresh token came back: somebody has a copy of it, or a client lost an answer and came too late. Its family is
/// revoked, and that is said, so that an operator finds the client.
fn reused<T>(
    session: &Session,
    family: &Family,
    generation: u32,
    grants: Grants,
    now: Now,
) -> Step<Outcome<T>> {
    metrics::counter!("reentry_refresh_reuse_total").increment(1);
    tracing::warn!(
        client = %family.client, upstream = %session.subject.upstream, sent = generation, newest = family.generation,
        "an old refresh token was sent again: its family is revoked",
    );
    let entry = Entry::system(
        format!("reused:{}", family.id),
        now.stamp(),
        "refresh_family_revoked",
        None,
    )
    .with("client", &family.client)
    .with("why", "an old refresh token was sent again")
    .with("sent", generation)
    .with("newest", family.generation);
    Step::store(Outcome::Settled(Err(Refusal::Invalid)), grants).saying(&session.subject, entry)
}

/// The session of an access token, with state, roles and groups no older than an access token lives: for judging who wants
/// to act on others. Gives what was read beside it.
///
/// # Errors
/// [`Refusal`]: the token is revoked, its session has ended, or nothing can be known just now.
pub async fn vouched(
    flow: &Flow,
    key: &SubjectKey,
    token: (&str, &str),
) -> Result<(Session, Loaded), Refusal> {
    let (sid, jti) = token;
    let family_id = jti.split_once('.').map_or("", |(family, _)| family);
    checked(flow, key, &|loaded, now, asked| {
        let mut grants = loaded.grants.clone().unwrap_or_default();
        let family = grants.family(family_id).filter(|f| f.session == sid).cloned();
        let Some(family) = family.filter(|f| !f.denied.iter().any(|denied| denied == jti)) else {
            return refuse(Refusal::Invalid);
        };
        let found = bears(flow, &grants, loaded.record.as_ref(), &family, now, None).cloned();
        let session = match present(flow, &mut grants, found, now, asked) {
            Ok(session) => session,
            Err(step) => return *step,
        };
        let settled = Outcome::Settled(Ok((session, loaded.clone())));
        if asked.is_some() {
            Step::store(settled, grants)
        } else {
            Step::done(settled)
        }
    })
    .await
}
