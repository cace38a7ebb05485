//! Whether an account is gone, or just not found.
//!
//! A 404 is easily had: a node that lags behind the others, a directory that forgets somebody for a moment, a group or a
//! client in the same path that was deleted. Whoever takes it for "there is no such account" drops a hold, or a line that
//! would have made one, and nobody hears of it. So only the account itself says that it is gone, asked twice; and where the
//! realm's logs know it, a line that tells of its deletion has to say so too, or it has to stay away for a while. Until
//! then a 404 is a fault like any other: tried again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::admin::{AdminError, AdminEventQuery, Direction, EventQuery};
use super::events::{self, AdminAct};
use super::{Keycloak, idp};
use crate::ports::idp::IdpError;

/// Between the two questions.
const BREATH: Duration = Duration::from_millis(250);
/// An account whose deletion no line tells of has to be away for so long.
const AWAY: Duration = Duration::from_mins(1);
/// Not found once more after this, it counts from the beginning.
const FORGOTTEN: Duration = Duration::from_mins(30);
/// Accounts of which it is remembered since when they are away.
const MOST: usize = 1_000;
/// Lines that are searched for the one that tells of a deletion.
const LINES: u32 = 100;

/// Since when accounts were not found, and when they were last asked for.
#[derive(Debug, Default)]
pub(super) struct Missing(HashMap<String, (Instant, Instant)>);

impl Missing {
    /// It was not found at `now`. Gives for how long it has not been.
    fn away(&mut self, sub: &str, now: Instant) -> Duration {
        if self.0.len() >= MOST && !self.0.contains_key(sub) {
            // Those who are asked for again begin anew: later, but never wrong.
            self.0.clear();
        }
        let known = self.0.entry(sub.to_owned()).or_insert((now, now));
        if now.saturating_duration_since(known.1) >= FORGOTTEN {
            known.0 = now;
        }
        known.1 = now;
        now.saturating_duration_since(known.0)
    }
}

/// The account was found.
pub(super) async fn there(keycloak: &Keycloak, sub: &str) {
    keycloak.believed.lock().await.missing.0.remove(sub);
}

/// The answer to a call about one account. "Not found" means the account only when it is gone for sure.
pub(super) async fn found<T>(
    keycloak: &Keycloak,
    sub: &str,
    answer: Result<T, AdminError>,
) -> Result<T, IdpError> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(error @ AdminError::NotFound { .. }) => Err(absent(keycloak, sub, error).await),
        Err(error) => Err(idp(error)),
    }
}

/// What "not found" in a call about an account means.
async fn absent(keycloak: &Keycloak, sub: &str, error: AdminError) -> IdpError {
    // No account can have such an id, and no path names it.
    if matches!(sub, "" | "." | "..") {
        return IdpError::UnknownSubject;
    }
    match gone(keycloak, sub).await {
        Ok(Some(true)) => IdpError::UnknownSubject,
        Ok(Some(false)) => IdpError::Unexpected(
            "the account is not found, and no line of the log says that it was deleted: it is asked for again"
                .to_owned(),
        ),
        Ok(None) => idp(error),
        Err(error) => idp(error),
    }
}

/// Whether the account is gone for sure; `None` when it is there.
async fn gone(keycloak: &Keycloak, sub: &str) -> Result<Option<bool>, AdminError> {
    for pause in [Some(BREATH), None] {
        match keycloak.admin.user(sub).await {
            Ok(_) => {
                there(keycloak, sub).await;
                return Ok(None);
            }
            Err(AdminError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    // A realm that is not there has no accounts, and says nothing about any of them.
    keycloak.admin.events_config().await?;
    let away = keycloak.believed.lock().await.missing.away(sub, Instant::now());
    Ok(Some(away >= AWAY || told(keycloak, sub).await?))
}

/// Whether the logs tell of its deletion, or know nothing of such an account at all.
async fn told(keycloak: &Keycloak, sub: &str) -> Result<bool, AdminError> {
    let acts = AdminEventQuery {
        account: Some(sub.to_owned()),
        direction: Direction::Descending,
        max: LINES,
        ..AdminEventQuery::default()
    };
    let acts = keycloak.admin.admin_events(&acts).await?;
    let life = acts.iter().find_map(|act| match events::admin_act(act)? {
        (_, AdminAct::Deleted) => Some(true),
        (_, AdminAct::Created) => Some(false),
        _ => None,
    });
    if let Some(deleted @ true) = life {
        return Ok(deleted);
    }
    let lines = EventQuery {
        user: Some(sub.to_owned()),
        // As far back as any log of user events is read: a query without a bound walks through years of log-ins.
        from_ms: Some(keycloak.clock.now().minus(keycloak.settings.back_fill).millis()),
        direction: Direction::Descending,
        max: LINES,
        ..EventQuery::default()
    };
    let lines = keycloak.admin.events(&lines).await?;
    let left = |line: &super::representations::Event| line.error.is_none() && line.kind == "DELETE_ACCOUNT";
    Ok(lines.iter().any(left) || (acts.is_empty() && lines.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_away_since_it_was_first_not_found() {
        let (mut missing, now) = (Missing::default(), Instant::now());
        let at = |secs| now + Duration::from_secs(secs);
        assert_eq!(missing.away("ann", at(0)), Duration::ZERO);
        assert_eq!(missing.away("bob", at(30)), Duration::ZERO);
        assert!(missing.away("ann", at(59)) < AWAY);
        assert!(missing.away("ann", at(60)) >= AWAY);
        missing.0.remove("ann");
        assert_eq!(
            missing.away("ann", at(61)),
            Duration::ZERO,
            "it was found meanwhile"
        );
        let later = 61 + FORGOTTEN.as_secs();
        assert_eq!(
            missing.away("ann", at(later)),
            Duration::ZERO,
            "nobody asked in between"
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut missing, now) = (Missing::default(), Instant::now());
        for n in 0..3 * MOST {
            missing.away(&n.to_string(), now);
        }
        assert!(missing.0.len() <= MOST);
    }
}
