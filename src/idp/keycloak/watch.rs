//! What others do to the realm that holds rest on: groups, roles, client scopes and what clients take of them.
//!
//! A line of the log of admin events is judged by its path, never by what is in its text: an ordinary save of a client
//! sends everything that the client is, and the lines that take a scope off a client or edit a mapper carry ids and
//! nothing else. What the ids stand for `wire` wrote down (`wire::noted`), since the run-time account may not look them
//! up. Where it did not, what was sent speaks as far as it can.
//!
//! What such a line may have done to accounts that are held is not guessed: they are compared with their records at once,
//! and where our account may view clients, what every client would issue is asked from the server.

mod evaluate;
mod lines;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::lines::Line as Judged;
use super::act::{self, Layout};
use super::admin::text;
use super::representations::{AdminEvent, EventsConfig, Role};
use super::{Keycloak, administrators, events};
use crate::domain::time::{Span, Timestamp};
use crate::ports::idp::{Heard, Line};

/// What was last known of the realm; stands in the poller's cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    /// Our groups: path and id.
    groups: BTreeMap<String, String>,
    /// Admin events told what was sent.
    details: bool,
}

/// What a look brought.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Faults that stand.
    pub(super) alarms: Vec<String>,
    /// Changes to what holds rest on.
    pub(super) drifted: Vec<String>,
    /// Held accounts may no longer be held.
    pub(super) doubt: bool,
}

/// Lines by others about something else than an account, that did what they say.
fn by_others<'a>(
    fresh: &'a [&'a AdminEvent],
    own: Option<&'a str>,
) -> impl Iterator<Item = &'a AdminEvent> + 'a {
    let others = move |event: &&AdminEvent| {
        event.error.is_none() && (own.is_none() || event.auth_details.user_id.as_deref() != own)
    };
    fresh.iter().copied().filter(others)
}

fn path(event: &AdminEvent) -> Vec<&str> {
    let path = event.resource_path.as_deref().unwrap_or_default();
    path.split('/').collect()
}

/// Names and ids of roles that were sent.
fn roles(event: &AdminEvent) -> Vec<Role> {
    let sent = event.representation.as_deref().unwrap_or_default();
    text::read(sent.as_bytes()).unwrap_or_default()
}

/// Whether what was sent for an account names a role that decides what it is issued in a hold.
pub(super) fn names_ours(event: &AdminEvent, layout: &Layout) -> bool {
    let group = || {
        let sent = event.representation.as_deref().unwrap_or_default();
        let sent: serde_json::Value = text::read(sent.as_bytes()).unwrap_or_default();
        let path = sent
            .get("path")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        layout.groups().contains_key(path)
    };
    roles(event).iter().any(|role| layout.decides(&role.name)) || group()
}

/// Whether a line is about our own service account.
pub(super) fn names_us(fresh: &[&AdminEvent], own: Option<&str>) -> bool {
    let ours =
        |event: &&AdminEvent| matches!(path(event).as_slice(), ["users", sub, ..] if Some(*sub) == own);
    fresh.iter().any(ours)
}

/// What accounts did with an administrator's rights; whether they are held, the caller knows. What they did to
/// themselves the account's own line tells.
pub(super) fn acted(fresh: &[&AdminEvent], own: Option<&str>, ahead: Span) -> Vec<(i64, String, Line)> {
    let line = |event: &AdminEvent| {
        let author = event.auth_details.user_id.as_deref()?;
        let path = path(event);
        let gives = || {
            let roles = roles(event);
            roles.iter().any(|role| administrators::undoes(&role.name))
        };
        let made = match (event.operation_type.as_str(), path.as_slice()) {
            (_, ["users", sub, "groups" | "role-mappings", ..]) if *sub == author => return None,
            ("CREATE", ["users", sub]) => Some(*sub),
            ("CREATE", ["users", sub, "role-mappings", "clients", _]) if gives() => Some(*sub),
            _ => None,
        };
        let id = events::admin_id(event);
        let heard = Heard::Acted {
            id: id.clone(),
            what: said(event),
            at: Timestamp::from_millis(event.time).minus(ahead),
            made: made.map(str::to_owned),
        };
        let sub = author.to_owned();
        Some((event.time, id, Line { sub, heard }))
    };
    by_others(fresh, own).filter_map(line).collect()
}

