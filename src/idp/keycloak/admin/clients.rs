//! Clients and client scopes: for set-up, with an administrator's credential.

use reqwest::Method;
use serde_json::Value;

use super::{Admin, AdminError};
use crate::idp::keycloak::representations::{Client, ClientScope, ProtocolMapper, Role, User};

/// Clients per page.
const PAGE: u32 = 500;

impl Admin {
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
}
