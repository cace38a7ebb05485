//! What `wire` made and what was there before, kept in an attribute of the run-time client.
//!
//! A client's attributes take `manage-clients` to write; group attributes would be open to
//! everybody with `manage-users`. The record is written before the changes that it tells of, so an
//! interrupted run can be taken back too.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::names::RoleRef;
use super::noted;
use super::snapshot::Snapshot;

/// Version of the record; another one is refused.
pub const VERSION: u32 = 1;

/// A setting before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was<T> {
    /// Before `wire`.
    pub before: T,
    /// What `wire` set.
    pub set: T,
}

/// What became of the event log's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// User events were off.
    pub enabled: bool,
    /// Admin events were off.
    pub admin_enabled: bool,
    /// Their details were off.
    pub admin_details: bool,
    /// Types that were not stored.
    pub types: BTreeSet<String>,
    /// Retention of user events, in seconds; 0 = for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Was<i64>>,
}

/// What `wire` made and changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Version of this format.
    pub version: u32,
    /// Realm roles made.
    pub roles: BTreeSet<String>,
    /// Client scopes made.
    pub scopes: BTreeSet<String>,
    /// Groups made, by path.
    pub groups: BTreeSet<String>,
    /// Clients made.
    pub clients: BTreeSet<String>,
    /// Flows made.
    pub flows: BTreeSet<String>,
    /// Children added to roles that were there before.
    pub children: BTreeMap<String, BTreeSet<RoleRef>>,
    /// Roles added to the mappings of client scopes that were there before.
    pub gates: BTreeMap<String, BTreeSet<RoleRef>>,
    /// Default scopes, there before as scopes, added to clients.
    pub client_defaults: BTreeMap<String, BTreeSet<String>>,
    /// Default scopes, there before as scopes, added for new clients.
    pub realm_defaults: BTreeSet<String>,
    /// Roles given to a service account that was there before.
    pub runtime_roles: BTreeSet<RoleRef>,
    /// Event settings.
    pub events: Events,
    /// Attributes of the realm.
    pub realm_attributes: BTreeMap<String, Was<Option<String>>>,
    /// Reset flow of the realm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_flow: Option<Was<String>>,
}

impl Record {
    /// Notes one change that is about to be made to the realm as it is in `snapshot`. What is
    /// ours already needs no note: it goes as a whole. The first `before` of a setting stands.
    pub fn note(&mut self, change: &Change, snapshot: &Snapshot) {
        self.version = VERSION;
        self.note_made(change);
        self.note_joined(change);
        self.note_realm(change, snapshot);
    }

    /// Objects that are ours as a whole.
    fn note_made(&mut self, change: &Change) {
        match change {
            Change::CreateClient { client } => {
                self.clients.insert(client.client_id.clone());
            }
            Change::CreateRole { name, .. } => {
                self.roles.insert(name.clone());
            }
            Change::CreateScope { scope } => {
                self.scopes.insert(scope.name.clone());
            }
            Change::CreateGroup { path, .. } => {
                self.groups.insert(path.clone());
            }
            Change::Note { .. } => {
                self.groups.insert(noted::path());
            }
            Change::CopyFlow { to, .. } => {
                self.flows.insert(to.clone());
            }
            _ => {}
        }
    }

    /// What was put into objects that are not ours.
    fn note_joined(&mut self, change: &Change) {
        match change {
            Change::AddChildren { role, children } if !self.roles.contains(role) => {
                self.children
                    .entry(role.clone())
                    .or_default()
                    .extend(children.iter().cloned());
            }
            Change::AddGate { scope, roles } if !self.scopes.contains(scope) => {
                self.gates
                    .entry(scope.clone())
                    .or_default()
                    .extend(roles.iter().cloned());
            }
            Change::RemoveGate { scope, roles } => {
                if let Some(ours) = self.gates.get_mut(scope) {
                    ours.retain(|role| !roles.contains(role));
                }
                self.gates.retain(|_, ours| !ours.is_empty());
            }
            Change::AddRealmDefault { scope } if !self.scopes.contains(scope) => {
                self.realm_defaults.insert(scope.clone());
            }
            Change::AddClientDefaults { client_id, scopes } if !self.clients.contains(client_id) => {
                let theirs = scopes.difference(&self.scopes).cloned();
                let entry = self.client_defaults.entry(client_id.clone()).or_default();
                entry.extend(theirs);
                self.client_defaults.retain(|_, scopes| !scopes.is_empty());
            }
            Change::GrantRuntime { client_id, role } if !self.clients.contains(client_id) => {
                self.runtime_roles.insert(role.clone());
            }
            _ => {}
        }
    }

    /// Settings of the realm, with what they were.
    fn note_realm(&mut self, change: &Change, snapshot: &Snapshot) {
        match change {
            Change::SetRealmAttribute { name, value } => {
                let before = snapshot.attribute(name).map(str::to_owned);
                let entry = self.realm_attributes.entry(name.clone());
                let was = entry.or_insert_with(|| Was { before, set: None });
                was.set.clone_from(value);
            }
            Change::SetResetFlow { flow } => {
                let before = || snapshot.reset_flow().unwrap_or_default().to_owned();
                let was = self.reset_flow.get_or_insert_with(|| Was {
                    before: before(),
                    set: String::new(),
                });
                was.set.clone_from(flow);
            }
            Change::SetEvents { settings } => {
                let events = &mut self.events;
                events.enabled |= settings.events_enabled == Some(true);
                events.admin_enabled |= settings.admin_events_enabled == Some(true);
                events.admin_details |= settings.admin_events_details_enabled == Some(true);
                let stored = snapshot.event_types();
                let types = settings.enabled_event_types.iter().flatten();
                events
                    .types
                    .extend(types.filter(|kind| !stored.contains(*kind)).cloned());
                if let Some(set) = settings.events_expiration {
                    let before = snapshot.events_expiration().unwrap_or_default();
                    let was = events.expiration.get_or_insert(Was { before, set });
                    was.set = set;
                }
            }
            _ => {}
        }
    }
}