/// What was done, for people.
fn said(event: &AdminEvent) -> String {
    let path = event.resource_path.as_deref().unwrap_or_default();
    let sent = event.representation.as_deref().unwrap_or_default();
    let sent: serde_json::Value = text::read(sent.as_bytes()).unwrap_or_default();
    let list = match &sent {
        serde_json::Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let name = |of: &serde_json::Value| {
        let members = ["path", "username", "clientId", "name", "alias"];
        let text = members.into_iter().find_map(|member| of.get(member)?.as_str());
        text.map(str::to_owned)
    };
    let names: Vec<String> = list.iter().filter_map(name).take(10).collect();
    format!("{} {path} {}", event.operation_type, names.join(", "))
        .trim_end()
        .to_owned()
}

impl Watched {
    /// Judges new lines, and compares our groups with those of the last look.
    pub(super) async fn look(
        &mut self,
        keycloak: &Keycloak,
        config: &EventsConfig,
        fresh: &[&AdminEvent],
        own: Option<&str>,
    ) -> Seen {
        let mut seen = Seen::default();
        self.details(config, &mut seen);
        let others: Vec<&AdminEvent> = by_others(fresh, own).collect();
        let of = |kinds: &[&str]| {
            let named = |event: &&AdminEvent| path(event).first().is_some_and(|first| kinds.contains(first));
            others.iter().any(named)
        };
        if of(&["groups"]) {
            act::forget_layout(keycloak).await;
        }
        if of(&["groups", "roles", "roles-by-id"]) {
            administrators::forget(keycloak).await;
        }
        let layout = match act::layout(keycloak).await {
            Ok(layout) => layout,
            Err(error) => {
                // Who may not read groups is told so by the roles that are missing.
                tracing::warn!(%error, "the groups that holds rest on cannot be read");
                return seen;
            }
        };
        let known = layout.remembering(&self.groups);
        // In a realm that was never wired nothing rests on anything.
        for event in others.iter().filter(|_| !known.groups().is_empty()) {
            if let Some(Judged { why, doubt }) = lines::judge(event, &known) {
                let who = event.auth_details.user_id.as_deref().unwrap_or("somebody");
                seen.drifted.push(format!(
                    "{} by {who}: {why}; run `reentry wire keycloak --check`",
                    said(event)
                ));
                seen.doubt |= doubt;
            }
        }
        self.compare(&layout, &mut seen);
        let asked = !seen.drifted.is_empty();
        evaluate::look(keycloak, &layout, asked, &mut seen).await;
        seen
    }

    fn details(&mut self, config: &EventsConfig, seen: &mut Seen) {
        if self.details && config.admin_events_enabled && !config.admin_events_details_enabled {
            seen.alarms.push(
                "admin events no longer tell what was sent, so what was done to roles and scopes goes unseen: switch \"Include representation\" on, or run `reentry wire keycloak`"
                    .to_owned(),
            );
        } else if config.admin_events_details_enabled {
            self.details = true;
        }
    }

    /// Groups that are gone, or were made anew: who is held is no longer in them.
    fn compare(&mut self, layout: &Layout, seen: &mut Seen) {
        let now = layout.groups();
        if now.is_empty() && !self.groups.is_empty() {
            seen.alarms.push(
                "the groups that holds rest on are gone, so Keycloak's own tokens cannot be held: run `reentry wire keycloak`; held accounts are put back by themselves then"
                    .to_owned(),
            );
            return;
        }
        let gone = self
            .groups
            .iter()
            .filter(|(path, id)| now.get(*path) != Some(*id));
        let gone: Vec<&str> = gone.map(|(path, _)| path.as_str()).collect();
        if !gone.is_empty() {
            seen.doubt = true;
            seen.drifted.push(format!(
                "groups that holds rest on are gone, or were made anew: {}; held accounts are compared at once, and `reentry wire keycloak --check` tells what is missing",
                gone.join(", ")
            ));
        }
        self.groups.clone_from(now);
    }
}
