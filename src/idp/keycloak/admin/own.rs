//! What our own token says about us and about the server's clock, and reading of profiles.
//!
//! Keycloak sends no `Date` header, so the instant at which it issued our token is the only clock of
//! the server that an account with four roles gets to see.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{Admin, AdminError};
use crate::idp::keycloak::representations::Attributes;

/// What our own access token says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Id of our service account (`sub`): the actor of our own admin events. Absent when the client
    /// has no `basic` scope.
    pub account: Option<String>,
    /// Our roles of the client `realm-management`.
    pub roles: BTreeSet<String>,
    /// When the server issued the token, by its own clock: milliseconds since the epoch. The token
    /// says whole seconds, so this is the middle of one.
    pub issued: i64,
    /// How long ago that was by our own, steady, clock.
    pub age: Duration,
}

/// One effective client role of a user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ClientRole {
    /// Name of the role.
    pub role: String,
    /// `client_id` of its client.
    pub client: String,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    iat: i64,
    #[serde(default)]
    resource_access: BTreeMap<String, Roles>,
}

#[derive(Default, Deserialize)]
struct Roles {
    #[serde(default)]
    roles: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(default)]
    attributes: Vec<Declared>,
    #[serde(default)]
    unmanaged_attribute_policy: Option<String>,
}

#[derive(Deserialize)]
struct Declared {
    name: String,
    #[serde(default)]
    permissions: Permissions,
}

#[derive(Default, Deserialize)]
struct Permissions {
    #[serde(default)]
    edit: BTreeSet<String>,
}

/// Which attributes only administrators may edit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminOnly {
    /// Declared ones.
    pub declared: BTreeSet<String>,
    /// Everything undeclared too.
    pub undeclared: bool,
}

impl Admin {
    /// Who we are, what we may, and how the server's clock stands; from the token in use.
    ///
    /// # Errors
    /// [`AdminError`]; [`AdminError::Malformed`] when the token is no JWT.
    pub async fn own(&self) -> Result<Own, AdminError> {
        self.bearer(None).await?;
        let slot = self.token.lock().await;
        let Some(token) = slot.as_ref() else {
            return Ok(Own::default());
        };
        let malformed = |reason: String| AdminError::Malformed {
            what: "POST protocol/openid-connect/token".to_owned(),
            reason,
        };
        // Our own token over our own connection: read, not verified.
        let body = token.value.expose_secret().split('.').nth(1);
        let body = body.ok_or_else(|| malformed("the access token is no JWT".to_owned()))?;
        let body = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|error| malformed(error.to_string()))?;
        let claims: Claims = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
        let roles = claims.resource_access.get("realm-management");
        Ok(Own {
            account: claims.sub,
            roles: roles.map(|of| of.roles.clone()).unwrap_or_default(),
            issued: claims.iat.saturating_mul(1000).saturating_add(500),
            age: token.fetched.elapsed(),
        })
    }

    /// Which user attributes only administrators may edit (the realm's user profile).
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn admin_only_attributes(&self) -> Result<AdminOnly, AdminError> {
        let profile: Profile = self.get(&["users", "profile"]).await?;
        let admin_only = |of: &Declared| of.permissions.edit.iter().all(|who| who == "admin");
        let declared = profile.attributes.iter().filter(|of| admin_only(of));
        Ok(AdminOnly {
            declared: declared.map(|of| of.name.clone()).collect(),
            undeclared: matches!(
                profile.unmanaged_attribute_policy.as_deref(),
                Some("ADMIN_EDIT" | "ADMIN_VIEW")
            ),
        })
    }

    /// Attributes of a user that the profile does not declare.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn undeclared_attributes(&self, id: &str) -> Result<Attributes, AdminError> {
        self.get(&["users", id, "unmanagedAttributes"]).await
    }

    /// Client roles that a user has in effect, of the clients that our account may view: without
    /// `view-clients` there are none, and the server says so by an empty list, not by an error.
    /// The path belongs to the admin console's own API; a server that lacks it gives none.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn effective_client_roles(&self, id: &str) -> Result<Vec<ClientRole>, AdminError> {
        let path = ["ui-ext", "effective-roles", "users", id];
        match self.get(&path).await {
            Err(AdminError::NotFound { .. }) => Ok(Vec::new()),
            other => other,
        }
    }
}
