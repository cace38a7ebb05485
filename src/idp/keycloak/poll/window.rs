//! Reading one account's window of both logs, and judging it.

use futures_util::future::{join, try_join3};

use super::whole;
use crate::domain::time::{Span, Timestamp};
use crate::idp::keycloak::absent::{found, there};
use crate::idp::keycloak::account::Logs;
use crate::idp::keycloak::act::Layout;
use crate::idp::keycloak::events::AdminAct;
use crate::idp::keycloak::representations::AdminEvent;
use crate::idp::keycloak::story::{self, Rules, What, Whole, Window};
use crate::idp::keycloak::{Keycloak, account, act, events, watch};
use crate::ports::idp::{Heard, IdpError, Line, Reading};

/// An account's lines, judged: when, the event's id, the line.
pub(super) type Judged = Vec<(i64, String, Line)>;

/// When an account is looked at, by our clock, and how far the server's is ahead.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) received: Timestamp,
    pub(super) ahead: Span,
}

impl At {
    pub(super) const fn new(received: Timestamp, ahead: Span) -> Self {
        Self { received, ahead }
    }
}

/// One account's lines, and its reading, which is no older than they are. An account that is gone has no lines.
pub(super) async fn observe(
    keycloak: &Keycloak,
    sub: &str,
    rules: &Rules,
    At { received, ahead }: At,
    since: Timestamp,
) -> Result<(Judged, Result<Reading, IdpError>), IdpError> {
    let (mut window, reading) = match window(keycloak, sub, since).await {
        Err(IdpError::UnknownSubject) => return Ok((Vec::new(), Err(IdpError::UnknownSubject))),
        other => other?,
    };
    let mut told = story::judge(&window, rules, received, ahead);
    // Whether the logs are whole is asked only where something depends on it.
    window.whole = Some(Whole::assumed());
    if story::judge(&window, rules, received, ahead) != told {
        window.whole = whole::read(keycloak, received.plus(ahead)).await?;
        told = story::judge(&window, rules, received, ahead);
    }
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
    Ok((told.into_iter().map(line).collect(), reading))
}

/// One account, read once: what its story is judged from, and its reading. The logs come first, so that neither is older
/// than a line of them.
async fn window(
    keycloak: &Keycloak,
    sub: &str,
    since: Timestamp,
) -> Result<(Window, Result<Reading, IdpError>), IdpError> {
    let admin = &keycloak.admin;
    let settings = &keycloak.settings;
    let reach = [
        settings.enrolment,
        settings.probation,
        settings.admin_lifespan,
        settings.reset_lifespan,
    ]
    .into_iter()
    .max();
    let from = since.minus(reach.unwrap_or_default()).millis();
    let logs = found(keycloak, sub, Logs::read(keycloak, sub, Some(from)).await).await?;
    let itself = try_join3(admin.user(sub), admin.credentials(sub), admin.sessions(sub));
    let (itself, beside) = join(itself, account::beside(keycloak, sub, &logs)).await;
    let (user, credentials, sessions) = found(keycloak, sub, itself).await?;
    there(keycloak, sub).await;
    let (events, admin_events) = logs.since(from);
    let edited = |event: &AdminEvent| matches!(events::admin_act(event), Some((_, AdminAct::Edited)));
    let former = if admin_events.iter().any(edited) {
        found(keycloak, sub, account::former(keycloak, &logs).await).await?
    } else {
        Vec::new()
    };
    let factors = credentials
        .iter()
        .filter(|credential| events::is_factor(&credential.kind));
    let window = Window {
        former,
        created: user.created_timestamp.unwrap_or_default(),
        events,
        admin: admin_events,
        credentials: factors.cloned().collect(),
        sessions: sessions
            .into_iter()
            .map(|session| (session.id, session.start))
            .collect(),
        whole: None,
    };
    let reading = match beside {
        Ok(beside) => account::reading(keycloak, (user, credentials), beside, sub).await,
        Err(error) => Err(error),
    };
    Ok((window, reading))
}
