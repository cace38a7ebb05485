//! A real Keycloak: the one the test run started, or one of our own, and realms that end with their test.

pub mod export;
pub mod pages;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::clock::{env, now_ms};
use crate::rp::Reply;

/// Administrator of the test server, as it is bootstrapped.
pub const ADMIN: (&str, &str) = ("admin", "admin");

/// The version tests expect unless `KEYCLOAK_VERSION` says another.
pub const DEFAULT_VERSION: &str = "26.7.4";

/// A Keycloak server seen by its administrator.
#[derive(Debug, Clone)]
pub struct Keycloak {
    base: String,
    http: reqwest::Client,
    token: Arc<Mutex<Option<(String, Instant)>>>,
}

impl Keycloak {
    /// The server named by `REENTRY_TEST_KEYCLOAK`, or one that this process starts once and that ends with
    /// it. Panics when there is neither: a test that needs Keycloak cannot pass without.
    pub async fn get() -> Self {
        let base = match env("REENTRY_TEST_KEYCLOAK") {
            Some(base) => base.trim_end_matches('/').to_owned(),
            None => {
                let started = tokio::task::spawn_blocking(server::shared).await;
                started.expect("a Keycloak: run scripts/install, or set REENTRY_TEST_KEYCLOAK")
            }
        };
        let keycloak = Self::at(&base);
        keycloak
            .admin(Method::GET, "/master", None)
            .await
            .expect_status(200);
        keycloak
    }

    /// A server at this base URL, without asking whether it is there. For a URL through a proxy, too.
    pub fn at(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .expect("an HTTP client");
        Self {
            base: base.trim_end_matches('/').to_owned(),
            http,
            token: Arc::default(),
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Makes a realm from its JSON representation under a name of its own (`realm` and `id` are set here).
    pub async fn realm(&self, mut representation: Value) -> Realm {
        let name = format!("t{:x}-{}", now_ms(), &crate::rp::random()[..6]).replace('_', "x");
        representation["realm"] = json!(name);
        representation
            .as_object_mut()
            .expect("a realm is a JSON object")
            .remove("id");
        let realm = Realm {
            keycloak: self.clone(),
            name,
        };
        self.admin(Method::POST, "", Some(&representation))
            .await
            .expect_status(201);
        realm
    }

    /// A call to `/admin/realms{path}` with the administrator's token.
    pub async fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let token = self.admin_token().await;
        let url = format!("{}/admin/realms{path}", self.base);
        let mut request = self.http.request(method.clone(), &url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .unwrap_or_else(|error| panic!("{method} {url}: {error:?}"));
        Reply::read(response).await
    }

    /// A token of the administrator of the master realm, at most 30 s old (Keycloak gives it 60 s).
    pub async fn admin_token(&self) -> String {
        let mut cached = self.token.lock().await;
        if let Some((token, since)) = cached.as_ref()
            && since.elapsed() < Duration::from_secs(30)
        {
            return token.clone();
        }
        let url = format!("{}/realms/master/protocol/openid-connect/token", self.base);
        let form = [
            ("grant_type", "password"),
            ("client_id", "admin-cli"),
            ("username", ADMIN.0),
            ("password", ADMIN.1),
        ];
        let response = self.http.post(&url).form(&form).send().await;
        let response = response.unwrap_or_else(|error| panic!("Keycloak at {url}: {error:?}"));
        let token = Reply::read(response)
            .await
            .expect_status(200)
            .text("access_token")
            .to_owned();
        *cached = Some((token.clone(), Instant::now()));
        token
    }
}

/// A realm of one test; deleted when dropped.
#[derive(Debug)]
pub struct Realm {
    keycloak: Keycloak,
    name: String,
}

impl Realm {
    /// The realm's name, unique to this test.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server it is on.
    pub fn keycloak(&self) -> &Keycloak {
        &self.keycloak
    }

    /// `{base}/realms/{name}`.
    pub fn issuer(&self) -> String {
        format!("{}/realms/{}", self.keycloak.base, self.name)
    }

    /// `GET /admin/realms/{name}/{path}`, which must succeed.
    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await.expect_success(path).json
    }

    /// `POST`, which must succeed; gives the id at the end of `Location`, empty without one.
    pub async fn post(&self, path: &str, body: &Value) -> String {
        let reply = self
            .call(Method::POST, path, Some(body))
            .await
            .expect_success(path);
        reply
            .header("location")
            .and_then(|at| at.rsplit('/').next())
            .unwrap_or_default()
            .to_owned()
    }

    /// `PUT`, which must succeed.
    pub async fn put(&self, path: &str, body: &Value) {
        self.call(Method::PUT, path, Some(body))
            .await
            .expect_success(path);
    }

    /// `DELETE`, which must succeed; some of Keycloak's deletions have a body.
    pub async fn delete(&self, path: &str, body: Option<&Value>) {
        self.call(Method::DELETE, path, body).await.expect_success(path);
    }

    /// Any admin call below the realm, `path` without a leading slash (empty for the realm itself).
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let path = if path.is_empty() {
            format!("/{}", self.name)
        } else {
            format!("/{}/{path}", self.name)
        };
        self.keycloak.admin(method, &path, body).await
    }

    /// Changes some members of the realm's representation.
    pub async fn patch(&self, members: Value) {
        let mut representation = self.get("").await;
        for (name, value) in members.as_object().expect("members of a realm") {
            representation[name] = value.clone();
        }
        self.put("", &representation).await;
    }

