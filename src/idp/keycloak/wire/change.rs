//! One change to a realm: data, its text for people, and how it is carried out.
//!
//! Changes speak of objects by name, so that a plan can be printed, stored and read by a person;
//! ids are looked up when a change is applied, because an earlier change may have made the object.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::names::{CLAIM, RoleRef};
use super::noted;
use super::record::Record;
use crate::idp::keycloak::representations::{Attributes, ClientScope};

/// Settings of the event log to set; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSettings {
    /// Store user events?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_enabled: Option<bool>,
    /// Seconds to keep user events; 0 = for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_expiration: Option<i64>,
    /// Types to store, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled_event_types: Option<BTreeSet<String>>,
    /// Store admin events?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_events_enabled: Option<bool>,
    /// Keep what was sent with admin events?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_events_details_enabled: Option<bool>,
}

impl EventSettings {
    /// Is there nothing to set?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "the members are those of Keycloak's client representation"
)]
/// A client to make, without its secret: Keycloak makes that up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewClient {
    /// `client_id`.
    pub client_id: String,
    /// Name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Always `openid-connect`.
    pub protocol: &'static str,
    /// On.
    pub enabled: bool,
    /// Never public.
    pub public_client: bool,
    /// Authorization code flow?
    pub standard_flow_enabled: bool,
    /// Never.
    pub implicit_flow_enabled: bool,
    /// Never.
    pub direct_access_grants_enabled: bool,
    /// Service account?
    pub service_accounts_enabled: bool,
    /// May its tokens carry every role of the user?
    pub full_scope_allowed: bool,
    /// Exact redirect URIs.
    pub redirect_uris: Vec<String>,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
}

/// One change to a realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Change {
    /// Makes a client.
    CreateClient {
        /// The client.
        client: Box<NewClient>,
    },
    /// Deletes a client.
    DeleteClient {
        /// `client_id`.
        client_id: String,
    },
    /// Keeps what was there before in an attribute of the run-time client, or drops it.
    WriteRecord {
        /// `client_id`.
        client_id: String,
        /// `None`: the attribute goes.
        #[serde(skip)]
        record: Option<Box<Record>>,
    },
    /// Gives the run-time account a role.
    GrantRuntime {
        /// `client_id`.
        client_id: String,
        /// A role of `realm-management`.
        role: RoleRef,
    },
    /// Takes a role from the run-time account.
    RevokeRuntime {
        /// `client_id`.
        client_id: String,
        /// The role.
        role: RoleRef,
    },
    /// Makes a plain realm role.
    CreateRole {
        /// Name.
        name: String,
        /// What it is for.
        description: String,
    },
    /// Deletes a realm role.
    DeleteRole {
        /// Name.
        name: String,
    },
    /// Adds children to a realm role.
    AddChildren {
        /// The parent.
        role: String,
        /// The children.
        children: BTreeSet<RoleRef>,
    },
    /// Takes children from a realm role.
    RemoveChildren {
        /// The parent.
        role: String,
        /// The children.
        children: BTreeSet<RoleRef>,
    },
    /// Makes a client scope with its mapper.
    CreateScope {
        /// The scope.
        scope: Box<ClientScope>,
    },
    /// Sets attributes and mappers of a client scope of ours back to what they must be.
    RepairScope {
        /// The scope.
        scope: Box<ClientScope>,
    },
    /// Deletes a client scope, and with it its place in clients.
    DeleteScope {
        /// Name.
        name: String,
    },
    /// Adds roles to a client scope's role mappings.
    AddGate {
        /// Scope.
        scope: String,
        /// Roles.
        roles: BTreeSet<RoleRef>,
    },
    /// Takes roles from a client scope's role mappings.
    RemoveGate {
        /// Scope.
        scope: String,
        /// Roles.
        roles: BTreeSet<RoleRef>,
    },
    /// New clients get the scope by default.
    AddRealmDefault {
        /// Scope.
        scope: String,
    },
    /// A client gets scopes by default.
    AddClientDefaults {
        /// `client_id`.
        client_id: String,
        /// Scopes.
        scopes: BTreeSet<String>,
    },
    /// New clients no longer get the scope by default.
    RemoveRealmDefault {
        /// Scope.
        scope: String,
    },
    /// A client no longer gets scopes by default.
    RemoveClientDefaults {
        /// `client_id`.
        client_id: String,
        /// Scopes.
        scopes: BTreeSet<String>,
    },
    /// Makes a group.
    CreateGroup {
        /// Path.
        path: String,
        /// Attributes.
        attributes: Attributes,
    },
    /// Sets a group's attributes.
    SetGroupAttributes {
        /// Path.
        path: String,
        /// Attributes, all of them.
        attributes: Attributes,
    },
    /// Deletes a group.
    DeleteGroup {
        /// Path.
        path: String,
    },
    /// Writes down, for the run-time account, what it needs to know and may not read.
    Note {
        /// `client_id` of the run-time account.
        client_id: String,
        /// What lines of the log are judged by differs, not only who administers the realm.
        objects: bool,
    },
    /// Maps realm roles to a group.
    AddGroupRoles {
        /// Path.
        path: String,
        /// Roles.
        roles: BTreeSet<RoleRef>,
    },
    /// Takes realm roles from a group.
    RemoveGroupRoles {
        /// Path.
        path: String,
        /// Roles.
        roles: BTreeSet<RoleRef>,
    },
    /// Sets what the realm records.
    SetEvents {
        /// The settings.
        settings: EventSettings,
    },
    /// Sets an attribute of the realm, or drops it.
    SetRealmAttribute {
        /// Name.
        name: String,
        /// `None`: the attribute goes.
        value: Option<String>,
    },
    /// Copies an authentication flow.
    CopyFlow {
        /// Alias.
        from: String,
        /// Alias of the copy.
        to: String,
    },
    /// Sets *Force login after reset* in a flow of ours.
    ForceLogin {
        /// Alias.
        flow: String,
    },
    /// Makes a flow the one of "Forgot password?".
    SetResetFlow {
        /// Alias.
        flow: String,
    },
    /// Deletes an authentication flow.
    DeleteFlow {
        /// Alias.
        flow: String,
    },
}

