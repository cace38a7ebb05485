//! What the owner sees and may do: look, end sessions, remove what was added in the hold. Nothing here shortens
//! anything (P4).

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::domain::audit::{Actor, Entry};
use crate::domain::hold::Record;
use crate::domain::session::Session;
use crate::domain::subject::Subject;
use crate::domain::subject::account::{Account, Factor, FactorClass};
use crate::domain::time::{Now, Timestamp};
use crate::flow::{Flow, FlowError, farewell, ingest, signed_out};
use crate::ports::idp::IdpSession;
use crate::ports::store::{Parts, Write};

/// What the owner's page shows.
#[derive(Clone, Debug)]
pub struct View {
    /// The record, if anything ever happened.
    pub record: Option<Record>,
    /// Contacts and factors, live where the IdP answered, else as last seen.
    pub account: Account,
    /// Our sessions that live.
    pub sessions: Vec<Session>,
    /// Sessions at the IdP; `None` when it did not answer.
    pub idp_sessions: Option<Vec<IdpSession>>,
    /// Factors added since the restriction began: the owner may remove them.
    pub added: Vec<Factor>,
    /// Who was told: audit lines of accepted notices, newest first.
    pub told: Vec<Entry>,
    /// When each case was contested, by its reference.
    pub frozen: BTreeMap<String, Timestamp>,
    /// What time it is.
    pub now: Now,
}

/// Everything for the owner's page.
///
/// # Errors
/// [`FlowError::Store`]; an IdP that does not answer leaves gaps, not an error.
pub async fn view(flow: &Flow, subject: &Subject) -> Result<View, FlowError> {
    let key = flow.key(subject);
    let loaded = flow.store.read(&key, Parts::ALL).await?;
    let now = flow.now(loaded.store_time);
    let idp = flow.idp(&subject.upstream)?;
    let (sessions, reading) =
        futures_util::future::join(idp.sessions(&subject.sub), flow.reading(subject)).await;
    let stored = loaded.account.unwrap_or_default();
    let account = match reading {
        Ok(live) => stored.refreshed(&live.account, now.latest()),
        Err(_) => stored,
    };
    let audit = flow
        .store
        .audit(Some(&key), Timestamp::from_millis(i64::MAX), 200)
        .await?;
    let contested = audit.iter().filter(|(_, e)| e.action == "contested");
    let frozen = contested
        .filter_map(|(_, e)| Some((e.case.clone()?, e.at)))
        .collect();
    let told = audit
        .into_iter()
        .map(|(_, e)| e)
        .filter(|e| e.action == "notice_accepted")
        .collect();
    let ours = loaded
        .grants
        .unwrap_or_default()
        .sessions
        .into_iter()
        .filter(|s| s.ended.is_none());
    let lives = |s: &Session| {
        loaded
            .record
            .as_ref()
            .is_none_or(|r| r.session_lives(s.began, s.upstream_sid.as_deref()))
            && !signed_out::signed_out(flow, &s.subject).ends(s)
    };
    let sessions_ours: Vec<Session> = ours.filter(lives).collect();
    let added = loaded
        .record
        .as_ref()
        .map(|r| added_in_hold(r, &account, now))
        .unwrap_or_default();
    Ok(View {
        record: loaded.record,
        account,
        sessions: sessions_ours,
        idp_sessions: sessions.ok(),
        added,
        told,
        frozen,
        now,
    })
}

/// Factors enrolled since the restriction under way began, that are still there.
fn added_in_hold(record: &Record, account: &Account, now: Now) -> Vec<Factor> {
    if record.restriction(now).is_none() {
        return Vec::new();
    }
    let episode = record.episode();
    let began = record
        .causes
        .iter()
        .filter(|c| c.episode == episode && c.holds())
        .map(|c| c.at)
        .min();
    let Some(began) = began else {
        return Vec::new();
    };
    account
        .factors
        .iter()
        // A password that was set anew is no addition: it can be changed, and without one nobody signs in.
        .filter(|f| {
            f.gone.is_none() && f.is_dated() && f.created >= began && f.class != FactorClass::Password
        })
        .cloned()
        .collect()
}

