//! Whether the realm records what is needed and is wired, and whether our account has its roles and no more.

use serde::{Deserialize, Serialize};

use super::admin::{AdminError, Own};
use super::representations::EventsConfig;
use super::{Keycloak, act, events, idp};
use crate::domain::time::Span;
use crate::ports::idp::IdpError;

/// Roles of the run-time account.
const ROLES: [&str; 4] = ["manage-users", "query-users", "view-events", "view-users"];
/// What comes with them (`query-groups` is a child of `view-users`), or does no harm.
const HARMLESS: [&str; 3] = ["query-groups", "view-clients", "query-clients"];

/// How long the realm kept its user events when it was last read, so that a shorter time is noticed at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Kept(Option<i64>);

/// Seconds that user events are kept; [`i64::MAX`] is for ever.
fn kept(config: &EventsConfig) -> i64 {
    config
        .events_expiration
        .filter(|seconds| *seconds > 0)
        .unwrap_or(i64::MAX)
}

impl Kept {
    /// An alarm when the time got shorter; told once, since it may have been meant.
    pub(super) fn shrunk(&mut self, config: &EventsConfig) -> Option<String> {
        let now = kept(config);
        let before = self.0.replace(now).filter(|before| now < *before)?;
        let before = if before == i64::MAX {
            "for ever".to_owned()
        } else {
            format!("for {}", Span::from_secs(before))
        };
        Some(format!(
            "user events were kept {before} and are kept for {} now: who shortened it can hide what happened while we are away",
            Span::from_secs(now)
        ))
    }
}

/// What is wrong with what the realm records; `retention` is how long it has to keep it at least.
pub(super) fn config_faults(config: &EventsConfig, retention: Span) -> Vec<String> {
    let mut faults = Vec::new();
    if config.events_enabled && kept(config) < retention.secs() {
        faults.push(format!(
            "user events are kept for {} only, less than {}, twice the longest hold: set their expiration to at least that, or run `reentry wire keycloak`",
            Span::from_secs(kept(config)),
            retention
        ));
    }
    if !config.events_enabled {
        faults.push(
            "user events are not stored: changes go unseen; `reentry wire keycloak` switches them on"
                .to_owned(),
        );
    }
    if !config.admin_events_enabled {
        faults.push(
            "admin events are not stored: resets by administrators go unseen; `reentry wire keycloak` switches them on"
                .to_owned(),
        );
    }
    let stored = &config.enabled_event_types;
    let missing: Vec<&str> = events::NEEDED
        .into_iter()
        .filter(|kind| !stored.is_empty() && !stored.iter().any(|s| s == kind))
        .collect();
    if !missing.is_empty() {
        faults.push(format!(
            "user events of these types are not stored: {}; add them under Realm settings, Events, or run `reentry wire keycloak`",
            missing.join(", ")
        ));
    }
    faults
}

/// Roles that our token does not name.
fn lacking(own: &Own) -> Vec<&'static str> {
    ROLES
        .into_iter()
        .filter(|role| !own.roles.contains(*role))
        .collect()
}

fn told_of(less: &[&str], client: &str) -> Option<String> {
    (!less.is_empty()).then(|| {
        format!(
            "the service account of `{client}` lacks {} of realm-management: grant them, or run `reentry wire keycloak`",
            less.join(", ")
        )
    })
}

/// What our own token leaves out. A light one names neither our account nor our roles: then our own acts look like those
/// of somebody else, and nothing can be said about roles.
fn light(own: &Own, client: &str) -> Option<String> {
    (own.account.is_none() || own.roles.is_empty()).then(|| {
        format!(
            "the access token of the service account of `{client}` does not say who we are and what we may, so that our own acts are taken for somebody else's: switch off \"Always use lightweight access token\" of that client (Advanced), and give it the default client scopes `basic` and `roles`"
        )
    })
}

/// A role that was taken away, by the token in use: told at the poll, before an account needs it. A token without any
/// role says nothing: then the server answers for itself.
pub(super) async fn role_taken(keycloak: &Keycloak) -> Result<Option<String>, IdpError> {
    let own = keycloak.admin.own().await.map_err(idp)?;
    let less = if own.roles.is_empty() {
        Vec::new()
    } else {
        lacking(&own)
    };
    Ok(told_of(&less, &keycloak.settings.client_id))
}

/// Whether it answers, our roles are right, the log is on and the realm is wired.
pub(super) async fn health(keycloak: &Keycloak) -> Result<Vec<String>, IdpError> {
    let own = keycloak.admin.own().await.map_err(idp)?;
    let mut faults = Vec::new();
    let client = &keycloak.settings.client_id;
    faults.extend(light(&own, client));
    let less = if own.roles.is_empty() {
        Vec::new()
    } else {
        lacking(&own)
    };
    faults.extend(told_of(&less, client));
    let known = |role: &&String| ROLES.contains(&role.as_str()) || HARMLESS.contains(&role.as_str());
    let more: Vec<&str> = own
        .roles
        .iter()
        .filter(|role| !known(role))
        .map(String::as_str)
        .collect();
    if !more.is_empty() {
        faults.push(format!(
            "the service account of `{client}` may do more than it needs: take {} of realm-management away",
            more.join(", ")
        ));
    }
    let ahead = keycloak.ahead(&own);
    if ahead.abs() > Span::from_mins(1) {
        faults.push(format!(
            "Keycloak's clock differs from ours by {}: set both by NTP; until then holds start when we hear of a change",
            Span::from_secs(ahead.secs())
        ));
    }
    match keycloak.admin.events_config().await {
        Ok(config) => {
            faults.extend(config_faults(&config, keycloak.settings.retention));
            if config.admin_events_enabled && !config.admin_events_details_enabled {
                faults.push(
                    "admin events are stored without what was sent: tampering is seen, but not what was done; `reentry wire keycloak` switches it on"
                        .to_owned(),
                );
            }
        }
        // The token still names a role that was taken away a moment ago: what is refused, counts.
        Err(AdminError::Forbidden { .. }) if less.is_empty() => faults.push(format!(
            "the service account of `{client}` may not read events any more: grant view-events of realm-management"
        )),
        Err(AdminError::Forbidden { .. }) => {}
        Err(error) => return Err(idp(error)),
    }
    match act::layout(keycloak).await {
        Ok(layout) => faults.extend(layout.faults()),
        Err(IdpError::Refused(_)) if !less.is_empty() => {}
        Err(error) => return Err(error),
    }
    Ok(faults)
}
