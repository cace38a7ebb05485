//! What is attached to things that are there already: default scopes of clients, gates of the
//! customer's scopes, event settings, the reset flow; and the broker's client.

use std::collections::BTreeSet;

use super::super::change::{Change, EventSettings, NewClient};
use super::super::desired::{self, EVENT_TYPES, RETENTION};
use super::super::names::{RESET_FLOW, RoleRef};
use super::super::snapshot::names_in;
use super::Planner;
use crate::idp::keycloak::representations::Client;

/// Realm attribute with the retention of admin events, in seconds.
const ADMIN_RETENTION: &str = "adminEventsExpiration";

impl Planner<'_> {
    pub(super) fn default_scopes(&mut self) {
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
            let scopes: BTreeSet<String> = names
                .difference(&names_in(client, "defaultClientScopes"))
                .cloned()
                .collect();
            if !scopes.is_empty() {
                self.steps.push(Change::AddClientDefaults {
                    client_id: client_id.clone(),
                    scopes,
                });
            }
        }
        // The run-time client is made before the scopes are, for the sake of the record in it.
        let client_id = &self.input.runtime_client;
        if snapshot.client(client_id).is_none() {
            self.steps.push(Change::AddClientDefaults {
                client_id: client_id.clone(),
                scopes: names,
            });
        }
    }

    pub(super) fn gates(&mut self) {
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

    pub(super) fn events(&mut self) {
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

    pub(super) fn reset_flow(&mut self) {
        let Some(current) = self.snapshot.reset_flow() else {
            return;
        };
        if self.snapshot.forces_login(current) {
            return;
        }
        if !self.input.force_login_after_reset {
            self.notes.push(
                "a reset ends in an automatic log-in: its first token is issued before the hold (--force-login-after-reset closes that)"
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

    pub(super) fn broker(&mut self) {
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
}

fn fits(client: &Client, wanted: &NewClient) -> bool {
    let redirects = names_in(client, "redirectUris");
    let pkce = "pkce.code.challenge.method";
    wanted.redirect_uris.iter().all(|uri| redirects.contains(uri))
        && client.attributes.get(pkce) == wanted.attributes.get(pkce)
        && client.rest.get("standardFlowEnabled") == Some(&true.into())
        && client.enabled
}
