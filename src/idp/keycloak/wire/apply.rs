//! Carrying changes out, one by one, in the order of the plan.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::change::Change;
use super::names::{RECORD, RoleRef};
use super::noted::{self, Noted};
use super::record::Record;
use super::snapshot::Snapshot;
use crate::idp::keycloak::admin::{Admin, AdminError};
use crate::idp::keycloak::representations::{Attributes, ClientScope, Group, Role};

/// Looks names up, once each.
pub(super) struct Applier<'a> {
    admin: &'a Admin,
    roles: BTreeMap<RoleRef, Role>,
    scopes: BTreeMap<String, String>,
    clients: BTreeMap<String, String>,
    /// Secrets that clients get when they are made, instead of new ones.
    kept: BTreeMap<String, SecretString>,
    /// Secrets of the clients made, by `client_id`.
    pub(super) secrets: BTreeMap<String, SecretString>,
}

fn missing(what: String) -> AdminError {
    AdminError::NotFound { what }
}

impl<'a> Applier<'a> {
    pub(super) fn new(admin: &'a Admin, kept: BTreeMap<String, SecretString>) -> Self {
        Self {
            admin,
            kept,
            roles: BTreeMap::new(),
            scopes: BTreeMap::new(),
            clients: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }

    async fn role(&mut self, wanted: &RoleRef) -> Result<Role, AdminError> {
        if let Some(role) = self.roles.get(wanted) {
            return Ok(role.clone());
        }
        let role = match &wanted.client {
            None => self.admin.role(&wanted.name).await?,
            Some(client) => {
                let id = self.client(client).await?;
                let roles = self.admin.roles_of_client(&id).await?;
                roles.into_iter().find(|role| role.name == wanted.name)
            }
        };
        let role = role.ok_or_else(|| missing(format!("role {wanted}")))?;
        self.roles.insert(wanted.clone(), role.clone());
        Ok(role)
    }

    async fn role_id(&mut self, name: &str) -> Result<String, AdminError> {
        let role = self.role(&RoleRef::realm(name)).await?;
        role.id.ok_or_else(|| missing(format!("id of role {name}")))
    }

    async fn all(&mut self, wanted: &BTreeSet<RoleRef>) -> Result<Vec<Role>, AdminError> {
        let mut roles = Vec::new();
        for role in wanted {
            roles.push(self.role(role).await?);
        }
        Ok(roles)
    }

    /// Roles by the internal id of their client; realm roles under `None`.
    async fn by_container(
        &mut self,
        wanted: &BTreeSet<RoleRef>,
    ) -> Result<Vec<(Option<String>, Vec<Role>)>, AdminError> {
        let mut sorted: BTreeMap<Option<String>, Vec<Role>> = BTreeMap::new();
        for role in wanted {
            let container = match &role.client {
                Some(client) => Some(self.client(client).await?),
                None => None,
            };
            let found = self.role(role).await?;
            sorted.entry(container).or_default().push(found);
        }
        Ok(sorted.into_iter().collect())
    }

    async fn client(&mut self, client_id: &str) -> Result<String, AdminError> {
        if let Some(id) = self.clients.get(client_id) {
            return Ok(id.clone());
        }
        let found = self.admin.client_by_client_id(client_id).await?;
        let id = found
            .and_then(|client| client.id)
            .ok_or_else(|| missing(format!("client {client_id}")))?;
        self.clients.insert(client_id.to_owned(), id.clone());
        Ok(id)
    }

    async fn scope(&mut self, name: &str) -> Result<String, AdminError> {
        if !self.scopes.contains_key(name) {
            let all = self.admin.client_scopes().await?;
            self.scopes = all
                .into_iter()
                .filter_map(|scope| Some((scope.name, scope.id?)))
                .collect();
        }
        self.scopes
            .get(name)
            .cloned()
            .ok_or_else(|| missing(format!("client scope {name}")))
    }

    async fn group(&self, path: &str) -> Result<Group, AdminError> {
        self.admin
            .group_by_path(path)
            .await?
            .ok_or_else(|| missing(format!("group {path}")))
    }

    async fn group_id(&self, path: &str) -> Result<String, AdminError> {
        self.group(path)
            .await?
            .id
            .ok_or_else(|| missing(format!("id of group {path}")))
    }

    /// Carries one change out.
    pub(super) async fn apply(&mut self, change: &Change) -> Result<(), AdminError> {
        match change {
            Change::CreateClient { .. }
            | Change::DeleteClient { .. }
            | Change::WriteRecord { .. }
            | Change::GrantRuntime { .. }
            | Change::RevokeRuntime { .. } => self.apply_client(change).await,
            Change::CreateRole { name, description } => self.admin.create_role(name, description).await,
            Change::DeleteRole { name } => {
                let id = self.role_id(name).await?;
                self.roles.remove(&RoleRef::realm(name));
                self.admin.delete_role(&id).await
            }
            Change::AddChildren { role, children } => {
                let (id, children) = (self.role_id(role).await?, self.all(children).await?);
                self.admin.add_composites(&id, &children).await
            }
            Change::RemoveChildren { role, children } => {
                let (id, children) = (self.role_id(role).await?, self.all(children).await?);
                self.admin.remove_composites(&id, &children).await
            }
            Change::CreateGroup { .. }
            | Change::SetGroupAttributes { .. }
            | Change::DeleteGroup { .. }
            | Change::Note { .. }
            | Change::AddGroupRoles { .. }
            | Change::RemoveGroupRoles { .. } => self.apply_group(change).await,
            Change::SetEvents { settings } => {
                let members = serde_json::to_value(settings)
                    .ok()
                    .and_then(|value| value.as_object().cloned());
                self.admin.patch_events_config(&members.unwrap_or_default()).await
            }
            Change::SetRealmAttribute { name, value } => {
                self.set_realm_attribute(name, value.as_deref()).await
            }
            Change::CopyFlow { from, to } => self.admin.copy_flow(from, to).await,
            Change::ForceLogin { flow } => self.force_login(flow).await,
            Change::SetResetFlow { flow } => {
                self.admin
                    .patch_realm(&Map::from_iter([(
                        "resetCredentialsFlow".to_owned(),
                        json!(flow),
                    )]))
                    .await
            }
            Change::DeleteFlow { flow } => self.delete_flow(flow).await,
            _ => self.apply_scope(change).await,
        }
    }

    async fn apply_client(&mut self, change: &Change) -> Result<(), AdminError> {
        match change {
            Change::CreateClient { client } => {
                let mut body = serde_json::to_value(client).unwrap_or_default();
                if let (Some(secret), Some(members)) =
                    (self.kept.get(&client.client_id), body.as_object_mut())
                {
                    members.insert("secret".to_owned(), json!(secret.expose_secret()));
                }
                let id = self.admin.create_client(&body).await?;
                if let Some(secret) = self.admin.client_secret(&id).await? {
                    self.secrets
                        .insert(client.client_id.clone(), SecretString::from(secret));
                }
                self.clients.insert(client.client_id.clone(), id);
                Ok(())
            }
            Change::DeleteClient { client_id } => {
                let id = self.client(client_id).await?;
                self.clients.remove(client_id);
                self.admin.delete_client(&id).await
            }
            Change::WriteRecord { client_id, record } => {
                self.write_record(client_id, record.as_deref()).await
            }
            Change::GrantRuntime { client_id, role } | Change::RevokeRuntime { client_id, role } => {
                let grant = matches!(change, Change::GrantRuntime { .. });
                self.runtime_role(client_id, role, grant).await
            }
            _ => Ok(()),
        }
    }

    async fn runtime_role(&mut self, client_id: &str, role: &RoleRef, grant: bool) -> Result<(), AdminError> {
        let id = self.client(client_id).await?;
        let user = self.admin.service_account(&id).await?.id.unwrap_or_default();
        let roles = [self.role(role).await?];
        match &role.client {
            Some(client) => {
                let container = self.client(client).await?;
                if grant {
                    self.admin.add_client_roles(&user, &container, &roles).await
                } else {
                    self.admin.remove_client_roles(&user, &container, &roles).await
                }
            }
            None if grant => self.admin.add_realm_roles(&user, &roles).await,
            None => self.admin.remove_realm_roles(&user, &roles).await,
        }
    }

    async fn write_record(&mut self, client_id: &str, record: Option<&Record>) -> Result<(), AdminError> {
        let found = self.admin.client_by_client_id(client_id).await?;
        let mut client = found.ok_or_else(|| missing(format!("client {client_id}")))?;
        // An empty value takes an attribute away; one that is left out stays.
        let text = record
            .map(|record| serde_json::to_string(record).unwrap_or_default())
            .unwrap_or_default();
        client.attributes.insert(RECORD.to_owned(), text);
        let id = client.id.clone().unwrap_or_default();
        self.admin.put_client(&id, &client).await
    }

    async fn apply_scope(&mut self, change: &Change) -> Result<(), AdminError> {
        match change {
            Change::CreateScope { scope } => {
                let id = self.admin.create_client_scope(scope).await?;
                self.scopes.insert(scope.name.clone(), id);
                Ok(())
            }
            Change::RepairScope { scope } => self.repair_scope(scope).await,
            Change::DeleteScope { name } => {
                let id = self.scope(name).await?;
                self.scopes.remove(name);
                self.admin.delete_client_scope(&id).await
            }
            Change::AddGate { scope, roles } => {
                let id = self.scope(scope).await?;
                let roles = self.all(roles).await?;
                self.admin.add_scope_gate(&id, &roles).await
            }
            Change::RemoveGate { scope, roles } => {
                let id = self.scope(scope).await?;
                for (client, roles) in self.by_container(roles).await? {
                    self.admin
                        .remove_scope_gate(&id, client.as_deref(), &roles)
                        .await?;
                }
                Ok(())
            }
            Change::AddRealmDefault { scope } => {
                let id = self.scope(scope).await?;
                self.admin.add_realm_default_scope(&id).await
            }
            Change::RemoveRealmDefault { scope } => {
                let id = self.scope(scope).await?;
                self.admin.remove_realm_default_scope(&id).await
            }
            Change::AddClientDefaults { client_id, scopes } => {
                let client = self.client(client_id).await?;
                for scope in scopes {
                    let scope = self.scope(scope).await?;
                    self.admin.add_client_default_scope(&client, &scope).await?;
                }
                Ok(())
            }
            Change::RemoveClientDefaults { client_id, scopes } => {
                let client = self.client(client_id).await?;
                for scope in scopes {
                    let scope = self.scope(scope).await?;
                    self.admin.remove_client_default_scope(&client, &scope).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn repair_scope(&mut self, wanted: &ClientScope) -> Result<(), AdminError> {
        let id = self.scope(&wanted.name).await?;
        let now = self.admin.client_scope(&id).await?;
        let mut scope = now.clone();
        scope.protocol.clone_from(&wanted.protocol);
        scope.attributes.extend(wanted.attributes.clone());
        self.admin.put_client_scope(&id, &scope).await?;
        for mapper in now
            .protocol_mappers
            .iter()
            .filter_map(|mapper| mapper.id.as_deref())
        {
            self.admin.delete_scope_mapper(&id, mapper).await?;
        }
        for mapper in &wanted.protocol_mappers {
            self.admin.create_scope_mapper(&id, mapper).await?;
        }
        Ok(())
    }

    async fn apply_group(&mut self, change: &Change) -> Result<(), AdminError> {
        match change {
            Change::CreateGroup { path, attributes } => self.create_group(path, attributes).await,
            Change::SetGroupAttributes { path, attributes } => {
                let mut group = self.group(path).await?;
                group.attributes.clone_from(attributes);
                let id = group.id.clone().unwrap_or_default();
                self.admin.put_group(&id, &group).await
            }
            Change::Note { client_id, .. } => self.write_down(client_id).await,
            Change::DeleteGroup { path } => {
                let id = self.group_id(path).await?;
                self.admin.delete_group(&id).await
            }
            Change::AddGroupRoles { path, roles } => {
                let id = self.group_id(path).await?;
                let roles = self.all(roles).await?;
                self.admin.add_group_realm_roles(&id, &roles).await
            }
            Change::RemoveGroupRoles { path, roles } => {
                let id = self.group_id(path).await?;
                for (client, roles) in self.by_container(roles).await? {
                    self.admin
                        .remove_group_roles(&id, client.as_deref(), &roles)
                        .await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Reads the realm as it is now, and writes down what the run-time account needs of it.
    async fn write_down(&self, runtime_client: &str) -> Result<(), AdminError> {
        let snapshot = Snapshot::read(self.admin, runtime_client).await?;
        let attributes = Noted::of(&snapshot).attributes();
        let path = noted::path();
        let Some(mut group) = self.admin.group_by_path(&path).await? else {
            return self.create_group(&path, &attributes).await;
        };
        group.attributes.extend(attributes);
        let id = group.id.clone().unwrap_or_default();
        self.admin.put_group(&id, &group).await
    }

    async fn create_group(&self, path: &str, attributes: &Attributes) -> Result<(), AdminError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = if parent.is_empty() {
            None
        } else {
            Some(self.group_id(parent).await?)
        };
        let group = Group {
            name: name.to_owned(),
            attributes: attributes.clone(),
            ..Group::default()
        };
        self.admin
            .create_group(parent.as_deref(), &group)
            .await
            .map(|_| ())
    }

    /// Sets or drops one attribute. The server drops every attribute that a PUT leaves out, so all go back.
    async fn set_realm_attribute(&self, name: &str, value: Option<&str>) -> Result<(), AdminError> {
        let mut attributes = self.admin.realm().await?.attributes.unwrap_or_default();
        match value {
            Some(value) => attributes.insert(name.to_owned(), json!(value)),
            None => attributes.remove(name),
        };
        self.admin
            .patch_realm(&Map::from_iter([("attributes".to_owned(), json!(attributes))]))
            .await
    }

    async fn force_login(&self, flow: &str) -> Result<(), AdminError> {
        let executions = self.admin.executions(flow).await?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let mail = executions
            .iter()
            .find(|execution| text(execution, "providerId").as_deref() == Some("reset-credential-email"))
            .ok_or_else(|| missing(format!("the e-mail step of flow {flow}")))?;
        let id = text(mail, "id").unwrap_or_default();
        let mut config = match text(mail, "authenticationConfig") {
            Some(config) => self
                .admin
                .execution_config(&config)
                .await?
                .get("config")
                .cloned()
                .unwrap_or_default(),
            None => json!({}),
        };
        if let Some(members) = config.as_object_mut() {
            members.insert("force-login".to_owned(), json!("true"));
        }
        // A config of its own: a copied flow may share its configs with the original.
        let config = json!({"alias": format!("{flow} email"), "config": config});
        self.admin.create_execution_config(&id, &config).await
    }

    async fn delete_flow(&self, alias: &str) -> Result<(), AdminError> {
        let flows = self.admin.flows().await?;
        let flow = flows
            .iter()
            .find(|flow| flow.get("alias").and_then(Value::as_str) == Some(alias));
        let id = flow.and_then(|flow| flow.get("id")).and_then(Value::as_str);
        self.admin
            .delete_flow(id.ok_or_else(|| missing(format!("flow {alias}")))?)
            .await
    }
}
