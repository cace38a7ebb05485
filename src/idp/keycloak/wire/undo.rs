//! Taking back exactly what `wire` made and changed. What an administrator changed since stays:
//! a setting is put back only while it still is what `wire` set.

use std::collections::BTreeSet;

use super::Plan;
use super::change::{Change, EventSettings};
use super::names::{GROUP, NOTES, RoleRef};
use super::record::{Record, Was};
use super::snapshot::{Snapshot, names_in};

/// The plan that takes `record` back. The run-time client, which keeps the record, goes last, so
/// that an interrupted run can be repeated.
#[must_use]
pub fn plan(runtime_client: &str, snapshot: &Snapshot, record: &Record) -> Plan {
    let mut undo = Undo {
        snapshot,
        record,
        steps: Vec::new(),
        notes: Vec::new(),
    };
    undo.reset_flow();
    undo.scopes();
    undo.groups();
    undo.roles();
    undo.events();
    undo.clients(runtime_client);
    Plan {
        realm: snapshot.realm().to_owned(),
        steps: undo.steps,
        notes: undo.notes,
        blockers: Vec::new(),
    }
}

struct Undo<'a> {
    snapshot: &'a Snapshot,
    record: &'a Record,
    steps: Vec<Change>,
    notes: Vec<String>,
}

impl Undo<'_> {
    fn reset_flow(&mut self) {
        if let Some(Was { before, set }) = &self.record.reset_flow
            && self.snapshot.reset_flow() == Some(set)
        {
            self.steps.push(Change::SetResetFlow { flow: before.clone() });
        }
        for flow in self
            .record
            .flows
            .iter()
            .filter(|flow| self.snapshot.has_flow(flow))
        {
            self.steps.push(Change::DeleteFlow { flow: flow.clone() });
        }
    }

    fn scopes(&mut self) {
        let snapshot = self.snapshot;
        for (scope, ours) in &self.record.gates {
            let roles: BTreeSet<RoleRef> = snapshot.gate(scope).intersection(ours).cloned().collect();
            if !roles.is_empty() {
                self.steps.push(Change::RemoveGate {
                    scope: scope.clone(),
                    roles,
                });
            }
        }
        for scope in self
            .record
            .realm_defaults
            .intersection(snapshot.realm_default_scopes())
        {
            self.steps
                .push(Change::RemoveRealmDefault { scope: scope.clone() });
        }
        for (client_id, scopes) in &self.record.client_defaults {
            let Some(client) = snapshot.client(client_id) else {
                continue;
            };
            let scopes: BTreeSet<String> = names_in(client, "defaultClientScopes")
                .intersection(scopes)
                .cloned()
                .collect();
            if !scopes.is_empty() {
                self.steps.push(Change::RemoveClientDefaults {
                    client_id: client_id.clone(),
                    scopes,
                });
            }
        }
        for name in self
            .record
            .scopes
            .iter()
            .filter(|name| snapshot.scope(name).is_some())
        {
            self.steps.push(Change::DeleteScope { name: name.clone() });
        }
    }

    fn groups(&mut self) {
        let mut made = self.record.groups.clone();
        if made.contains(GROUP) {
            // A hold makes the note that it lacks: below a root that is ours, it is ours too.
            made.extend(NOTES.map(|note| format!("{GROUP}/{note}")));
        }
        // A child's path is longer than its parent's and sorts behind it.
        for path in made.iter().rev() {
            let Some(group) = self.snapshot.group(path) else {
                continue;
            };
            let foreign = group.sub_groups.iter().find(|child| !made.contains(&child.path));
            match foreign {
                Some(child) => self.notes.push(format!(
                    "group {path} stays: {} in it was not made by wire",
                    child.path
                )),
                None => self.steps.push(Change::DeleteGroup { path: path.clone() }),
            }
        }
    }

    fn roles(&mut self) {
        for (role, ours) in &self.record.children {
            let children: BTreeSet<RoleRef> =
                self.snapshot.children(role).intersection(ours).cloned().collect();
            if !children.is_empty() {
                self.steps.push(Change::RemoveChildren {
                    role: role.clone(),
                    children,
                });
            }
        }
        for name in self
            .record
            .roles
            .iter()
            .filter(|name| self.snapshot.role(name).is_some())
        {
            self.steps.push(Change::DeleteRole { name: name.clone() });
        }
    }

    fn events(&mut self) {
        let was = &self.record.events;
        let now = self.snapshot;
        let mut settings = EventSettings::default();
        if was.enabled && now.events_enabled() {
            settings.events_enabled = Some(false);
        }
        if was.admin_enabled && now.admin_events_enabled() {
            settings.admin_events_enabled = Some(false);
        }
        if was.admin_details && now.admin_events_details() {
            settings.admin_events_details_enabled = Some(false);
        }
        if let Some(Was { before, set }) = &was.expiration
            && now.events_expiration().unwrap_or_default() == *set
        {
            settings.events_expiration = Some(*before);
        }
        let types: BTreeSet<String> = now.event_types().difference(&was.types).cloned().collect();
        // An empty list would store more than before, not less.
        if types.len() < now.event_types().len() && !types.is_empty() {
            settings.enabled_event_types = Some(types);
        }
        if !settings.is_empty() {
            self.steps.push(Change::SetEvents { settings });
        }
        for (name, Was { before, set }) in &self.record.realm_attributes {
            if now.attribute(name) == set.as_deref() {
                self.steps.push(Change::SetRealmAttribute {
                    name: name.clone(),
                    value: before.clone(),
                });
            }
        }
    }

    fn clients(&mut self, runtime_client: &str) {
        let exists = |client_id: &&String| self.snapshot.client(client_id).is_some();
        for client_id in self
            .record
            .clients
            .iter()
            .filter(exists)
            .filter(|id| *id != runtime_client)
        {
            self.steps.push(Change::DeleteClient {
                client_id: client_id.clone(),
            });
        }
        let client_id = runtime_client.to_owned();
        if self.record.clients.contains(runtime_client) {
            self.steps.push(Change::DeleteClient { client_id });
            return;
        }
        let held = self
            .snapshot
            .runtime
            .as_ref()
            .map(|account| account.roles.clone())
            .unwrap_or_default();
        for role in self.record.runtime_roles.intersection(&held) {
            self.steps.push(Change::RevokeRuntime {
                client_id: client_id.clone(),
                role: role.clone(),
            });
        }
        self.steps.push(Change::WriteRecord {
            client_id,
            record: None,
        });
    }
}