fn no_session() -> FlowError {
    FlowError::Unknown("there is no such session of this account".to_owned())
}

/// Ends one session at the IdP, and ours that came from it.
///
/// # Errors
/// [`FlowError::Unknown`] when neither is there.
pub async fn end_idp_session(flow: &Flow, subject: &Subject, session: &str) -> Result<(), FlowError> {
    let idp = flow.idp(&subject.upstream)?;
    let there = idp.sessions(&subject.sub).await?.iter().any(|s| s.id == session);
    idp.end_session(&subject.sub, session).await?;
    let here = end_where(flow, subject, &|s| s.upstream_sid.as_deref() == Some(session)).await?;
    (there || here).then_some(()).ok_or_else(no_session)
}

/// Ends one of our sessions with all its refresh families.
///
/// # Errors
/// [`FlowError::Unknown`] when it is not there (any more).
pub async fn end_session(flow: &Flow, subject: &Subject, session: &str) -> Result<(), FlowError> {
    let ended = end_where(flow, subject, &|s| s.id == session).await?;
    ended.then_some(()).ok_or_else(no_session)
}

/// Ends the living sessions for which `which` holds; says whether there were any.
async fn end_where(
    flow: &Flow,
    subject: &Subject,
    which: &(dyn Fn(&Session) -> bool + Sync),
) -> Result<bool, FlowError> {
    let ended = Mutex::new(Vec::new());
    flow.store
        .update(&flow.key(subject), Parts::GRANTS, None, &|loaded| {
            let mut grants = loaded.grants.clone()?;
            let now = flow.now(loaded.store_time).latest();
            let ids: Vec<String> = grants
                .sessions
                .iter()
                .filter(|s| s.ended.is_none() && which(s))
                .map(|s| s.id.clone())
                .collect();
            let mut effects = Vec::new();
            for id in &ids {
                grants.end_session(id, now);
                let ended = grants.sessions.iter_mut().find(|s| s.id == *id);
                effects.extend(ended.map(|s| farewell::of(flow, s)).unwrap_or_default());
            }
            if let Ok(mut slot) = ended.lock() {
                slot.clone_from(&ids);
            }
            (!ids.is_empty()).then(|| Write {
                subject: Some(subject.clone()),
                grants: Some(grants),
                effects,
                ..Write::default()
            })
        })
        .await?;
    // An account to which nothing ever happened has no record that the lines could be stored with.
    let at = flow.clock.now();
    let ended = ended.into_inner().unwrap_or_default();
    for id in &ended {
        let entry = Entry::system(format!("ended:{id}"), at, "session_ended", None);
        let entry = entry.by(Actor::Owner).with("sid", id);
        flow.store.note(subject, &flow.key(subject), &entry).await?;
    }
    Ok(!ended.is_empty())
}

/// Removes a factor, if it was added in the hold that runs.
///
/// # Errors
/// [`FlowError::Unknown`] when the factor was not added in the hold; [`FlowError::Idp`].
pub async fn remove_factor(flow: &Flow, subject: &Subject, factor: &str) -> Result<(), FlowError> {
    let view = view(flow, subject).await?;
    if !view.added.iter().any(|f| f.id == factor) {
        return Err(FlowError::Unknown(
            "this was not added since the change".to_owned(),
        ));
    }
    flow.idp(&subject.upstream)?
        .remove_factor(&subject.sub, factor)
        .await?;
    ingest::took_away(flow, subject, &|f| f.id == factor, false).await?;
    let now = flow.clock.now();
    let entry = Entry::system(
        format!("factor_removed:{factor}:{}", now.millis()),
        now,
        "factor_removed",
        None,
    );
    flow.store
        .note(
            subject,
            &flow.key(subject),
            &entry.by(Actor::Owner).with("factor", factor),
        )
        .await?;
    Ok(())
}
