//! What `wire` writes down for the run-time account, which may read groups and their attributes, and neither client
//! scopes nor clients nor what a role is made of: the ids by which lines of the log name what holds rest on, and who
//! administers the realm.
//!
//! It stands on a group of its own below the root. Whoever manages users may write it, and every edit of our groups is
//! an alarm.

use std::collections::{BTreeMap, BTreeSet};

use super::desired::is_ours;
use super::names::{FULL, GROUP, HELD_DEFAULTS, RoleRef};
use super::snapshot::Snapshot;
use crate::idp::keycloak::administrators::{self, MANAGEMENT};
use crate::idp::keycloak::representations::Attributes;

/// Name of the group below [`GROUP`].
pub const NAME: &str = "known";
/// Attribute with the ids of scopes and roles.
const OBJECTS: &str = "reentry.objects";
/// Attribute with who administers the realm.
const ADMINISTRATORS: &str = "reentry.administrators";
/// Most values of an attribute.
const MOST: usize = 500;

/// Path of the group.
#[must_use]
pub fn path() -> String {
    format!("{GROUP}/{NAME}")
}

/// What is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// Client scopes of ours: id and name.
    pub scopes: BTreeMap<String, String>,
    /// Ids of client scopes of the realm's that our roles open.
    pub gates: BTreeSet<String>,
    /// Ids of roles of ours, and of the default role.
    pub roles: BTreeSet<String>,
    /// Groups whose members could undo a hold: id and path.
    pub groups: BTreeMap<String, String>,
    /// Realm roles with which one could.
    pub undoing: BTreeSet<String>,
    /// Accounts that have such a role of a client by themselves.
    pub users: BTreeSet<String>,
}

impl Noted {
    /// What a realm holds.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let id = |id: Option<&String>| id.filter(|id| !id.is_empty()).cloned();
        let opened = |name: &str| {
            let gate = snapshot.gate(name);
            gate.iter()
                .any(|role| role.client.is_none() && is_ours(&role.name))
        };
        let (ours, theirs): (Vec<_>, Vec<_>) =
            snapshot.scopes().iter().partition(|scope| is_ours(&scope.name));
        let default = snapshot.default_role();
        let roles = snapshot.realm_roles().filter(|(_, name)| {
            is_ours(name) || *name == HELD_DEFAULTS || *name == FULL || *name == default.name
        });
        let reaches = |roles: BTreeSet<RoleRef>| {
            let all = snapshot.closure(roles);
            all.iter()
                .any(|role| role.client.as_deref() == Some(MANAGEMENT) && administrators::undoes(&role.name))
        };
        let groups = snapshot.groups().into_iter();
        let groups = groups.filter(|group| reaches(group.roles()));
        let undoing = snapshot.realm_roles().map(|(_, name)| name);
        let undoing = undoing.filter(|name| reaches(BTreeSet::from([RoleRef::realm(name)])));
        Self {
            scopes: ours
                .into_iter()
                .filter_map(|scope| Some((id(scope.id.as_ref())?, scope.name.clone())))
                .collect(),
            gates: theirs
                .into_iter()
                .filter(|scope| opened(&scope.name))
                .filter_map(|scope| id(scope.id.as_ref()))
                .collect(),
            roles: roles.map(|(id, _)| id.to_owned()).collect(),
            groups: groups
                .map(|group| (group.id.clone(), group.path.clone()))
                .collect(),
            undoing: undoing.map(str::to_owned).collect(),
            users: snapshot.administrators.iter().take(MOST).cloned().collect(),
        }
    }

    /// As attributes of the group.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        let pairs = |kind: &str, map: &BTreeMap<String, String>| -> Vec<String> {
            map.iter()
                .map(|(id, name)| format!("{kind}:{id}:{name}"))
                .collect()
        };
        let ones = |kind: &str, set: &BTreeSet<String>| -> Vec<String> {
            set.iter().map(|id| format!("{kind}:{id}")).collect()
        };
        let objects = [
            pairs("scope", &self.scopes),
            ones("gate", &self.gates),
            ones("role", &self.roles),
        ];
        let who = [
            pairs("group", &self.groups),
            ones("role", &self.undoing),
            ones("user", &self.users),
        ];
        Attributes::from([
            (OBJECTS.to_owned(), objects.concat()),
            (ADMINISTRATORS.to_owned(), who.concat()),
        ])
    }

    /// What the group's attributes say; nothing when it was never written down.
    #[must_use]
    pub fn read(attributes: &Attributes) -> Option<Self> {
        let mut noted = Self::default();
        for value in attributes.get(OBJECTS)? {
            match value.splitn(3, ':').collect::<Vec<_>>().as_slice() {
                ["scope", id, name] => {
                    noted.scopes.insert((*id).to_owned(), (*name).to_owned());
                }
                ["gate", id] => {
                    noted.gates.insert((*id).to_owned());
                }
                ["role", id] => {
                    noted.roles.insert((*id).to_owned());
                }
                _ => {}
            }
        }
        for value in attributes.get(ADMINISTRATORS).into_iter().flatten() {
            match value.split_once(':') {
                Some(("group", rest)) => {
                    let (id, path) = rest.split_once(':').unwrap_or((rest, ""));
                    noted.groups.insert(id.to_owned(), path.to_owned());
                }
                Some(("role", name)) => {
                    noted.undoing.insert(name.to_owned());
                }
                Some(("user", id)) => {
                    noted.users.insert(id.to_owned());
                }
                _ => {}
            }
        }
        Some(noted)
    }

    /// Whether what lines of the log are judged by is the same, whoever administers the realm.
    #[must_use]
    pub fn same_objects(&self, other: &Self) -> bool {
        self.scopes == other.scopes && self.gates == other.gates && self.roles == other.roles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_reads_back() {
        let set = |list: &[&str]| {
            list.iter()
                .map(|one| (*one).to_owned())
                .collect::<BTreeSet<String>>()
        };
        let map = |id: &str, name: &str| BTreeMap::from([(id.to_owned(), name.to_owned())]);
        let noted = Noted {
            scopes: map("s-1", "reentry-hold.read.write"),
            gates: set(&["g-1"]),
            roles: set(&["r-1", "r-2"]),
            groups: map("a-1", "/admins: all/of them"),
            undoing: set(&["boss: of: all"]),
            users: set(&["f:1:carl"]),
        };
        assert_eq!(Noted::read(&noted.attributes()), Some(noted));
        assert_eq!(Noted::read(&Attributes::new()), None);
    }
}