impl Change {
    /// A stable code: the `code` of the finding that a missing change stands for.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::CreateClient { .. } | Self::DeleteClient { .. } => "client",
            Self::WriteRecord { .. } => "record",
            Self::GrantRuntime { .. } => "runtime-roles-less",
            Self::RevokeRuntime { .. } => "runtime-roles-more",
            Self::CreateRole { .. } | Self::DeleteRole { .. } => "role",
            Self::AddChildren { .. } => "role-children-missing",
            Self::RemoveChildren { .. } => "role-children-extra",
            Self::CreateScope { .. } | Self::DeleteScope { .. } => "scope",
            Self::RepairScope { .. } => "scope-mapper",
            Self::AddGate { .. } => "scope-gate-missing",
            Self::RemoveGate { .. } => "scope-gate-extra",
            Self::AddRealmDefault { .. } | Self::RemoveRealmDefault { .. } => "realm-default-scope",
            Self::AddClientDefaults { .. } | Self::RemoveClientDefaults { .. } => "client-default-scope",
            Self::CreateGroup { .. }
            | Self::DeleteGroup { .. }
            | Self::SetGroupAttributes { .. }
            | Self::Note { .. } => "group",
            Self::AddGroupRoles { .. } | Self::RemoveGroupRoles { .. } => "group-roles",
            Self::SetEvents { .. } | Self::SetRealmAttribute { .. } => "events",
            Self::CopyFlow { .. }
            | Self::ForceLogin { .. }
            | Self::SetResetFlow { .. }
            | Self::DeleteFlow { .. } => "reset-flow",
        }
    }
}

struct Names<'a>(&'a BTreeSet<String>);

impl fmt::Display for Names<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(String::as_str).collect();
        out.write_str(&names.join(", "))
    }
}

struct List<'a>(&'a BTreeSet<RoleRef>);

impl fmt::Display for List<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, role) in self.0.iter().enumerate() {
            if place > 0 {
                out.write_str(", ")?;
            }
            write!(out, "{role}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each writes what it knows, and nothing about the others'.
        self.clients_and_roles(out)?;
        self.scopes(out)?;
        self.groups_and_realm(out)
    }
}

