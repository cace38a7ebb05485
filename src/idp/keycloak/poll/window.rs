//! Reading one account's window of both logs, and judging it.

use futures_util::future::{try_join, try_join3};

use crate::domain::time::{Span, Timestamp};
use crate::idp::keycloak::act::Layout;
use crate::idp::keycloak::admin::{AdminError, AdminEventQuery, Direction, EventQuery};
use crate::idp::keycloak::events::AdminAct;
use crate::idp::keycloak::representations::{AdminEvent, Event};
use crate::idp::keycloak::story::{self, Rules, What, Window};
use crate::idp::keycloak::{Keycloak, account, act, events, of_account, watch};
use crate::ports::idp::{Heard, IdpError, Line};

/// Rows per page of one account's window.
const WINDOW_PAGE: u32 = 500;
/// Most pages of one account's window. One that goes on behind them is not judged by half of it: it cannot be read.
const WINDOW_PAGES: u32 = 60;

/// One account's lines, judged: when, the event's id, the line. An account that is gone has none.
pub(super) async fn lines(
    keycloak: &Keycloak,
    sub: &str,
    rules: &Rules,
    received: Timestamp,
    ahead: Span,
    since: Timestamp,
) -> Result<Vec<(i64, String, Line)>, IdpError> {
    let window = match window(keycloak, sub, since).await {
        Err(IdpError::UnknownSubject) => return Ok(Vec::new()),
        other => other?,
    };
    let told = story::judge(&window, rules, received, ahead);
    let moved = told.iter().any(|line| matches!(line.what, What::Moved { .. }));
    let ours = if moved {
        act::layout(keycloak).await?
    } else {
        Layout::default()
    };
    let line = |told: story::Told| {
        let id = told.event.clone();
        let heard = match told.what {
            What::Change(change) => Heard::Change(*change),
            What::Touched => Heard::Touched { id },
            // Other roles and groups are their administrators' business, but tiers depend on them, and what they bring
            // is judged by its effect.
            What::Moved { what, group } => {
                let event = window.admin.iter().find(|event| events::admin_id(event) == id);
                let own = event.is_some_and(|event| event.auth_details.user_id.as_deref() == Some(sub));
                let of_ours = group.is_some_and(|group| ours.is_ours(&group))
                    || event.is_some_and(|event| watch::names_ours(event, &ours));
                if of_ours {
                    Heard::Tampered { id, what, own }
                } else {
                    Heard::Touched { id }
                }
            }
        };
        (
            told.time,
            told.event,
            Line {
                sub: sub.to_owned(),
                heard,
            },
        )
    };
    Ok(told.into_iter().map(line).collect())
}

/// Reads what one account's story is judged from.
async fn window(keycloak: &Keycloak, sub: &str, since: Timestamp) -> Result<Window, IdpError> {
    let admin = &keycloak.admin;
    let settings = &keycloak.settings;
    let reach = [settings.enrolment, settings.probation, settings.admin_lifespan]
        .into_iter()
        .max();
    let from = since.minus(reach.unwrap_or_default()).millis();
    let types: Vec<&str> = events::TELLING.into_iter().chain(events::TELLING_TOO).collect();
    let query = EventQuery {
        types: keycloak.known(&types).await?,
        user: Some(sub.to_owned()),
        from_ms: Some(from),
        direction: Direction::Descending,
        max: WINDOW_PAGE,
        ..EventQuery::default()
    };
    let admin_query = AdminEventQuery {
        account: Some(sub.to_owned()),
        from_ms: Some(from),
        direction: Direction::Descending,
        max: WINDOW_PAGE,
        ..AdminEventQuery::default()
    };
    let standing = try_join(admin.credentials(sub), admin.sessions(sub));
    let logs = try_join(
        all_events(keycloak, query),
        all_admin_events(keycloak, admin_query),
    );
    let (user, (credentials, sessions), (events, admin_events)) = try_join3(admin.user(sub), standing, logs)
        .await
        .map_err(of_account)?;
    let edited = |event: &AdminEvent| matches!(events::admin_act(event), Some((_, AdminAct::Edited)));
    let former = if admin_events.iter().any(edited) {
        account::former(keycloak, sub).await?
    } else {
        Vec::new()
    };
    let window = Window {
        former,
        created: user.created_timestamp.unwrap_or_default(),
        events,
        admin: admin_events,
        credentials: credentials
            .into_iter()
            .filter(|credential| events::is_factor(&credential.kind))
            .collect(),
        sessions: sessions
            .into_iter()
            .map(|session| (session.id, session.start))
            .collect(),
    };
    Ok(window)
}

async fn all_events(keycloak: &Keycloak, mut query: EventQuery) -> Result<Vec<Event>, AdminError> {
    let mut all = Vec::new();
    for page in 0..WINDOW_PAGES {
        query.first = page * WINDOW_PAGE;
        let rows = keycloak.admin.events_page(&query).await?;
        let last = rows.len() < WINDOW_PAGE as usize;
        all.extend(rows.all("GET events")?);
        if last {
            return Ok(all);
        }
    }
    Err(endless("events"))
}

async fn all_admin_events(
    keycloak: &Keycloak,
    mut query: AdminEventQuery,
) -> Result<Vec<AdminEvent>, AdminError> {
    let mut all = Vec::new();
    for page in 0..WINDOW_PAGES {
        query.first = page * WINDOW_PAGE;
        let rows = keycloak.admin.admin_events_page(&query).await?;
        let last = rows.len() < WINDOW_PAGE as usize;
        all.extend(rows.all("GET admin-events")?);
        if last {
            return Ok(all);
        }
    }
    Err(endless("admin-events"))
}

fn endless(log: &str) -> AdminError {
    AdminError::Malformed {
        what: format!("GET {log}"),
        reason: format!("more than {} lines about one account", WINDOW_PAGES * WINDOW_PAGE),
    }
}
