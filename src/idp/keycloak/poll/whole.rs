//! For which times both logs are whole, as Keycloak itself shows it: what they record now, how old their oldest lines are,
//! and when somebody changed what is recorded. Nothing of ours is needed for it, so every replica finds the same.
//!
//! A log that was cleared has no old lines, and one that was switched off for a while was changed. Our own log-ins are
//! lines too, so that a realm where nobody else signs in has some.

use futures_util::future::try_join5;
use serde_json::Value;

use crate::domain::time::{Span, Timestamp};
use crate::idp::keycloak::admin::{AdminEventQuery, Direction, EventQuery};
use crate::idp::keycloak::health::config_faults;
use crate::idp::keycloak::representations::AdminEvent;
use crate::idp::keycloak::story::Whole;
use crate::idp::keycloak::{Keycloak, events, idp};
use crate::ports::idp::IdpError;

/// Acts on the realm itself that are looked at, the latest ones.
const EDITS: u32 = 200;
/// The oldest lines that are asked for: the first of them that can be read counts.
const OLDEST: u32 = 10;
/// No log is asked for what is older.
const BACK: Span = Span::from_days(400);

/// Reads it; `clock` is now by the server's clock. `None` while the logs do not record what is needed.
pub(super) async fn read(keycloak: &Keycloak, clock: Timestamp) -> Result<Option<Whole>, IdpError> {
    let from_ms = Some(clock.minus(BACK).millis());
    let oldest = EventQuery {
        from_ms,
        direction: Direction::Ascending,
        max: OLDEST,
        ..EventQuery::default()
    };
    let oldest_act = AdminEventQuery {
        from_ms,
        direction: Direction::Ascending,
        max: OLDEST,
        ..AdminEventQuery::default()
    };
    let settings = AdminEventQuery {
        resource_path: Some("events/config".to_owned()),
        from_ms,
        direction: Direction::Descending,
        max: EDITS,
        ..AdminEventQuery::default()
    };
    let saved = AdminEventQuery {
        operation_types: vec!["UPDATE".to_owned()],
        resource_types: vec!["REALM".to_owned()],
        from_ms,
        direction: Direction::Descending,
        max: EDITS,
        ..AdminEventQuery::default()
    };
    let admin = &keycloak.admin;
    let (config, user, act, settings, saved) = try_join5(
        admin.events_config(),
        admin.events_page(&oldest),
        admin.admin_events_page(&oldest_act),
        admin.admin_events_page(&settings),
        admin.admin_events_page(&saved),
    )
    .await
    .map_err(idp)?;
    // What cannot be read may be anything.
    let read = settings.strange.is_empty() && saved.strange.is_empty();
    let records = config_faults(&config, keycloak.settings.retention).is_empty();
    let begin = user
        .read
        .first()
        .zip(act.read.first())
        .filter(|_| read && records);
    let edits = settings
        .read
        .iter()
        .chain(saved.read.iter().filter(|act| is_edit(act)));
    Ok(begin.map(|(user, act)| Whole {
        since: user.time.max(act.time),
        edits: edits.map(|act| act.time).collect(),
    }))
}

/// Whether an act may have changed what is recorded: not one that shows the whole realm with both logs on, as every
/// saving of it does.
fn is_edit(act: &AdminEvent) -> bool {
    let sent = act.representation.as_deref().unwrap_or_default();
    let Ok(sent) = serde_json::from_str::<Value>(sent) else {
        return true;
    };
    let off = |name: &str| sent.get(name) == Some(&Value::Bool(false));
    let types = sent.get("enabledEventTypes").and_then(Value::as_array);
    let lacks = |needed: &&str| {
        types.is_some_and(|types| !types.is_empty() && !types.iter().any(|kind| kind == *needed))
    };
    off("eventsEnabled") || off("adminEventsEnabled") || events::NEEDED.iter().any(lacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_change_the_logs_is_an_edit_of_them() {
        let edit = |sent: &str| {
            let act = serde_json::json!({"time": 1, "operationType": "UPDATE", "representation": sent});
            is_edit(&serde_json::from_value(act).unwrap())
        };
        assert!(!edit(r#"{"displayName":"x"}"#));
        assert!(!edit(
            r#"{"eventsEnabled":true,"adminEventsEnabled":true,"enabledEventTypes":[]}"#
        ));
        assert!(edit(r#"{"eventsEnabled":false}"#));
        assert!(edit(r#"{"adminEventsEnabled":false}"#));
        assert!(edit(r#"{"eventsEnabled":true,"enabledEventTypes":["LOGIN"]}"#));
        assert!(edit(""), "nobody knows what was sent");
    }
}
