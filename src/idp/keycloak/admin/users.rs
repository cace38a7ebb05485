//! Users: reading them, their credentials, sessions, roles and groups, and acting on them.
//! Reading takes `view-users` (and `query-users` to list), acting takes `manage-users`.

use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};

use super::text::Rows;
use super::{Admin, AdminError, Parts, encode};
use crate::idp::keycloak::representations::{
    Consent, Credential, FederatedIdentity, Group, Mappings, Role, Session, User,
};

/// The answer is about another user than the one that was asked for.
fn another(path: &[&str]) -> AdminError {
    AdminError::Malformed {
        what: format!("GET {}", path.join("/")),
        reason: "the answer is about another user".to_owned(),
    }
}

impl Admin {
    /// One user, whole. An answer about somebody else is believed by nobody: their address would be told what happened
    /// to this one, and their state would be put back over this one's.
    ///
    /// # Errors
    /// [`AdminError`]; [`AdminError::Malformed`] when the answer is about another user.
    pub async fn user(&self, id: &str) -> Result<User, AdminError> {
        let path = ["users", id];
        let user: User = self.get(&path).await?;
        if user.id.as_deref() == Some(id) {
            Ok(user)
        } else {
            Err(another(&path))
        }
    }

    /// One page of users, without attributes, in the server's order (user name); behind the last one it is empty. A page
    /// may be shorter than asked for and not be the last. Listing imports the users of a directory.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn users_page(&self, first: u32, max: u32) -> Result<Rows<User>, AdminError> {
        let query = vec![
            ("first", first.to_string()),
            ("max", max.to_string()),
            ("briefRepresentation", "true".to_owned()),
        ];
        self.rows(&["users"], query).await
    }

    /// Number of users in the realm.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn users_count(&self) -> Result<u64, AdminError> {
        self.get(&["users", "count"]).await
    }

    /// The user with exactly this name, if there is one.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn user_by_name(&self, username: &str) -> Result<Option<User>, AdminError> {
        self.search("username", username)
            .await
            .map(|found| found.into_iter().next())
    }

    /// Users with exactly this e-mail address.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn users_by_email(&self, email: &str) -> Result<Vec<User>, AdminError> {
        self.search("email", email).await
    }

    async fn search(&self, field: &str, value: &str) -> Result<Vec<User>, AdminError> {
        let query = vec![
            (field, value.to_owned()),
            ("exact", "true".to_owned()),
            ("briefRepresentation", "false".to_owned()),
        ];
        self.get_with(&["users"], query).await
    }

    /// Reads a user, lets `change` edit it, and puts the whole representation back: a member left
    /// out of a PUT may be wiped. Two writers at once can still lose one edit; the server has no
    /// condition to prevent that. `enabled` is sent only when the edit changed it: the server takes a
    /// `true` for an administrator's wish to open its own lock against guessing, and it may have been
    /// read while a directory was away, when every account of it shows `false`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn update_user<F>(&self, id: &str, change: F) -> Result<(), AdminError>
    where
        F: FnOnce(&mut User) + Send,
    {
        let mut user = self.user(id).await?;
        let was = user.enabled;
        change(&mut user);
        let path = ["users", id];
        let mut body = serde_json::to_value(&user).map_err(|error| AdminError::Malformed {
            what: path.join("/"),
            reason: error.to_string(),
        })?;
        if let Some(members) = body.as_object_mut().filter(|_| user.enabled == was) {
            members.remove("enabled");
        }
        self.send(Method::PUT, &path, &body).await
    }

    /// Switches an account on or off. Nothing is sent when it is so already. Sessions stay: end them with
    /// [`Admin::logout`].
    ///
    /// # Errors
    /// [`AdminError`]; a realm whose user profile no longer takes the account as it is answers
    /// [`AdminError::Unexpected`] with 400 to every edit.
    pub async fn set_enabled(&self, id: &str, enabled: bool) -> Result<(), AdminError> {
        let mut user = self.user(id).await?;
        if user.enabled == enabled {
            return Ok(());
        }
        user.enabled = enabled;
        self.send(Method::PUT, &["users", id], &user).await
    }

    /// Puts an account back as it is, switched off: whether its storage takes edits at all shows only so.
    ///
    /// # Errors
    /// [`AdminError`], as [`Admin::set_enabled`].
    pub async fn keep_disabled(&self, id: &str) -> Result<(), AdminError> {
        let mut user = self.user(id).await?;
        user.enabled = false;
        self.send(Method::PUT, &["users", id], &user).await
    }

    /// Sets the e-mail address and whether it counts as verified.
    ///
    /// # Errors
    /// [`AdminError`]; an address that somebody else has is [`AdminError::Conflict`].
    pub async fn set_email(&self, id: &str, email: &str, verified: bool) -> Result<(), AdminError> {
        self.update_user(id, |user| {
            user.email = Some(email.to_owned());
            user.email_verified = verified;
        })
        .await
    }

    /// Creates a user; answers with its id. Set-up only (the canary of a check).
    ///
    /// # Errors
    /// [`AdminError`]; a taken name is [`AdminError::Conflict`].
    pub async fn create_user(&self, user: &User) -> Result<String, AdminError> {
        self.create(&["users"], user).await
    }

    /// Deletes a user.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn delete_user(&self, id: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["users", id]).await
    }

    /// Credentials of a user, without secrets.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn credentials(&self, id: &str) -> Result<Vec<Credential>, AdminError> {
        self.get(&["users", id, "credentials"]).await
    }

    /// Deletes one credential.
    ///
    /// # Errors
    /// [`AdminError`]; one that is gone already is [`AdminError::NotFound`].
    pub async fn delete_credential(&self, id: &str, credential: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["users", id, "credentials", credential])
            .await
    }

    /// Sets a password; a temporary one must be changed at the next log-in.
    ///
    /// # Errors
    /// [`AdminError`]; one that the realm's password policy refuses is [`AdminError::Unexpected`] with 400.
    pub async fn reset_password(
        &self,
        id: &str,
        password: &SecretString,
        temporary: bool,
    ) -> Result<(), AdminError> {
        let body = serde_json::json!({
            "type": "password",
            "value": password.expose_secret(),
            "temporary": temporary,
        });
        self.send(Method::PUT, &["users", id, "reset-password"], &body)
            .await
    }

    /// Has Keycloak mail a link that makes the user do `actions` (such as `UPDATE_PASSWORD`);
    /// `lifespan` in seconds, the realm's setting (12 h) when absent.
    ///
    /// # Errors
    /// [`AdminError`]; a realm without a mail server, or a user without an address, is
    /// [`AdminError::Unexpected`].
    pub async fn execute_actions_email(
        &self,
        id: &str,
        actions: &[&str],
        lifespan: Option<u32>,
    ) -> Result<(), AdminError> {
        let path = ["users", id, "execute-actions-email"];
        let query = lifespan
            .iter()
            .map(|seconds| ("lifespan", seconds.to_string()))
            .collect();
        let body = Some(encode(&path, actions)?);
        self.call(Method::PUT, &path, Parts { query, body })
            .await
            .map(|_| ())
    }

    /// Groups the user is a direct member of.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn user_groups(&self, id: &str) -> Result<Vec<Group>, AdminError> {
        self.get_with(&["users", id, "groups"], vec![("max", "1000".to_owned())])
            .await
    }

    /// Puts the user into a group. Idempotent.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn join_group(&self, id: &str, group: &str) -> Result<(), AdminError> {
        self.act(Method::PUT, &["users", id, "groups", group]).await
    }

    /// Takes the user out of a group. Idempotent.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn leave_group(&self, id: &str, group: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["users", id, "groups", group]).await
    }

    /// Roles mapped directly to the user.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn role_mappings(&self, id: &str) -> Result<Mappings, AdminError> {
        self.get(&["users", id, "role-mappings"]).await
    }

    /// Realm roles mapped directly to the user.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn realm_roles(&self, id: &str) -> Result<Vec<Role>, AdminError> {
        self.get(&["users", id, "role-mappings", "realm"]).await
    }

    /// Realm roles the user has in effect: direct, by composites, by groups. What a hold is read back from.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn effective_realm_roles(&self, id: &str) -> Result<Vec<Role>, AdminError> {
        self.get(&["users", id, "role-mappings", "realm", "composite"])
            .await
    }

    /// Realm roles that members of a group have through it, composites taken apart.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn group_effective_realm_roles(&self, group: &str) -> Result<Vec<Role>, AdminError> {
        self.get(&["groups", group, "role-mappings", "realm", "composite"])
            .await
    }

    /// Maps realm roles to the user; only id and name of each role are looked at. Idempotent.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn add_realm_roles(&self, id: &str, roles: &[Role]) -> Result<(), AdminError> {
        self.send(Method::POST, &["users", id, "role-mappings", "realm"], roles)
            .await
    }

    /// Takes realm roles from the user. Idempotent.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_realm_roles(&self, id: &str, roles: &[Role]) -> Result<(), AdminError> {
        self.send(Method::DELETE, &["users", id, "role-mappings", "realm"], roles)
            .await
    }

    /// Roles of one client mapped directly to the user (`client`: internal id).
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn client_roles(&self, id: &str, client: &str) -> Result<Vec<Role>, AdminError> {
        self.get(&["users", id, "role-mappings", "clients", client]).await
    }

    /// Roles of one client (internal id) that the user has in effect: direct, by composites, by groups. Takes
    /// `view-clients`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn effective_roles_of_client(&self, id: &str, client: &str) -> Result<Vec<Role>, AdminError> {
        self.get(&["users", id, "role-mappings", "clients", client, "composite"])
            .await
    }

    /// Maps roles of one client to the user. Set-up only.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn add_client_roles(&self, id: &str, client: &str, roles: &[Role]) -> Result<(), AdminError> {
        self.send(
            Method::POST,
            &["users", id, "role-mappings", "clients", client],
            roles,
        )
        .await
    }

    /// Takes roles of one client from the user. Set-up only.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_client_roles(
        &self,
        id: &str,
        client: &str,
        roles: &[Role],
    ) -> Result<(), AdminError> {
        self.send(
            Method::DELETE,
            &["users", id, "role-mappings", "clients", client],
            roles,
        )
        .await
    }

    /// Online sessions of the user.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn sessions(&self, id: &str) -> Result<Vec<Session>, AdminError> {
        self.sessions_at(&["users", id, "sessions"], id).await
    }

    /// Offline sessions of the user at one client (internal id; [`Admin::consents`] names them).
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn offline_sessions(&self, id: &str, client: &str) -> Result<Vec<Session>, AdminError> {
        self.sessions_at(&["users", id, "offline-sessions", client], id)
            .await
    }

    async fn sessions_at(&self, path: &[&str], id: &str) -> Result<Vec<Session>, AdminError> {
        let sessions: Vec<Session> = self.get(path).await?;
        let others = |session: &Session| session.user_id.as_deref().is_some_and(|of| of != id);
        if sessions.iter().any(others) {
            return Err(another(path));
        }
        Ok(sessions)
    }

    /// What the user granted to clients, offline tokens included.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn consents(&self, id: &str) -> Result<Vec<Consent>, AdminError> {
        self.get(&["users", id, "consents"]).await
    }

    /// Ends one session, online or offline.
    ///
    /// # Errors
    /// [`AdminError`]; one that is gone already is [`AdminError::NotFound`].
    pub async fn delete_session(&self, session: &str, offline: bool) -> Result<(), AdminError> {
        let query = vec![("isOffline", offline.to_string())];
        self.call(
            Method::DELETE,
            &["sessions", session],
            Parts { query, body: None },
        )
        .await
        .map(|_| ())
    }

    /// Ends every session and sets the user's not-before: all refresh and offline tokens die.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn logout(&self, id: &str) -> Result<(), AdminError> {
        self.act(Method::POST, &["users", id, "logout"]).await
    }

    /// Links to upstream identity providers.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn federated_identities(&self, id: &str) -> Result<Vec<FederatedIdentity>, AdminError> {
        self.get(&["users", id, "federated-identity"]).await
    }

    /// Takes a link to an upstream identity provider away.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_federated_identity(&self, id: &str, provider: &str) -> Result<(), AdminError> {
        self.act(Method::DELETE, &["users", id, "federated-identity", provider])
            .await
    }
}
