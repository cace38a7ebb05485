//! The realm itself and its flows. What writes here is for set-up, with an administrator's credential.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Admin, AdminError, Parts, decode};
use crate::idp::keycloak::representations::{Realm, ServerInfo};

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
