//! Reading the realm's logs.

use serde_json::{Map, Value};

use super::text::Rows;
use super::{Admin, AdminError};
use crate::idp::keycloak::events::account_of;
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
    /// Path relative to the realm; `*` at the end stands for anything. Keycloak takes `_` and `%` for wildcards as well:
    /// what it answers beside the path is left out.
    pub resource_path: Option<String>,
    /// Everything about one account, by its id.
    pub account: Option<String>,
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

impl AdminEventQuery {
    /// Whether a line that was read for a wider question is one of those that this asks for.
    pub(in crate::idp::keycloak) fn asks_for(&self, act: &AdminEvent) -> bool {
        let among = |wanted: &[String], one: &str| wanted.is_empty() || wanted.iter().any(|w| w == one);
        let actor = act.auth_details.user_id.as_deref();
        self.is_about(act.resource_path.as_deref().unwrap_or_default())
            && self.actor.as_deref().is_none_or(|wanted| actor == Some(wanted))
            && among(&self.operation_types, &act.operation_type)
            && among(
                &self.resource_types,
                act.resource_type.as_deref().unwrap_or_default(),
            )
            && self.from_ms.is_none_or(|from| act.time >= from)
    }

    /// Whether a path is what was asked for, and not only like it.
    fn is_about(&self, path: &str) -> bool {
        let named = self.account.as_deref();
        let right_account = named.is_none_or(|id| account_of(path).is_some_and(|(found, _)| found == id));
        let right_path = self.resource_path.as_deref().is_none_or(|wanted| {
            wanted
                .strip_suffix('*')
                .map_or(path == wanted, |begin| path.starts_with(begin))
        });
        right_account && right_path
    }
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
    /// One page of user events, every row of which has to be readable. Role: `view-events`.
    ///
    /// # Errors
    /// [`AdminError`]; an unknown type name is [`AdminError::Unexpected`].
    pub async fn events(&self, wanted: &EventQuery) -> Result<Vec<Event>, AdminError> {
        self.events_page(wanted).await?.all("GET events")
    }

    /// One page of user events, with what could not be read of it.
    ///
    /// # Errors
    /// As [`Admin::events`].
    pub async fn events_page(&self, wanted: &EventQuery) -> Result<Rows<Event>, AdminError> {
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
        let rows: Rows<Event> = self.rows(&["events"], query).await?;
        let asked = wanted.user.as_deref();
        // What is left out of another's answer would be missing from this one's story.
        if asked.is_some() && rows.read.iter().any(|event| event.user_id.as_deref() != asked) {
            return Err(AdminError::Malformed {
                what: "GET events".to_owned(),
                reason: "the answer is about another user".to_owned(),
            });
        }
        Ok(rows)
    }

    /// One page of admin events, every row of which has to be readable. Role: `view-events`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn admin_events(&self, wanted: &AdminEventQuery) -> Result<Vec<AdminEvent>, AdminError> {
        self.admin_events_page(wanted).await?.all("GET admin-events")
    }

    /// One page of admin events, with what could not be read of it. What the server answers beside the account or the
    /// path is left out, and still counts for the length of the page.
    ///
    /// # Errors
    /// As [`Admin::admin_events`].
    pub async fn admin_events_page(&self, wanted: &AdminEventQuery) -> Result<Rows<AdminEvent>, AdminError> {
        let mut query: Vec<(&str, String)> = Vec::new();
        let of_account = wanted.account.as_ref().map(|id| format!("users/{id}*"));
        let path = wanted.resource_path.clone().or(of_account);
        query.extend(path.map(|path| ("resourcePath", path)));
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
        let mut rows: Rows<AdminEvent> = self.rows(&["admin-events"], query).await?;
        rows.keep(|event| wanted.is_about(event.resource_path.as_deref().unwrap_or_default()));
        Ok(rows)
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

#[cfg(test)]
mod tests {
    use super::*;

    // Keycloak answers `a_c` with the lines of `abc`, and `bob` with those of `bobby`.
    #[test]
    fn what_is_only_like_the_path_is_left_out() {
        let account = |id: &str| AdminEventQuery {
            account: Some(id.to_owned()),
            ..AdminEventQuery::default()
        };
        for (id, path, about) in [
            ("f:1:bob", "users/f:1:bob", true),
            ("f:1:bob", "users/f:1:bob/reset-password", true),
            ("f:1:bob", "users/f:1:bobby", false),
            ("f:1:bob", "users/f:1:bobby/reset-password", false),
            ("a_c", "users/abc/reset-password", false),
            ("a", "users/a/b/reset-password", false),
            ("a/b", "users/a/b/reset-password", true),
        ] {
            assert_eq!(account(id).is_about(path), about, "{id} {path}");
        }
        let below = |path: &str| AdminEventQuery {
            resource_path: Some(path.to_owned()),
            ..AdminEventQuery::default()
        };
        assert!(below("users/a_c").is_about("users/a_c"));
        assert!(!below("users/a_c").is_about("users/abc"));
        assert!(below("users/a_c/role-mappings/clients/*").is_about("users/a_c/role-mappings/clients/x"));
        assert!(!below("users/a_c/role-mappings/clients/*").is_about("users/abc/role-mappings/clients/x"));
    }
}
