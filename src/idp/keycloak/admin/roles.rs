//! Roles and groups. What writes here is for set-up, with an administrator's credential.

use reqwest::Method;
use serde_json::json;

use super::text::Rows;
use super::{Admin, AdminError};
use crate::idp::keycloak::representations::{Group, Mappings, Role, User};

impl Admin {
    /// Roles of a client.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn roles_of_client(&self, client: &str) -> Result<Vec<Role>, AdminError> {
        self.get_with(&["clients", client, "roles"], vec![("max", "1000".to_owned())])
            .await
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
    pub async fn users_with_role(&self, name: &str, first: u32, max: u32) -> Result<Rows<User>, AdminError> {
        let query = vec![("first", first.to_string()), ("max", max.to_string())];
        self.rows(&["roles", name, "users"], query).await
    }

    /// Users a role of a client (internal id) is mapped to directly (one page).
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn users_with_client_role(
        &self,
        client: &str,
        name: &str,
        first: u32,
        max: u32,
    ) -> Result<Rows<User>, AdminError> {
        let query = vec![("first", first.to_string()), ("max", max.to_string())];
        self.rows(&["clients", client, "roles", name, "users"], query)
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
    pub async fn group_members(&self, id: &str, first: u32, max: u32) -> Result<Rows<User>, AdminError> {
        let query = vec![("first", first.to_string()), ("max", max.to_string())];
        self.rows(&["groups", id, "members"], query).await
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
}

fn optional<T>(answer: Result<T, AdminError>) -> Result<Option<T>, AdminError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(AdminError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