impl Change {
    /// Clients, the record, roles.
    fn clients_and_roles(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateClient { client } => {
                write!(out, "+ client `{}`: {}", client.client_id, client.description)
            }
            Self::DeleteClient { client_id } => write!(out, "- client `{client_id}`"),
            Self::WriteRecord {
                client_id,
                record: Some(_),
            } => {
                write!(
                    out,
                    "~ client `{client_id}`: keep what was there before, for --undo"
                )
            }
            Self::WriteRecord {
                client_id,
                record: None,
            } => {
                write!(
                    out,
                    "~ client `{client_id}`: drop the record of what was there before"
                )
            }
            Self::GrantRuntime { client_id, role } => {
                write!(out, "+ service account of `{client_id}`: role {role}")
            }
            Self::RevokeRuntime { client_id, role } => {
                write!(out, "- service account of `{client_id}`: role {role}")
            }
            Self::CreateRole { name, description } => write!(out, "+ role `{name}`: {description}"),
            Self::DeleteRole { name } => write!(out, "- role `{name}`"),
            Self::AddChildren { role, children } => {
                write!(out, "~ role `{role}`: + {}", List(children))
            }
            Self::RemoveChildren { role, children } => {
                write!(out, "~ role `{role}`: - {}", List(children))
            }
            _ => Ok(()),
        }
    }

    /// Client scopes, their gates and defaults.
    fn scopes(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateScope { scope } => {
                write!(
                    out,
                    "+ client scope `{}`: {CLAIM} = \"{}\"",
                    scope.name,
                    claim_of(scope)
                )
            }
            Self::RepairScope { scope } => {
                write!(
                    out,
                    "~ client scope `{}`: only {CLAIM} = \"{}\"",
                    scope.name,
                    claim_of(scope)
                )
            }
            Self::DeleteScope { name } => write!(out, "- client scope `{name}`"),
            Self::AddGate { scope, roles } => {
                write!(out, "~ client scope `{scope}`: only for {}", List(roles))
            }
            Self::RemoveGate { scope, roles } => {
                write!(out, "~ client scope `{scope}`: no longer for {}", List(roles))
            }
            Self::AddRealmDefault { scope } => {
                write!(out, "~ new clients: + default scope `{scope}`")
            }
            Self::AddClientDefaults { client_id, scopes } => {
                write!(out, "~ client `{client_id}`: + default scopes {}", Names(scopes))
            }
            Self::RemoveRealmDefault { scope } => {
                write!(out, "~ new clients: - default scope `{scope}`")
            }
            Self::RemoveClientDefaults { client_id, scopes } => {
                write!(out, "~ client `{client_id}`: - default scopes {}", Names(scopes))
            }
            _ => Ok(()),
        }
    }

    /// Groups, events, attributes and flows of the realm.
    fn groups_and_realm(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateGroup { path, .. } => write!(out, "+ group {path}"),
            Self::SetGroupAttributes { path, .. } => write!(out, "~ group {path}: attributes"),
            Self::DeleteGroup { path } => write!(out, "- group {path}"),
            Self::Note { .. } => {
                write!(
                    out,
                    "~ group {}: ids of all this, and who administers the realm",
                    noted::path()
                )
            }
            Self::AddGroupRoles { path, roles } => write!(out, "~ group {path}: + {}", List(roles)),
            Self::RemoveGroupRoles { path, roles } => {
                write!(out, "~ group {path}: - {}", List(roles))
            }
            Self::SetEvents { settings } => write!(out, "~ events: {settings}"),
            Self::SetRealmAttribute {
                name,
                value: Some(value),
            } => write!(out, "~ realm: {name} = {value}"),
            Self::SetRealmAttribute { name, value: None } => write!(out, "~ realm: no {name}"),
            Self::CopyFlow { from, to } => write!(out, "+ flow `{to}`: a copy of `{from}`"),
            Self::ForceLogin { flow } => write!(out, "~ flow `{flow}`: Force login after reset"),
            Self::SetResetFlow { flow } => write!(out, "~ realm: reset flow `{flow}`"),
            Self::DeleteFlow { flow } => write!(out, "- flow `{flow}`"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for EventSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |value: bool| if value { "on" } else { "off" };
        let mut parts: Vec<String> = Vec::new();
        parts.extend(
            self.events_enabled
                .map(|value| format!("user events {}", on(value))),
        );
        parts.extend(self.events_expiration.map(|seconds| match seconds {
            0 => "kept for ever".to_owned(),
            seconds => format!("kept {} d", seconds / 86_400),
        }));
        parts.extend(
            self.enabled_event_types
                .as_ref()
                .map(|types| format!("{} types stored", types.len())),
        );
        parts.extend(
            self.admin_events_enabled
                .map(|value| format!("admin events {}", on(value))),
        );
        parts.extend(
            self.admin_events_details_enabled
                .map(|value| format!("their details {}", on(value))),
        );
        out.write_str(&parts.join(", "))
    }
}

fn claim_of(scope: &ClientScope) -> &str {
    let mapper = scope.protocol_mappers.first();
    mapper
        .and_then(|mapper| mapper.config.get("claim.value"))
        .map_or("", String::as_str)
}
