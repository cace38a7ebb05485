//! Sessions of an account, online and offline: listing them, ending them.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::hold::Cut;
use crate::domain::time::Timestamp;
use crate::idp::keycloak::absent::found;
use crate::idp::keycloak::admin::AdminError;
use crate::idp::keycloak::representations::Session;
use crate::idp::keycloak::{Keycloak, idp};
use crate::ports::idp::{IdpError, IdpSession};

/// Ends what began before a cut, and is not its exception; gives what was done. What cannot be ended keeps nothing else
/// from being.
pub(super) async fn end_cut(
    keycloak: &Keycloak,
    sub: &str,
    cuts: &[Cut],
    end_before: Option<Timestamp>,
) -> Result<Vec<String>, IdpError> {
    let mut acts = Vec::new();
    if cuts.is_empty() && end_before.is_none() {
        return Ok(acts);
    }
    let (ahead, _) = keycloak.own().await?;
    let dead = |session: &Session| {
        // Whole seconds, rounded down: what began in the second of the cut counts as before it.
        let began = Timestamp::from_millis(session.start).minus(ahead);
        end_before.is_some_and(|end| began < end)
            || cuts
                .iter()
                .any(|cut| began <= cut.at && cut.except.as_deref() != Some(&session.id))
    };
    let mut failed = None;
    for (session, offline) in live_sessions(keycloak, sub).await? {
        if dead(&session) {
            if let Err(error) = delete_session(keycloak, &session.id, offline).await {
                failed.get_or_insert(error);
                continue;
            }
            let kind = if offline { "offline session" } else { "session" };
            acts.push(format!("ended {kind} {}", session.id));
        }
    }
    failed.map_or(Ok(acts), Err)
}

/// Ends every session, online and offline ones, as far as the server lets us: what cannot be ended keeps nothing else
/// from being. Says whether there was one.
pub(super) async fn end_all(keycloak: &Keycloak, sub: &str) -> Result<bool, IdpError> {
    let live = match live_sessions(keycloak, sub).await {
        Ok(live) if live.is_empty() => return Ok(false),
        Ok(live) => Ok(live),
        // The account may be gone, or its directory: the log-out needs no list.
        Err(IdpError::UnknownSubject) => return Err(IdpError::UnknownSubject),
        Err(error) => Err(error),
    };
    let mut done = found(keycloak, sub, keycloak.admin.logout(sub).await).await;
    // Offline sessions are dead by not-before then, but stay listed.
    for (session, offline) in live? {
        done = done.and(delete_session(keycloak, &session.id, offline).await);
    }
    done.map(|()| true)
}

/// Online and offline sessions. Where offline ones are is told by the list of grants.
pub(super) async fn live_sessions(keycloak: &Keycloak, sub: &str) -> Result<Vec<(Session, bool)>, IdpError> {
    let admin = &keycloak.admin;
    let listed = futures_util::future::try_join(admin.sessions(sub), admin.consents(sub)).await;
    let (online, grants) = found(keycloak, sub, listed).await?;
    let clients: BTreeSet<String> = grants
        .into_iter()
        .flat_map(|consent| consent.additional_grants)
        .filter_map(|grant| grant.client)
        .collect();
    let mut sessions: BTreeMap<(String, bool), Session> = online
        .into_iter()
        .map(|session| ((session.id.clone(), false), session))
        .collect();
    for client in clients {
        let offline = found(keycloak, sub, admin.offline_sessions(sub, &client).await).await?;
        for session in offline {
            let key = (session.id.clone(), true);
            sessions
                .entry(key)
                .or_insert(Session {
                    clients: BTreeMap::new(),
                    ..session.clone()
                })
                .clients
                .extend(session.clients);
        }
    }
    Ok(sessions
        .into_iter()
        .map(|((_, offline), session)| (session, offline))
        .collect())
}

pub(super) async fn delete_session(keycloak: &Keycloak, id: &str, offline: bool) -> Result<(), IdpError> {
    match keycloak.admin.delete_session(id, offline).await {
        // It ended by itself meanwhile.
        Ok(()) | Err(AdminError::NotFound { .. }) => Ok(()),
        Err(error) => Err(idp(error)),
    }
}

/// Sessions of the account, for its owner.
pub(in crate::idp::keycloak) async fn sessions(
    keycloak: &Keycloak,
    sub: &str,
) -> Result<Vec<IdpSession>, IdpError> {
    let (ahead, _) = keycloak.own().await?;
    let ours = |millis: i64| Timestamp::from_millis(millis).minus(ahead);
    let live = live_sessions(keycloak, sub).await?;
    let told = live.into_iter().map(|(session, offline)| IdpSession {
        began: ours(session.start),
        last_access: ours(session.last_access),
        ip: session.ip_address.unwrap_or_default(),
        clients: session.clients.into_values().collect(),
        offline,
        id: session.id,
    });
    Ok(told.collect())
}

/// Ends one session, if it is the account's; one that is gone already is no error.
pub(in crate::idp::keycloak) async fn end_session(
    keycloak: &Keycloak,
    sub: &str,
    id: &str,
) -> Result<(), IdpError> {
    for (session, offline) in live_sessions(keycloak, sub).await? {
        if session.id == id {
            delete_session(keycloak, id, offline).await?;
        }
    }
    Ok(())
}
