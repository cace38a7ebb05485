//! The realm itself: roles, groups, client scopes, clients, flows. Everything that writes here is
//! for set-up, with an administrator's credential.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Admin, AdminError, Parts, decode};
use crate::idp::keycloak::representations::{
    Client, ClientScope, Group, Mappings, ProtocolMapper, Realm, Role, ServerInfo, User,
};

/// Objects per page where the server pages.
const PAGE: u32 = 500;

impl Admin {
    /// Version and enumerations of the server.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn server_info(&self) -> Result<ServerInfo, AdminError> {
        let reply = self
            .call_at(Method::GET, &["admin", "serverinfo"], Parts::default())
            .await?;
        decode("GET serverinfo", &reply.body)
    }

    /// The realm; without `view-realm` little more than its name.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn realm(&self) -> Result<Realm, AdminError> {
        self.get(&[]).await
    }

    /// Sets some members of the realm. Seen on 26.7.4: members that are left out stay as they are,
    /// but `attributes` replaces all attributes.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn patch_realm(&self, members: &Map<String, Value>) -> Result<(), AdminError> {
        self.send(Method::PUT, &[], members).await
    }

    /// All clients. Role: `view-clients`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn clients(&self) -> Result<Vec<Client>, AdminError> {
        let mut all: Vec<Client> = Vec::new();
        let mut first = 0;
        loop {
            let query = vec![("first", first.to_string()), ("max", PAGE.to_string())];
            let page: Vec<Client> = self.get_with(&["clients"], query).await?;
            let last = page.len() < PAGE as usize;
            all.extend(page);
            if last {
                return Ok(all);
            }
            first += PAGE;
        }
    }

    /// The client with this `client_id`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn client_by_client_id(&self, client_id: &str) -> Result<Option<Client>, AdminError> {
        let found: Vec<Client> = self
            .get_with(&["clients"], vec![("clientId", client_id.to_owned())])
            .await?;
        Ok(found.into_iter().find(|client| client.client_id == client_id))
    }

    /// Creates a client; answers with its internal id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_client(&self, client: &Value) -> Result<String, AdminError> {
        self.create(&["clients"], client).await
    }

    /// Puts a whole client back.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn put_client(&self, id: &str, client: &Client) -> Result<(), AdminError> {
        self.send(Method::PUT, &["clients", id], client).await
    }

    /// Deletes a client.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn delete_client(&self, id: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["clients", id]).await
    }

    /// Secret of a confidential client, if it has one.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn client_secret(&self, id: &str) -> Result<Option<String>, AdminError> {
        let secret: Value = self.get(&["clients", id, "client-secret"]).await?;
        Ok(secret.get("value").and_then(Value::as_str).map(str::to_owned))
    }

    /// The user behind a client's service account.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn service_account(&self, client: &str) -> Result<User, AdminError> {
        self.get(&["clients", client, "service-account-user"]).await
    }

    /// Roles of a client.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn roles_of_client(&self, client: &str) -> Result<Vec<Role>, AdminError> {
        self.get_with(&["clients", client, "roles"], vec![("max", "1000".to_owned())])
            .await
    }

    /// Realm roles, all pages.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn roles(&self) -> Result<Vec<Role>, AdminError> {
        let mut all: Vec<Role> = Vec::new();
        let mut first = 0;
        loop {
            let query = vec![("first", first.to_string()), ("max", PAGE.to_string())];
            let page: Vec<Role> = self.get_with(&["roles"], query).await?;
            let last = page.len() < PAGE as usize;
            all.extend(page);
            if last {
                return Ok(all);
            }
            first += PAGE;
        }
    }

    /// A realm role by name.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn role(&self, name: &str) -> Result<Option<Role>, AdminError> {
        optional(self.get(&["roles", name]).await)
    }

    /// Creates a plain realm role.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_role(&self, name: &str, description: &str) -> Result<(), AdminError> {
        self.send(
            Method::POST,
            &["roles"],
            &json!({"name": name, "description": description}),
        )
        .await
    }

    /// Deletes a role by id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn delete_role(&self, id: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["roles-by-id", id]).await
    }

    /// Children of a composite role.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn composites(&self, id: &str) -> Result<Vec<Role>, AdminError> {
        self.get(&["roles-by-id", id, "composites"]).await
    }

    /// Adds children to a role.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn add_composites(&self, id: &str, children: &[Role]) -> Result<(), AdminError> {
        self.send(Method::POST, &["roles-by-id", id, "composites"], children)
            .await
    }

    /// Takes children from a role.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_composites(&self, id: &str, children: &[Role]) -> Result<(), AdminError> {
        self.send(Method::DELETE, &["roles-by-id", id, "composites"], children)
            .await
    }

    /// Users a role is mapped to directly (one page).
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn users_with_role(&self, name: &str, first: u32, max: u32) -> Result<Vec<User>, AdminError> {
        let query = vec![("first", first.to_string()), ("max", max.to_string())];
        self.get_with(&["roles", name, "users"], query).await
    }

    /// Groups a role is mapped to directly.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn groups_with_role(&self, name: &str) -> Result<Vec<Group>, AdminError> {
        self.get_with(&["roles", name, "groups"], vec![("max", "1000".to_owned())])
            .await
    }

    /// The group at a path, such as `/reentry/hold.none`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn group_by_path(&self, path: &str) -> Result<Option<Group>, AdminError> {
        let segments: Vec<&str> = std::iter::once("group-by-path")
            .chain(path.split('/').filter(|part| !part.is_empty()))
            .collect();
        optional(self.get(&segments).await)
    }

    /// A group by id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn group(&self, id: &str) -> Result<Group, AdminError> {
        self.get(&["groups", id]).await
    }

    /// Children of a group.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn subgroups(&self, id: &str) -> Result<Vec<Group>, AdminError> {
        let query = vec![
            ("max", "1000".to_owned()),
            ("briefRepresentation", "false".to_owned()),
        ];
        self.get_with(&["groups", id, "children"], query).await
    }

    /// Creates a group, below `parent` (id) when given; answers with its id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_group(&self, parent: Option<&str>, group: &Group) -> Result<String, AdminError> {
        match parent {
            None => self.create(&["groups"], group).await,
            Some(parent) => self.create(&["groups", parent, "children"], group).await,
        }
    }

    /// Puts a group's name and attributes.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn put_group(&self, id: &str, group: &Group) -> Result<(), AdminError> {
        self.send(Method::PUT, &["groups", id], group).await
    }

    /// Deletes a group and its children.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn delete_group(&self, id: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["groups", id]).await
    }

    /// Direct members of a group (one page).
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn group_members(&self, id: &str, first: u32, max: u32) -> Result<Vec<User>, AdminError> {
        let query = vec![("first", first.to_string()), ("max", max.to_string())];
        self.get_with(&["groups", id, "members"], query).await
    }

    /// Roles mapped to a group.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn group_role_mappings(&self, id: &str) -> Result<Mappings, AdminError> {
        self.get(&["groups", id, "role-mappings"]).await
    }

    /// Maps realm roles to a group.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn add_group_realm_roles(&self, id: &str, roles: &[Role]) -> Result<(), AdminError> {
        self.send(Method::POST, &["groups", id, "role-mappings", "realm"], roles)
            .await
    }

    /// Takes realm roles, or roles of `client` (internal id), from a group.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_group_roles(
        &self,
        id: &str,
        client: Option<&str>,
        roles: &[Role],
    ) -> Result<(), AdminError> {
        match client {
            None => {
                self.send(Method::DELETE, &["groups", id, "role-mappings", "realm"], roles)
                    .await
            }
            Some(client) => {
                self.send(
                    Method::DELETE,
                    &["groups", id, "role-mappings", "clients", client],
                    roles,
                )
                .await
            }
        }
    }

    /// All client scopes with their mappers.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn client_scopes(&self) -> Result<Vec<ClientScope>, AdminError> {
        self.get(&["client-scopes"]).await
    }

    /// One client scope with its mappers.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn client_scope(&self, id: &str) -> Result<ClientScope, AdminError> {
        self.get(&["client-scopes", id]).await
    }

    /// Creates a client scope with its mappers; answers with its id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_client_scope(&self, scope: &ClientScope) -> Result<String, AdminError> {
        self.create(&["client-scopes"], scope).await
    }

    /// Puts name, protocol and attributes of a client scope; its mappers stay.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn put_client_scope(&self, id: &str, scope: &ClientScope) -> Result<(), AdminError> {
        self.send(Method::PUT, &["client-scopes", id], scope).await
    }

    /// Deletes a client scope.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn delete_client_scope(&self, id: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["client-scopes", id]).await
    }

    /// Adds a mapper to a client scope; answers with its id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_scope_mapper(
        &self,
        scope: &str,
        mapper: &ProtocolMapper,
    ) -> Result<String, AdminError> {
        self.create(&["client-scopes", scope, "protocol-mappers", "models"], mapper)
            .await
    }

    /// Deletes a mapper of a client scope.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn delete_scope_mapper(&self, scope: &str, mapper: &str) -> Result<(), AdminError> {
        self.act(
            Method::DELETE,
            &["client-scopes", scope, "protocol-mappers", "models", mapper],
        )
        .await
    }

    /// Roles in the scope mappings of a client scope: who has one of them gets the scope.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn scope_gate(&self, scope: &str) -> Result<Mappings, AdminError> {
        self.get(&["client-scopes", scope, "scope-mappings"]).await
    }

    /// Adds realm roles to the scope mappings of a client scope.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn add_scope_gate(&self, scope: &str, roles: &[Role]) -> Result<(), AdminError> {
        self.send(
            Method::POST,
            &["client-scopes", scope, "scope-mappings", "realm"],
            roles,
        )
        .await
    }

    /// Takes realm roles, or roles of `client` (internal id), from the scope mappings of a client scope.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_scope_gate(
        &self,
        scope: &str,
        client: Option<&str>,
        roles: &[Role],
    ) -> Result<(), AdminError> {
        match client {
            None => {
                self.send(
                    Method::DELETE,
                    &["client-scopes", scope, "scope-mappings", "realm"],
                    roles,
                )
                .await
            }
            Some(client) => {
                self.send(
                    Method::DELETE,
                    &["client-scopes", scope, "scope-mappings", "clients", client],
                    roles,
                )
                .await
            }
        }
    }

    /// Scopes that a new client gets by default; only id and name are filled.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn realm_default_scopes(&self) -> Result<Vec<ClientScope>, AdminError> {
        self.get(&["default-default-client-scopes"]).await
    }

    /// Makes a scope a default of new clients.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn add_realm_default_scope(&self, scope: &str) -> Result<(), AdminError> {
        self.act(Method::PUT, &["default-default-client-scopes", scope])
            .await
    }

    /// Takes a scope from the defaults of new clients.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_realm_default_scope(&self, scope: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["default-default-client-scopes", scope])
            .await
    }

    /// Default scopes of a client; only id and name are filled.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn client_default_scopes(&self, client: &str) -> Result<Vec<ClientScope>, AdminError> {
        self.get(&["clients", client, "default-client-scopes"]).await
    }

    /// Adds a default scope to a client.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn add_client_default_scope(&self, client: &str, scope: &str) -> Result<(), AdminError> {
        self.act(Method::PUT, &["clients", client, "default-client-scopes", scope])
            .await
    }

    /// Takes a default scope from a client.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_client_default_scope(&self, client: &str, scope: &str) -> Result<(), AdminError> {
        self.act(
            Method::DELETE,
            &["clients", client, "default-client-scopes", scope],
        )
        .await
    }

    /// The claims of the access token that a client would get for a user who asked for `scope`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn example_access_token(
        &self,
        client: &str,
        user: &str,
        scope: &str,
    ) -> Result<Value, AdminError> {
        let path = [
            "clients",
            client,
            "evaluate-scopes",
            "generate-example-access-token",
        ];
        self.get_with(
            &path,
            vec![("userId", user.to_owned()), ("scope", scope.to_owned())],
        )
        .await
    }

    /// User storage and other components of a provider type.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn components(&self, kind: &str) -> Result<Vec<Value>, AdminError> {
        self.get_with(&["components"], vec![("type", kind.to_owned())])
            .await
    }

    /// Authentication flows.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn flows(&self) -> Result<Vec<Value>, AdminError> {
        self.get(&["authentication", "flows"]).await
    }

    /// Copies a flow under a new alias.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn copy_flow(&self, alias: &str, new: &str) -> Result<(), AdminError> {
        self.send(
            Method::POST,
            &["authentication", "flows", alias, "copy"],
            &json!({"newName": new}),
        )
        .await
    }

    /// Deletes a flow by id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn delete_flow(&self, id: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["authentication", "flows", id]).await
    }

    /// Executions of a flow, its sub-flows' included.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn executions(&self, alias: &str) -> Result<Vec<Value>, AdminError> {
        self.get(&["authentication", "flows", alias, "executions"]).await
    }

    /// Gives an execution its configuration.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_execution_config(&self, execution: &str, config: &Value) -> Result<(), AdminError> {
        self.send(
            Method::POST,
            &["authentication", "executions", execution, "config"],
            config,
        )
        .await
    }

    /// The configuration of an execution by its id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn execution_config(&self, id: &str) -> Result<Value, AdminError> {
        self.get(&["authentication", "config", id]).await
    }

    /// The realm with clients, roles and groups, as the export has it (no users).
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn partial_export(&self) -> Result<Value, AdminError> {
        let query = vec![
            ("exportClients", "true".to_owned()),
            ("exportGroupsAndRoles", "true".to_owned()),
        ];
        let reply = self
            .call(Method::POST, &["partial-export"], Parts { query, body: None })
            .await?;
        decode("POST partial-export", &reply.body)
    }
}

fn optional<T>(answer: Result<T, AdminError>) -> Result<Option<T>, AdminError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(AdminError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
