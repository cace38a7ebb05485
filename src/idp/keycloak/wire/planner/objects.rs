//! Roles, client scopes and groups.

use std::collections::{BTreeMap, BTreeSet};

use super::super::change::Change;
use super::super::desired;
use super::super::names::{FULL, GROUP, HELD_DEFAULTS, Level, NOTES, RoleRef};
use super::super::noted::{self, Noted};
use super::Planner;
use crate::idp::keycloak::representations::{Attributes, ClientScope};

impl Planner<'_> {
    pub(super) fn roles(&mut self) {
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

    pub(super) fn scopes(&mut self) {
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

    pub(super) fn groups(&mut self) {
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
        let ours = |name: &str| NOTES.contains(&name) || name == noted::NAME;
        for group in below.iter().filter(|group| !ours(&group.name)) {
            if Level::of_group(&group.name).is_none_or(|level| !self.levels.contains(&level)) {
                self.notes.push(format!(
                    "group {} belongs to no level of today's policy; it stays",
                    group.path
                ));
            }
        }
    }

    /// Last of all, when everything has its id.
    pub(super) fn noted(&mut self) {
        let made = |step: &Change| {
            matches!(
                step,
                Change::CreateRole { .. }
                    | Change::CreateScope { .. }
                    | Change::CreateGroup { .. }
                    | Change::AddGate { .. }
                    | Change::RemoveGate { .. }
            )
        };
        let made = self.steps.iter().any(made);
        let now = self.snapshot.group(&noted::path());
        let now = now.and_then(|group| Noted::read(&group.attributes));
        let wanted = Noted::of(self.snapshot);
        let objects = made || !now.as_ref().is_some_and(|now| now.same_objects(&wanted));
        if objects || now.as_ref() != Some(&wanted) {
            self.steps.push(Change::Note {
                client_id: self.input.runtime_client.clone(),
                objects,
            });
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
