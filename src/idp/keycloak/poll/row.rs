//! A row of either log, as far as paging needs it: when, whom it concerns, how pressing it is.

use crate::idp::keycloak::admin::text::Strange;
use crate::idp::keycloak::events::{self, AdminAct};
use crate::idp::keycloak::representations::{AdminEvent, Event};

/// A row of either log.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) time: i64,
    /// Whom it concerns; nobody when we did it.
    pub(super) sub: Option<String>,
    /// It tells of a credential, or of what a person did.
    pub(super) pressing: bool,
}

pub(super) fn user_row(event: &Event) -> Row {
    Row {
        id: events::id(event),
        time: event.time,
        sub: event.user_id.clone().filter(|_| !is_ending(event)),
        pressing: true,
    }
}

/// Whether it says only that something has ended: the account need not be read for that.
fn is_ending(event: &Event) -> bool {
    events::ENDING.contains(&event.kind.as_str())
}

pub(super) fn admin_row(event: &AdminEvent, own: Option<&str>) -> Row {
    let act = events::admin_act(event).filter(|(_, act)| !events::is_own(event, act, own));
    let act = act.filter(|(_, act)| !matches!(act, AdminAct::Deleted | AdminAct::SignedOut));
    let pressing = matches!(
        act,
        Some((
            _,
            AdminAct::SetPassword
                | AdminAct::RemovedCredential(_)
                | AdminAct::Linked(_)
                | AdminAct::Unlinked(_)
        ))
    );
    Row {
        pressing,
        id: events::admin_id(event),
        time: event.time,
        sub: act.map(|(sub, _)| sub.to_owned()),
    }
}

/// A line that cannot be understood: whatever of it can be.
pub(super) fn strange_row(strange: &Strange, start: i64) -> Row {
    let text = |name: &str| strange.row.get(name).and_then(serde_json::Value::as_str);
    let time = strange.row.get("time").and_then(serde_json::Value::as_i64);
    let of_admin = || Some(events::account_of(text("resourcePath")?)?.0);
    Row {
        id: text("id").map_or_else(|| format!("strange:{:?}", strange.row), str::to_owned),
        time: time.unwrap_or(start),
        sub: text("userId").or_else(of_admin).map(str::to_owned),
        pressing: true,
    }
}