    /// The id of a user.
    pub async fn user_id(&self, username: &str) -> String {
        let found = self.get(&format!("users?exact=true&username={username}")).await;
        found[0]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no user {username:?}"))
            .to_owned()
    }

    /// The internal id of a client.
    pub async fn client_uuid(&self, client_id: &str) -> String {
        let found = self.get(&format!("clients?clientId={client_id}")).await;
        found[0]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no client {client_id:?}"))
            .to_owned()
    }

    /// The id of a client scope, if there is one of this name.
    pub async fn client_scope_id(&self, name: &str) -> Option<String> {
        let scopes = self.get("client-scopes").await;
        let found = scopes.as_array()?.iter().find(|scope| scope["name"] == name)?;
        found["id"].as_str().map(str::to_owned)
    }

    /// Gives the service account of a client these roles of `realm-management`.
    pub async fn grant_realm_management(&self, client_id: &str, roles: &[&str]) {
        let uuid = self.client_uuid(client_id).await;
        let user = self.get(&format!("clients/{uuid}/service-account-user")).await;
        let user = user["id"].as_str().expect("a service account");
        let management = self.client_uuid("realm-management").await;
        let mut granted = Vec::new();
        for role in roles {
            granted.push(self.get(&format!("clients/{management}/roles/{role}")).await);
        }
        self.post(
            &format!("users/{user}/role-mappings/clients/{management}"),
            &json!(granted),
        )
        .await;
    }

    /// The stored user events, newest first.
    pub async fn events(&self) -> Vec<Value> {
        self.get("events?max=500")
            .await
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// The stored admin events, newest first.
    pub async fn admin_events(&self) -> Vec<Value> {
        self.get("admin-events?max=500")
            .await
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// All that an administrator can set in this realm, in a form in which two exports of the same
    /// configuration are equal: everything sorted, ids and other values made up by the server left out.
    pub async fn export(&self) -> Value {
        export::export(self).await
    }
}

impl Drop for Realm {
    fn drop(&mut self) {
        let (base, name) = (self.keycloak.base.clone(), self.name.clone());
        // A runtime of its own: the test's may be current-thread and cannot wait inside a destructor.
        let deletion = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let reply = Keycloak::at(&base)
                    .admin(Method::DELETE, &format!("/{name}"), None)
                    .await;
                assert!(
                    matches!(reply.status, 204 | 404),
                    "realm {name}: {} {}",
                    reply.status,
                    reply.body
                );
            });
        });
        if deletion.join().is_err() && !std::thread::panicking() {
            panic!("realm {} could not be deleted", self.name);
        }
    }
}

impl Reply {
    #[track_caller]
    fn expect_success(self, path: &str) -> Self {
        assert!(
            (200..300).contains(&self.status),
            "{path}: {} {}",
            self.status,
            self.body
        );
        self
    }
}

/// A realm as a company would have it: events kept, forgot-password on, log-in by e-mail, mails to
/// `smtp` (see `MailSink::keycloak_settings`), no users and no clients of its own yet.
pub fn plain_realm(smtp: &Value) -> Value {
    json!({
        "enabled": true,
        "sslRequired": "none",
        "resetPasswordAllowed": true,
        "loginWithEmailAllowed": true,
        "duplicateEmailsAllowed": false,
        "eventsEnabled": true,
        "eventsExpiration": 5_184_000,
        "adminEventsEnabled": true,
        "adminEventsDetailsEnabled": true,
        "attributes": { "adminEventsExpiration": "5184000" },
        "smtpServer": smtp,
        "users": [],
        "clients": [],
    })
}

/// A user who can sign in: verified address, password, names as the default profile wants them.
pub fn user(username: &str, email: &str, password: &str) -> Value {
    json!({
        "username": username, "email": email, "emailVerified": true, "enabled": true,
        "firstName": username, "lastName": "Tester",
        "credentials": [{ "type": "password", "value": password, "temporary": false }],
    })
}

/// A public client with the code flow and PKCE for one redirect URI.
pub fn public_client(client_id: &str, redirect_uri: &str) -> Value {
    json!({
        "clientId": client_id, "enabled": true, "publicClient": true, "protocol": "openid-connect",
        "standardFlowEnabled": true, "directAccessGrantsEnabled": false, "redirectUris": [redirect_uri],
        "attributes": { "pkce.code.challenge.method": "S256", "post.logout.redirect.uris": "+" },
    })
}

/// A confidential client with the code flow for one redirect URI and a known secret.
pub fn confidential_client(client_id: &str, secret: &str, redirect_uri: &str) -> Value {
    json!({
        "clientId": client_id, "enabled": true, "publicClient": false, "protocol": "openid-connect",
        "secret": secret, "standardFlowEnabled": true, "directAccessGrantsEnabled": false,
        "redirectUris": [redirect_uri], "attributes": { "post.logout.redirect.uris": "+" },
    })
}

/// A client that is only a service account, with a known secret.
pub fn service_account(client_id: &str, secret: &str) -> Value {
    json!({
        "clientId": client_id, "enabled": true, "publicClient": false, "protocol": "openid-connect",
        "secret": secret, "standardFlowEnabled": false, "serviceAccountsEnabled": true,
        "directAccessGrantsEnabled": false,
    })
}
