//! From the realm as it is to the realm as it must be: the list of changes.
//!
//! The order of the list is the order of safety. Roles come first and everybody gets
//! `reentry-full` before any scope asks for it; a scope gets its gate before any client gets the
//! scope; the customer's own scopes are gated last. So no account is ever without a claim that it
//! had, nor held by accident, while a plan is applied to a realm in use.

mod objects;
mod settings;

use std::collections::BTreeSet;

use super::change::Change;
use super::desired::{self, UNGATED, VIEW_CLIENTS};
use super::names::{Level, RECORD, RoleRef};
use super::record::Record;
use super::snapshot::{RuntimeAccount, Snapshot};
use super::{Plan, WirePlanInput, audit};
use crate::idp::keycloak::administrators::MANAGEMENT;

/// Oldest server that tells events apart (`id`, milliseconds, ascending order).
const FLOOR: (u32, u32) = (26, 2);

struct Planner<'a> {
    input: &'a WirePlanInput,
    snapshot: &'a Snapshot,
    record: &'a Record,
    levels: BTreeSet<Level>,
    steps: Vec<Change>,
    notes: Vec<String>,
    blockers: Vec<String>,
}

/// The plan that makes `snapshot` what `input` asks for.
#[must_use]
pub fn plan(input: &WirePlanInput, snapshot: &Snapshot, record: &Record) -> Plan {
    let mut planner = Planner {
        input,
        snapshot,
        record,
        levels: input.all_levels(),
        steps: Vec::new(),
        notes: Vec::new(),
        blockers: Vec::new(),
    };
    planner.preconditions();
    planner.runtime_account();
    planner.roles();
    planner.scopes();
    planner.groups();
    planner.default_scopes();
    planner.gates();
    planner.events();
    planner.reset_flow();
    planner.broker();
    planner.noted();
    planner.finish()
}

impl Planner<'_> {
    fn preconditions(&mut self) {
        let version = self.snapshot.version().unwrap_or_default();
        let mut numbers = version
            .split('.')
            .map(|part| part.parse::<u32>().unwrap_or_default());
        if !version.is_empty()
            && (
                numbers.next().unwrap_or_default(),
                numbers.next().unwrap_or_default(),
            ) < FLOOR
        {
            self.blockers.push(format!(
                "Keycloak {version} is too old: its event log cannot be followed; 26.2 is the oldest that can"
            ));
        }
        if self.snapshot.client(MANAGEMENT).is_none() {
            self.blockers.push(format!(
                "realm `{}` has no client `{MANAGEMENT}`: it administers the other realms, and its accounts cannot be held; give your people a realm of their own and wire that",
                self.snapshot.realm()
            ));
        }
        self.blockers.extend(audit::foreign_claims(self.snapshot));
        for (class, scopes) in &self.input.scopes {
            for scope in scopes {
                if UNGATED.contains(&scope.as_str()) || desired::is_ours(scope) {
                    self.blockers.push(format!(
                        "scope `{scope}` (class {class}) cannot be gated: sign-in needs it"
                    ));
                } else if self.snapshot.scope(scope).is_none() {
                    self.notes.push(format!(
                        "scope `{scope}` (class {class}) does not exist in this realm"
                    ));
                }
            }
        }
        let defaults = self.snapshot.children(&self.snapshot.default_role().name);
        for role in self.input.dropped_defaults.difference(&defaults) {
            self.notes.push(format!(
                "role {role}, to be dropped in a hold, is no child of the default role"
            ));
        }
        let saml = self
            .snapshot
            .clients()
            .iter()
            .filter(|client| client.protocol.as_deref() == Some("saml"));
        for client in saml {
            self.notes.push(format!(
                "client `{}` speaks SAML: its assertions carry no claim of ours",
                client.client_id
            ));
        }
        self.notes.extend(
            audit::reach(self.snapshot)
                .into_iter()
                .chain(audit::given_at_log_in(self.snapshot))
                .map(|finding| finding.text),
        );
    }

    fn runtime_account(&mut self) {
        let client_id = &self.input.runtime_client;
        let of_management = |name| RoleRef::client("realm-management", name);
        let wanted: BTreeSet<RoleRef> = desired::runtime_roles(self.input).map(of_management).collect();
        let account = match (self.snapshot.client(client_id), &self.snapshot.runtime) {
            (None, _) => {
                let client = desired::runtime_client(client_id, String::new());
                self.steps.push(Change::CreateClient {
                    client: Box::new(client),
                });
                &RuntimeAccount::default()
            }
            (Some(_), None) => {
                self.blockers.push(format!(
                    "client `{client_id}` exists and has no service account: choose another"
                ));
                return;
            }
            (Some(_), Some(account)) => account,
        };
        if self.snapshot.runtime.is_some() && self.record.version == 0 {
            self.notes.push(format!(
                "client `{client_id}` was there before and is used as it is: its secret is not written anywhere, take it from the console (Clients, {client_id}, Credentials)"
            ));
        }
        for role in wanted.difference(&account.roles) {
            self.steps.push(Change::GrantRuntime {
                client_id: client_id.clone(),
                role: role.clone(),
            });
        }
        let view_clients = of_management(VIEW_CLIENTS);
        if !wanted.contains(&view_clients) && !account.roles.contains(&view_clients) {
            self.notes.push(format!(
                "service account of `{client_id}` does not see who administers the realm: --view-clients shows it (held_admins), and client secrets with it"
            ));
        }
        let kept = [RoleRef::realm(&self.snapshot.default_role().name), view_clients];
        for role in account
            .roles
            .difference(&wanted)
            .filter(|role| !kept.contains(role))
        {
            if self.record.clients.contains(client_id) {
                self.steps.push(Change::RevokeRuntime {
                    client_id: client_id.clone(),
                    role: role.clone(),
                });
            } else {
                self.blockers.push(format!(
                    "service account of `{client_id}` has role {role}, which it must not have"
                ));
            }
        }
        for group in &account.groups {
            self.blockers.push(format!(
                "service account of `{client_id}` is in group {group}: take it out"
            ));
        }
    }

    /// What to do about an object that exists and is not as it must be: mend our own, and leave
    /// what somebody else made, saying so.
    fn mend(&mut self, ours: bool, what: &str, change: Change) {
        if ours {
            self.steps.push(change);
        } else {
            self.blockers.push(format!(
                "{what} exists, was not made by wire and is not as it must be ({change})"
            ));
        }
    }

    /// Works out the record and puts it where it is written before anything it tells of.
    fn finish(mut self) -> Plan {
        let mut record = self.record.clone();
        for step in &self.steps {
            record.note(step, self.snapshot);
        }
        let client_id = &self.input.runtime_client;
        match self.steps.first_mut() {
            Some(Change::CreateClient { client }) if client.client_id == *client_id => {
                let text = serde_json::to_string(&record).unwrap_or_default();
                client.attributes.insert(RECORD.to_owned(), text);
            }
            _ if record != *self.record => {
                let write = Change::WriteRecord {
                    client_id: client_id.clone(),
                    record: Some(Box::new(record)),
                };
                self.steps.insert(0, write);
            }
            _ => {}
        }
        Plan {
            realm: self.snapshot.realm().to_owned(),
            steps: self.steps,
            notes: self.notes,
            blockers: self.blockers,
        }
    }
}
