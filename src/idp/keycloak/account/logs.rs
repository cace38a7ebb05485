//! What both logs tell of one account. Each is read once and answers every question that is asked of it: the story that is
//! judged, the ages of addresses and of logins at other providers, the roles that administrators gave. Only of an account
//! with more lines than a page holds are older lines asked for one question at a time.

use futures_util::future::try_join;

use crate::idp::keycloak::admin::text::{Rows, Strange};
use crate::idp::keycloak::admin::{AdminError, AdminEventQuery, Direction, EventQuery};
use crate::idp::keycloak::representations::{AdminEvent, Event};
use crate::idp::keycloak::{Keycloak, events};

/// Rows per page.
const PAGE: u32 = 500;
/// Most pages that reach back to where a story begins. One that goes on behind them is not judged by half of it: the
/// account cannot be read.
const PAGES: u32 = 60;
/// Rows that are searched for the history of an account's addresses.
const HISTORY: u32 = 200;

/// User events that link a login at another provider.
pub const LINKED: [&str; 2] = ["FEDERATED_IDENTITY_LINK", "FEDERATED_IDENTITY_OVERRIDE_LINK"];
/// User events that tell of addresses and of logins at other providers.
const TELLS_OF_CONTACTS: [&str; 5] = [
    "UPDATE_EMAIL",
    "UPDATE_PROFILE",
    "VERIFY_EMAIL",
    LINKED[0],
    LINKED[1],
];

/// The lines of both logs about one account, the newest first.
pub struct Logs {
    sub: String,
    /// As far back as any log of user events is read, in milliseconds by Keycloak's clock. A query without a bound walks
    /// through years of log-ins.
    back: i64,
    events: Told<Event>,
    acts: Told<AdminEvent>,
}

/// Lines of one log.
struct Told<T> {
    lines: Vec<T>,
    /// There are no older ones of those that were asked for.
    whole: bool,
}

impl Logs {
    /// Reads both: what a story since `from` is judged by (an instant by Keycloak's clock, in milliseconds), or just what
    /// an account's own reading needs.
    pub async fn read(keycloak: &Keycloak, sub: &str, from: Option<i64>) -> Result<Self, AdminError> {
        let back = keycloak.clock.now().minus(keycloak.settings.back_fill).millis();
        let types: Vec<&str> = match from {
            Some(_) => events::TELLING.into_iter().chain(events::TELLING_TOO).collect(),
            None => TELLS_OF_CONTACTS.to_vec(),
        };
        let query = EventQuery {
            types: keycloak.known(&types).await?,
            user: Some(sub.to_owned()),
            from_ms: Some(from.map_or(back, |from| from.min(back))),
            direction: Direction::Descending,
            max: PAGE,
            ..EventQuery::default()
        };
        // Administrators' acts on one account are few, and a role that was given long ago still counts.
        let act_query = AdminEventQuery {
            account: Some(sub.to_owned()),
            direction: Direction::Descending,
            max: PAGE,
            ..AdminEventQuery::default()
        };
        let admin = &keycloak.admin;
        let events = pages(
            "events",
            from,
            |event: &Event| event.time,
            |first| {
                let query = EventQuery {
                    first,
                    ..query.clone()
                };
                async move { admin.events_page(&query).await }
            },
        );
        let acts = pages(
            "admin-events",
            from,
            |act: &AdminEvent| act.time,
            |first| {
                let query = AdminEventQuery {
                    first,
                    ..act_query.clone()
                };
                async move { admin.admin_events_page(&query).await }
            },
        );
        let (events, acts) = try_join(events, acts).await?;
        Ok(Self {
            sub: sub.to_owned(),
            back,
            events,
            acts,
        })
    }

    /// The story since `from`, for which they were read.
    pub fn since(&self, from: i64) -> (Vec<Event>, Vec<AdminEvent>) {
        let events = self.events.lines.iter().filter(|event| event.time >= from);
        let acts = self.acts.lines.iter().filter(|act| act.time >= from);
        (events.cloned().collect(), acts.cloned().collect())
    }

    /// What tells of the account's addresses and of its logins at other providers.
    pub async fn contacts(&self, keycloak: &Keycloak) -> Result<(Vec<Event>, Vec<AdminEvent>), AdminError> {
        let edits = AdminEventQuery {
            resource_path: Some(format!("users/{}", self.sub)),
            from_ms: Some(self.back),
            direction: Direction::Descending,
            max: HISTORY,
            ..AdminEventQuery::default()
        };
        try_join(self.contact_events(keycloak), self.acts(keycloak, &edits)).await
    }

    async fn contact_events(&self, keycloak: &Keycloak) -> Result<Vec<Event>, AdminError> {
        if self.events.whole {
            let tells =
                |event: &&Event| event.time >= self.back && TELLS_OF_CONTACTS.contains(&event.kind.as_str());
            let lines = self.events.lines.iter().filter(tells);
            return Ok(lines.take(HISTORY as usize).cloned().collect());
        }
        let query = EventQuery {
            types: keycloak.known(&TELLS_OF_CONTACTS).await?,
            user: Some(self.sub.clone()),
            from_ms: Some(self.back),
            direction: Direction::Descending,
            max: HISTORY,
            ..EventQuery::default()
        };
        keycloak.admin.events(&query).await
    }

    /// The lines about this account that `query` asks for, the newest first.
    pub async fn acts(
        &self,
        keycloak: &Keycloak,
        query: &AdminEventQuery,
    ) -> Result<Vec<AdminEvent>, AdminError> {
        if !self.acts.whole {
            return keycloak.admin.admin_events(query).await;
        }
        let lines = self.acts.lines.iter().filter(|act| query.asks_for(act));
        Ok(lines.take(query.max as usize).cloned().collect())
    }
}

/// Reads one log, page by page, back to `from`; the newest page without it. A line that cannot be understood is an error
/// where a story depends on it. An older one is left out, and other questions are asked by themselves then.
async fn pages<T, F>(
    log: &str,
    from: Option<i64>,
    time: impl Fn(&T) -> i64,
    page: impl Fn(u32) -> F,
) -> Result<Told<T>, AdminError>
where
    F: Future<Output = Result<Rows<T>, AdminError>>,
{
    let malformed = |reason: String| AdminError::Malformed {
        what: format!("GET {log}"),
        reason,
    };
    let in_story = |strange: &&Strange| {
        let time = strange.row.get("time").and_then(serde_json::Value::as_i64);
        from.is_some_and(|from| time.is_none_or(|time| time >= from))
    };
    let (mut lines, mut understood) = (Vec::new(), true);
    for number in 0..PAGES {
        let rows = page(number * PAGE).await?;
        let end = rows.len() < PAGE as usize;
        if let Some(strange) = rows.strange.iter().find(in_story) {
            return Err(malformed(strange.why.clone()));
        }
        understood &= rows.strange.is_empty();
        lines.extend(rows.read);
        let far = from.is_none_or(|from| lines.last().is_some_and(|line| time(line) < from));
        if end || far {
            let whole = end && understood;
            return Ok(Told { lines, whole });
        }
    }
    Err(malformed(format!(
        "more than {} lines about one account",
        PAGES * PAGE
    )))
}
