//! Codes and refresh tokens: given, used, rotated.
//!
//! Each is one atomic step whose closure asks the domain with the record it has just read: a hold that lands between
//! code and token, or between two refreshes, is in the answer (P1). What is refused consumes nothing. Signing comes
//! after the commit; a client whose reply got lost asks again within the grace and gets the same successor.

use std::collections::BTreeSet;

use crate::domain::entitlement::Entitlement;
use crate::domain::session::{Code, CodeRefusal, Family, Grants, Rotation, Session};
use crate::domain::time::{Now, Span, Timestamp};
use crate::flow::Flow;
use crate::flow::opaque::{self, Opaque};
use crate::flow::session::{Looked, alive, entitled, look};
use crate::flow::step::{self, Step};
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
}

/// Whether the IdP was asked in this very request: not yet, or with this answer.
type Asked<'a> = Option<Option<&'a Looked>>;

/// A step that judges what is stored and what the IdP said.
type Asking<'f, T> = dyn Fn(&Loaded, Now, Asked<'_>) -> Step<Outcome<T>> + Send + Sync + 'f;

/// Runs a step, and once more after asking the IdP when the session has not been checked (contract section 3).
async fn checked<T: Send>(flow: &Flow, key: &SubjectKey, step: &Asking<'_, T>) -> Result<T, Refusal> {
    let first = step::run(flow, key, &|loaded, now| step(loaded, now, None)).await?;
    let session = match first {
        Outcome::Settled(settled) => return settled,
        Outcome::AskFirst(session) => session,
    };
    let looked = look(flow, &session.subject).await;
    match step::run(flow, key, &|loaded, now| step(loaded, now, Some(looked.as_ref()))).await? {
        Outcome::Settled(settled) => settled,
        Outcome::AskFirst(_) => Err(Refusal::NoSession),
    }
}

fn refuse<T>(refusal: Refusal) -> Step<Outcome<T>> {
    Step::done(Outcome::Settled(Err(refusal)))
}

/// The living session, marked with the answer of the IdP if it was asked just now.
///
/// # Errors
/// A step that ends the attempt: no session, or the IdP has to be asked first.
fn present<T>(
    loaded: &Loaded,
    grants: &mut Grants,
    id: &str,
    now: Now,
    life: Option<Span>,
    asked: Asked<'_>,
) -> Result<Session, Box<Step<Outcome<T>>>> {
    let Some(session) = alive(grants, loaded.record.as_ref(), id, now, life).cloned() else {
        return Err(Box::new(refuse(Refusal::NoSession)));
    };
    if session.checked {
        return Ok(session);
    }
    match asked {
        None => Err(Box::new(Step::done(Outcome::AskFirst(Box::new(session))))),
        Some(None) => Ok(session),
        Some(Some(looked)) => {
            let mut session = session;
            looked.mark(&mut session);
            for stored in grants.sessions.iter_mut().filter(|s| s.id == id) {
                looked.mark(stored);
            }
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
        let session = match present(loaded, &mut grants, session, now, Some(life), asked) {
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
        grants.prune(now.earliest(), life);
        Step::store(Outcome::Settled(Ok(())), grants)
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
        expires: now.latest().plus(CODE_LIFE),
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
        let session = match present(
            loaded,
            &mut grants,
            &code.session,
            now,
            Some(lifetimes.session),
            asked,
        ) {
            Ok(session) => session,
            Err(step) => return *step,
        };
        let entitlement = entitled(flow, loaded, &session, asker.client, &code.scopes);
        if let Err(refusal) = judge(&entitlement, asker) {
            return refuse(refusal);
        }
        let offline = code.offline && entitlement.recovery_scope.is_full();
        let expires = if offline {
            now.earliest().plus(lifetimes.offline)
        } else {
            session.began.plus(lifetimes.session)
        };
        let family = family(&family_id, &code, offline, now, expires);
        for stored in grants.sessions.iter_mut().filter(|s| s.id == session.id) {
            stored.clients.insert(asker.client.to_owned());
        }
        grants.families.push(family.clone());
        grants.prune(now.earliest(), lifetimes.session);
        Step::store(
            Outcome::Settled(Ok((session, family, entitlement, now.latest()))),
            grants,
        )
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
        began: now.latest(),
        expires,
        offline,
        nonce: code.nonce.clone(),
        generation: 1,
        rotated: now.latest(),
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
    let life = flow.policy.load().lifetimes.session;
    let (session, family, entitlement, at) = checked(flow, &opaque.key, &|loaded, now, asked| {
        let mut grants = loaded.grants.clone().unwrap_or_default();
        let Some(family) = grants
            .family(&opaque.id)
            .filter(|f| f.client == asker.client)
            .cloned()
        else {
            return refuse(Refusal::Invalid);
        };
        let bound = (!family.offline).then_some(life);
        let session = match present(loaded, &mut grants, &family.session, now, bound, asked) {
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
        match grants.rotate(&opaque.id, asker.client, opaque.generation, now.latest()) {
            Rotation::Moved(_) => Step::store(answer(&grants), grants),
            Rotation::Again(_) => Step::done(answer(&grants)),
            Rotation::Reused => Step::store(Outcome::Settled(Err(Refusal::Invalid)), grants),
            Rotation::Invalid => refuse(Refusal::Invalid),
        }
    })
    .await?;
    grant(flow, opaque.key, session, family, entitlement, at)
}
