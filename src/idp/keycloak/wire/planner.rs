//! From the realm as it is to the realm as it must be: the list of changes.
//!
//! The order of the list is the order of safety. Roles come first and everybody gets
//! `reentry-full` before any scope asks for it; a scope gets its gate before any client gets the
//! scope; the customer's own scopes are gated last. So no account is ever without a claim that it
//! had, nor held by accident, while a plan is applied to a realm in use.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Change, EventSettings, NewClient};
use super::desired::{self, EVENT_TYPES, RETENTION, RUNTIME_ROLES, UNGATED};
use super::names::{FULL, GROUP, HELD_DEFAULTS, Level, NOTES, RECORD, RESET_FLOW, RoleRef};
use super::record::Record;
use super::snapshot::{RuntimeAccount, Snapshot, names_in};
use super::{Plan, WirePlanInput, audit};
use crate::idp::keycloak::representations::{Attributes, Client, ClientScope};

/// Oldest server that tells events apart (`id`, milliseconds, ascending order).
const FLOOR: (u32, u32) = (26, 2);

/// Realm attribute with the retention of admin events, in seconds.
const ADMIN_RETENTION: &str = "adminEventsExpiration";

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
                .map(|finding| finding.text),
        );
    }

    fn runtime_account(&mut self) {
        let client_id = &self.input.runtime_client;
        let wanted: BTreeSet<RoleRef> = RUNTIME_ROLES
            .iter()
            .map(|name| RoleRef::client("realm-management", name))
            .collect();
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
        for role in wanted.difference(&account.roles) {
            self.steps.push(Change::GrantRuntime {
                client_id: client_id.clone(),
                role: role.clone(),
            });
        }
        let default = RoleRef::realm(&self.snapshot.default_role().name);
        for role in account.roles.difference(&wanted).filter(|role| **role != default) {
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

    fn roles(&mut self) {
        for (name, description) in desired::plain_roles(&self.levels) {
            match self.snapshot.role(&name) {
                None => self.steps.push(Change::CreateRole { name, description }),
                Some(role) if role.children().is_empty() => {}
                Some(role) => {
                    // Any child of a composite gate would let the scope through.
                    let change = Change::RemoveChildren {
                        role: name.clone(),
                        children: role.children(),
                    };
                    self.mend(
                        self.record.roles.contains(&name),
                        &format!("role `{name}`"),
                        change,
                    );
                }
            }
        }
        self.held_defaults();
        let default = &self.snapshot.default_role().name;
        if !self.snapshot.children(default).contains(&RoleRef::realm(FULL)) {
            let children = BTreeSet::from([RoleRef::realm(FULL)]);
            self.steps.push(Change::AddChildren {
                role: default.clone(),
                children,
            });
        }
    }

    fn held_defaults(&mut self) {
        let wanted = desired::held_defaults(self.snapshot, &self.input.dropped_defaults);
        let role = HELD_DEFAULTS.to_owned();
        let Some(existing) = self.snapshot.role(HELD_DEFAULTS) else {
            let description = "What an account keeps of the default role in a recovery hold.".to_owned();
            self.steps.push(Change::CreateRole {
                name: role.clone(),
                description,
            });
            if !wanted.is_empty() {
                self.steps.push(Change::AddChildren {
                    role,
                    children: wanted,
                });
            }
            return;
        };
        let now = existing.children();
        let ours = self.record.roles.contains(HELD_DEFAULTS);
        let missing: BTreeSet<RoleRef> = wanted.difference(&now).cloned().collect();
        let extra: BTreeSet<RoleRef> = now.difference(&wanted).cloned().collect();
        if !missing.is_empty() {
            self.mend(
                ours,
                "role `reentry-held-defaults`",
                Change::AddChildren {
                    role: role.clone(),
                    children: missing,
                },
            );
        }
        if !extra.is_empty() {
            self.mend(
                ours,
                "role `reentry-held-defaults`",
                Change::RemoveChildren {
                    role,
                    children: extra,
                },
            );
        }
    }

    fn scopes(&mut self) {
        for (wanted, gate) in desired::scopes(&self.levels) {
            let name = wanted.name.clone();
            let roles = BTreeSet::from([gate]);
            let Some(now) = self.snapshot.scope(&name) else {
                self.steps.push(Change::CreateScope {
                    scope: Box::new(wanted),
                });
                self.steps.push(Change::AddGate { scope: name, roles });
                continue;
            };
            let ours = self.record.scopes.contains(&name);
            let what = format!("client scope `{name}`");
            if !same_scope(now, &wanted) {
                self.mend(
                    ours,
                    &what,
                    Change::RepairScope {
                        scope: Box::new(wanted),
                    },
                );
            }
            let gate = self.snapshot.gate(&name);
            let missing: BTreeSet<RoleRef> = roles.difference(&gate).cloned().collect();
            let extra: BTreeSet<RoleRef> = gate.difference(&roles).cloned().collect();
            if !missing.is_empty() {
                self.mend(
                    ours,
                    &what,
                    Change::AddGate {
                        scope: name.clone(),
                        roles: missing,
                    },
                );
            }
            if !extra.is_empty() {
                self.mend(
                    ours,
                    &what,
                    Change::RemoveGate {
                        scope: name,
                        roles: extra,
                    },
                );
            }
        }
    }

    fn groups(&mut self) {
        self.group(GROUP, desired::root_attributes(self.snapshot), &BTreeSet::new());
        for level in self.levels.clone() {
            self.group(&level.path(), Attributes::new(), &desired::group_roles(&level));
        }
        for note in NOTES {
            self.group(&format!("{GROUP}/{note}"), Attributes::new(), &BTreeSet::new());
        }
        let below = self
            .snapshot
            .group(GROUP)
            .map(|group| group.sub_groups.as_slice())
            .unwrap_or_default();
        for group in below.iter().filter(|group| !NOTES.contains(&group.name.as_str())) {
            if Level::of_group(&group.name).is_none_or(|level| !self.levels.contains(&level)) {
                self.notes.push(format!(
                    "group {} belongs to no level of today's policy; it stays",
                    group.path
                ));
            }
        }
    }

    fn group(&mut self, path: &str, attributes: Attributes, roles: &BTreeSet<RoleRef>) {
        let path = path.to_owned();
        let Some(now) = self.snapshot.group(&path) else {
            self.steps.push(Change::CreateGroup {
                path: path.clone(),
                attributes,
            });
            if !roles.is_empty() {
                self.steps.push(Change::AddGroupRoles {
                    path,
                    roles: roles.clone(),
                });
            }
            return;
        };
        let ours = self.record.groups.contains(&path);
        let what = format!("group {path}");
        let mut merged = now.attributes.clone();
        merged.extend(attributes);
        if merged != now.attributes {
            self.mend(
                ours,
                &what,
                Change::SetGroupAttributes {
                    path: path.clone(),
                    attributes: merged,
                },
            );
        }
        let missing: BTreeSet<RoleRef> = roles.difference(&now.roles()).cloned().collect();
        let extra: BTreeSet<RoleRef> = now.roles().difference(roles).cloned().collect();
        if !missing.is_empty() {
            self.mend(
                ours,
                &what,
                Change::AddGroupRoles {
                    path: path.clone(),
                    roles: missing,
                },
            );
        }
        if !extra.is_empty() {
            self.mend(ours, &what, Change::RemoveGroupRoles { path, roles: extra });
        }
    }

    fn default_scopes(&mut self) {
        let names: BTreeSet<String> = desired::scopes(&self.levels)
            .into_iter()
            .map(|(scope, _)| scope.name)
            .collect();
        for scope in names.difference(self.snapshot.realm_default_scopes()) {
            self.steps.push(Change::AddRealmDefault { scope: scope.clone() });
        }
        let snapshot = self.snapshot;
        for client in snapshot.token_clients() {
            let client_id = &client.client_id;
            for scope in names.intersection(&names_in(client, "optionalClientScopes")) {
                self.blockers.push(format!(
                    "client `{client_id}` has `{scope}` as an optional scope: take it out"
                ));
            }
            for scope in names.difference(&names_in(client, "defaultClientScopes")) {
                self.steps.push(Change::AddClientDefault {
                    client_id: client_id.clone(),
                    scope: scope.clone(),
                });
            }
        }
        // The run-time client is made before the scopes are, for the sake of the record in it.
        if snapshot.client(&self.input.runtime_client).is_none() {
            let client_id = &self.input.runtime_client;
            self.steps
                .extend(names.into_iter().map(|scope| Change::AddClientDefault {
                    client_id: client_id.clone(),
                    scope,
                }));
        }
    }

    fn gates(&mut self) {
        let wanted = desired::gates(self.input, self.snapshot, self.record, &self.levels);
        let nothing = BTreeSet::new();
        for (scope, roles) in &wanted {
            let ours = self.record.gates.get(scope).unwrap_or(&nothing);
            let now = self.snapshot.gate(scope);
            let foreign: Vec<String> = now
                .iter()
                .filter(|role| !ours.contains(*role) && !roles.contains(*role))
                .map(ToString::to_string)
                .collect();
            if !foreign.is_empty() {
                // Gating is OR: whoever has one of these roles would keep the scope in a hold.
                self.blockers.push(format!(
                    "scope `{scope}` already depends on {}: it cannot be gated",
                    foreign.join(", ")
                ));
                continue;
            }
            let missing: BTreeSet<RoleRef> = roles.difference(&now).cloned().collect();
            let extra: BTreeSet<RoleRef> = now.difference(roles).cloned().collect();
            if !missing.is_empty() {
                self.steps.push(Change::AddGate {
                    scope: scope.clone(),
                    roles: missing,
                });
            }
            if !extra.is_empty() {
                self.steps.push(Change::RemoveGate {
                    scope: scope.clone(),
                    roles: extra,
                });
            }
        }
        for (scope, ours) in self
            .record
            .gates
            .iter()
            .filter(|(scope, _)| !wanted.contains_key(*scope))
        {
            let roles: BTreeSet<RoleRef> = self.snapshot.gate(scope).intersection(ours).cloned().collect();
            if !roles.is_empty() {
                self.steps.push(Change::RemoveGate {
                    scope: scope.clone(),
                    roles,
                });
            }
        }
        if !self.input.gate_unlisted {
            for scope in desired::unlisted(self.input, self.snapshot, self.record) {
                self.notes.push(format!(
                    "scope `{scope}` is in no action class: tokens keep it in a hold"
                ));
            }
        }
    }

    fn events(&mut self) {
        let now = self.snapshot;
        let stored = now.event_types();
        let needed = EVENT_TYPES.iter().map(|kind| (*kind).to_owned());
        let needed: BTreeSet<String> = needed
            .filter(|kind| now.known_event_types.contains(kind))
            .collect();
        // An empty list stands for the server's defaults, which hold all that are needed.
        let lacking = !stored.is_empty() && !needed.is_subset(stored);
        let short = |kept: Option<i64>, on: bool| kept.map_or(!on, |seconds| seconds < RETENTION);
        let settings = EventSettings {
            events_enabled: (!now.events_enabled()).then_some(true),
            events_expiration: short(now.events_expiration(), now.events_enabled()).then_some(RETENTION),
            enabled_event_types: lacking.then(|| stored.union(&needed).cloned().collect()),
            admin_events_enabled: (!now.admin_events_enabled()).then_some(true),
            admin_events_details_enabled: (!now.admin_events_details()).then_some(true),
        };
        if !settings.is_empty() {
            self.steps.push(Change::SetEvents { settings });
        }
        let kept = now
            .attribute(ADMIN_RETENTION)
            .and_then(|text| text.parse().ok())
            .filter(|seconds: &i64| *seconds > 0);
        if short(kept, now.admin_events_enabled()) {
            let value = Some(RETENTION.to_string());
            self.steps.push(Change::SetRealmAttribute {
                name: ADMIN_RETENTION.to_owned(),
                value,
            });
        }
    }

    fn reset_flow(&mut self) {
        let Some(current) = self.snapshot.reset_flow() else {
            return;
        };
        if self.snapshot.forces_login(current) {
            return;
        }
        if !self.input.force_login_after_reset {
            self.notes.push(
                "a reset ends in an automatic log-in: its first token is issued before the hold (see force_login_after_reset)"
                    .to_owned(),
            );
            return;
        }
        let flow = RESET_FLOW.to_owned();
        if !self.snapshot.has_flow(RESET_FLOW) {
            self.steps.push(Change::CopyFlow {
                from: current.to_owned(),
                to: flow.clone(),
            });
        } else if !self.record.flows.contains(RESET_FLOW) {
            self.blockers
                .push(format!("flow `{RESET_FLOW}` exists and was not made by wire"));
            return;
        }
        if !self.snapshot.forces_login(RESET_FLOW) {
            self.steps.push(Change::ForceLogin { flow: flow.clone() });
        }
        if current != RESET_FLOW {
            self.steps.push(Change::SetResetFlow { flow });
        }
    }

    fn broker(&mut self) {
        let Some(broker) = &self.input.broker else {
            return;
        };
        let wanted = desired::broker_client(broker);
        match self.snapshot.client(&broker.client_id) {
            None => self.steps.push(Change::CreateClient { client: Box::new(wanted) }),
            Some(client) if fits(client, &wanted) => {}
            Some(_) => self.blockers.push(format!(
                "client `{}` exists with other settings: it needs the code flow, PKCE S256 and redirect URI {}",
                broker.client_id, broker.redirect_uri
            )),
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

fn fits(client: &Client, wanted: &NewClient) -> bool {
    let redirects = names_in(client, "redirectUris");
    let pkce = "pkce.code.challenge.method";
    wanted.redirect_uris.iter().all(|uri| redirects.contains(uri))
        && client.attributes.get(pkce) == wanted.attributes.get(pkce)
        && client.rest.get("standardFlowEnabled") == Some(&true.into())
        && client.enabled
}

/// Are the members of a scope that matter here the same?
fn same_scope(now: &ClientScope, wanted: &ClientScope) -> bool {
    let holds = |now: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
        wanted.iter().all(|(name, value)| now.get(name) == Some(value))
    };
    let mappers = match (
        now.protocol_mappers.as_slice(),
        wanted.protocol_mappers.as_slice(),
    ) {
        ([now], [wanted]) => {
            now.protocol_mapper == wanted.protocol_mapper && holds(&now.config, &wanted.config)
        }
        _ => false,
    };
    mappers && now.protocol == wanted.protocol && holds(&now.attributes, &wanted.attributes)
}
