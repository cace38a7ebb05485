//! Reading the realm's logs.

use serde_json::{Map, Value};

use super::{Admin, AdminError};
use crate::idp::keycloak::representations::{AdminEvent, Event, EventsConfig};

/// Order of a log page by time; ties are in undefined order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first (from Keycloak 26.2 on).
    Ascending,
    /// Newest first, the server's default.
    #[default]
    Descending,
}

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Self::Ascending => "asc",
            Self::Descending => "desc",
        }
    }
}

/// Which user events to read. There is no upper time: `dateTo` was broken in 26.2.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Types; empty = all. The server fails on a name it does not know.
    pub types: Vec<String>,
    /// One user only.
    pub user: Option<String>,
    /// One client only (`client_id`).
    pub client: Option<String>,
    /// Not before this instant (inclusive), in milliseconds since the epoch.
    pub from_ms: Option<i64>,
    /// Order.
    pub direction: Direction,
    /// Rows to skip.
    pub first: u32,
    /// Largest number of rows; 0 = the server's default of 100.
    pub max: u32,
}

/// Which admin events to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminEventQuery {
    /// Path relative to the realm; `*` stands for anything: `users/{id}*`.
    pub resource_path: Option<String>,
    /// Acts of one user only (its id).
    pub actor: Option<String>,
    /// `CREATE`, `UPDATE`, `DELETE`, `ACTION`; empty = all.
    pub operation_types: Vec<String>,
    /// Such as `USER`; empty = all.
    pub resource_types: Vec<String>,
    /// Not before this instant (inclusive), in milliseconds since the epoch.
    pub from_ms: Option<i64>,
    /// Order.
    pub direction: Direction,
    /// Rows to skip.
    pub first: u32,
    /// Largest number of rows; 0 = the server's default of 100.
    pub max: u32,
}

fn paging(query: &mut Vec<(&str, String)>, from_ms: Option<i64>, direction: Direction, first: u32, max: u32) {
    if let Some(from) = from_ms {
        query.push(("dateFrom", from.to_string()));
    }
    query.push(("direction", direction.word().to_owned()));
    if first > 0 {
        query.push(("first", first.to_string()));
    }
    if max > 0 {
        query.push(("max", max.to_string()));
    }
}

impl Admin {
    /// One page of user events. Role: `view-events`.
    ///
    /// # Errors
    /// [`AdminError`]; an unknown type name is [`AdminError::Unexpected`].
    pub async fn events(&self, wanted: &EventQuery) -> Result<Vec<Event>, AdminError> {
        let mut query: Vec<(&str, String)> = wanted.types.iter().map(|kind| ("type", kind.clone())).collect();
        query.extend(wanted.user.iter().map(|user| ("user", user.clone())));
        query.extend(wanted.client.iter().map(|client| ("client", client.clone())));
        paging(
            &mut query,
            wanted.from_ms,
            wanted.direction,
            wanted.first,
            wanted.max,
        );
        self.get_with(&["events"], query).await
    }

    /// One page of admin events. Role: `view-events`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn admin_events(&self, wanted: &AdminEventQuery) -> Result<Vec<AdminEvent>, AdminError> {
        let mut query: Vec<(&str, String)> = Vec::new();
        query.extend(
            wanted
                .resource_path
                .iter()
                .map(|path| ("resourcePath", path.clone())),
        );
        query.extend(wanted.actor.iter().map(|actor| ("authUser", actor.clone())));
        query.extend(
            wanted
                .operation_types
                .iter()
                .map(|kind| ("operationTypes", kind.clone())),
        );
        query.extend(
            wanted
                .resource_types
                .iter()
                .map(|kind| ("resourceTypes", kind.clone())),
        );
        paging(
            &mut query,
            wanted.from_ms,
            wanted.direction,
            wanted.first,
            wanted.max,
        );
        self.get_with(&["admin-events"], query).await
    }

    /// What the realm records. Role: `view-events`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn events_config(&self) -> Result<EventsConfig, AdminError> {
        self.get(&["events", "config"]).await
    }

    /// Sets some of what the realm records; the other members stay as they are. Role:
    /// `manage-events`; set-up only. Seen on 26.7.4: a PUT without `eventsEnabled` switches events
    /// off and one without `eventsExpiration` keeps them for ever, so all members go back. The types
    /// do not unless asked for: a GET fills an empty list in, and a PUT would freeze it.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn patch_events_config(&self, members: &Map<String, Value>) -> Result<(), AdminError> {
        let mut config: Map<String, Value> = self.get(&["events", "config"]).await?;
        config.remove("enabledEventTypes");
        config.extend(members.clone());
        self.send(reqwest::Method::PUT, &["events", "config"], &config)
            .await
    }
}
