//! The client of Keycloak's admin REST API.
//!
//! Written by hand: a sidecar needs some forty calls, with one cached token, deadlines on all of
//! them and errors that say what to do; a generated client has none of these.
//!
//! * One token per client, fetched by one caller while the others wait, renewed before its end and
//!   once more when the server answers 401 (the server restarted with new keys, the session was
//!   ended). A second 401 is an error, not a loop.
//! * No redirects: a redirected admin call would carry the token to another host.
//! * Bodies are read up to [`BODY_LIMIT`]; a proxy's endless error page cannot fill the memory.
//! * Path segments are encoded one by one, every octet that is not plainly a letter or a digit: a user id or a role
//!   name can never leave its place, whatever is in it.
//! * Every answer is read by [`text`]: what somebody typed never makes it unreadable.

mod clients;
mod events;
mod failure;
mod keys;
mod own;
mod realm;
mod roles;
pub mod text;
mod users;

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use url::Url;

pub use failure::AdminError;
use failure::failure;

pub use events::{AdminEventQuery, Direction, EventQuery};
pub use own::{AdminOnly, ClientRole, Own};
use text::Rows;

/// Largest answer that is read, in octets.
pub const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// A token is renewed this long before its end.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// No token is kept for longer, whatever the server says of its life.
const LONGEST: Duration = Duration::from_hours(24);

/// How an [`Admin`] proves itself.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// The service account of a client (`client_credentials`).
    Client {
        /// Realm the client lives in; the run-time account lives in the realm it watches.
        realm: String,
        /// `client_id`.
        id: String,
        /// Client secret.
        secret: SecretString,
    },
    /// An administrator's name and password (`password` grant of `admin-cli`); for set-up only.
    Password {
        /// Realm of the administrator, usually `master`.
        realm: String,
        /// User name.
        username: String,
        /// Password.
        password: SecretString,
    },
}

impl Credentials {
    fn realm(&self) -> &str {
        match self {
            Self::Client { realm, .. } | Self::Password { realm, .. } => realm,
        }
    }

    /// Members of the token request.
    fn form(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Client { id, secret, .. } => vec![
                ("grant_type", "client_credentials"),
                ("client_id", id),
                ("client_secret", secret.expose_secret()),
            ],
            Self::Password {
                username, password, ..
            } => vec![
                ("grant_type", "password"),
                ("client_id", "admin-cli"),
                ("username", username),
                ("password", password.expose_secret()),
            ],
        }
    }
}

#[derive(Debug)]
struct Token {
    value: SecretString,
    renew_at: Instant,
    generation: u64,
    /// Half-way between asking and the answer.
    fetched: Instant,
}

/// The admin API of one realm.
#[derive(Debug)]
pub struct Admin {
    http: reqwest::Client,
    base: Url,
    realm: String,
    credentials: Credentials,
    token: Mutex<Option<Token>>,
    generation: std::sync::atomic::AtomicU64,
}

/// What a call sends beside its path.
#[derive(Default)]
struct Parts<'a> {
    query: Vec<(&'a str, String)>,
    body: Option<Vec<u8>>,
}

struct Reply {
    status: StatusCode,
    location: Option<String>,
    body: Vec<u8>,
}

impl Admin {
    /// A client for `realm` of the server at `base` (with its relative path, if it has one).
    /// Nothing is sent yet. `timeout` covers one whole call.
    ///
    /// # Errors
    /// [`AdminError::Settings`] when `base` is no http(s) URL or the TLS set-up fails.
    pub fn new(
        base: &Url,
        realm: &str,
        credentials: Credentials,
        timeout: Duration,
    ) -> Result<Self, AdminError> {
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(AdminError::Settings {
                reason: format!("{base} is not an http or https URL"),
            });
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .timeout(timeout)
            .user_agent(concat!("reentry/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| AdminError::Settings {
                reason: error.to_string(),
            })?;
        Ok(Self {
            http,
            base: base.clone(),
            realm: realm.to_owned(),
            credentials,
            token: Mutex::new(None),
            generation: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// The realm that is administered.
    #[must_use]
    pub fn realm_name(&self) -> &str {
        &self.realm
    }

    /// Base URL of the server, as given.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Fetches a token, or shows that the cached one is still good.
    ///
    /// # Errors
    /// [`AdminError::Unauthorized`] when the credentials are refused; transport errors.
    pub async fn authenticate(&self) -> Result<(), AdminError> {
        self.bearer(None).await.map(|_| ())
    }

    /// Forgets the token: the next call fetches one that says what our account may do now.
    pub async fn renew(&self) {
        *self.token.lock().await = None;
    }

    fn url(&self, segments: &[&str]) -> Result<Url, AdminError> {
        // The URL standard drops dot segments and an empty one names the collection: neither is an id.
        if segments.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
            return Err(AdminError::NotFound {
                what: segments.join("/"),
            });
        }
        let mut path = self.base.path().trim_end_matches('/').to_owned();
        for segment in segments {
            path.push('/');
            path.extend(segment.bytes().map(encoded));
        }
        let mut url = self.base.clone();
        url.set_path(&path);
        Ok(url)
    }

    /// The current token, renewed when it is at its end or is the one a 401 answered (`stale`).
    async fn bearer(&self, stale: Option<u64>) -> Result<(SecretString, u64), AdminError> {
        let mut slot = self.token.lock().await;
        if let Some(token) = slot.as_ref()
            && token.renew_at > Instant::now()
            && stale != Some(token.generation)
        {
            return Ok((token.value.clone(), token.generation));
        }
        let generation = self.generation.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let token = self.fetch_token(generation).await?;
        let answer = (token.value.clone(), generation);
        *slot = Some(token);
        Ok(answer)
    }

    async fn fetch_token(&self, generation: u64) -> Result<Token, AdminError> {
        #[derive(serde::Deserialize)]
        struct Grant {
            access_token: SecretString,
            expires_in: u64,
        }
        #[derive(Default, serde::Deserialize)]
        struct Refused {
            #[serde(default)]
            error: String,
            #[serde(default)]
            error_description: String,
        }
        let what = "POST protocol/openid-connect/token";
        let url = self.url(&[
            "realms",
            self.credentials.realm(),
            "protocol",
            "openid-connect",
            "token",
        ])?;
        let form = self.credentials.form();
        let asked = Instant::now();
        let reply = receive(what, self.http.post(url).form(&form)).await?;
        let fetched = asked + asked.elapsed() / 2;
        if reply.status.is_success() {
            let grant: Grant = decode(what, &reply.body)?;
            let life = Duration::from_secs(grant.expires_in).min(LONGEST);
            let renew_at = asked + life.saturating_sub(TOKEN_MARGIN).max(life / 2);
            return Ok(Token {
                value: grant.access_token,
                renew_at,
                generation,
                fetched,
            });
        }
        // 400 and 401 carry an OAuth error; anything else did not come from the token endpoint proper.
        match (reply.status, serde_json::from_slice::<Refused>(&reply.body)) {
            (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED, Ok(refused))
                if !refused.error.is_empty() =>
            {
                Err(AdminError::Unauthorized {
                    what: what.to_owned(),
                    reason: format!("{} {}", refused.error, refused.error_description)
                        .trim()
                        .to_owned(),
                })
            }
            _ => Err(failure(what, &reply)),
        }
    }

    /// One call to the realm's resource at `path`, answered by any 2xx.
    async fn call(&self, method: Method, path: &[&str], parts: Parts<'_>) -> Result<Reply, AdminError> {
        let segments: Vec<&str> = ["admin", "realms", &self.realm]
            .into_iter()
            .chain(path.iter().copied())
            .collect();
        self.call_at(method, &segments, parts).await
    }

    /// One call to any path of the server.
    async fn call_at(
        &self,
        method: Method,
        segments: &[&str],
        parts: Parts<'_>,
    ) -> Result<Reply, AdminError> {
        let what = format!(
            "{method} {}",
            segments
                .get(3..)
                .filter(|rest| !rest.is_empty())
                .unwrap_or(segments)
                .join("/")
        );
        let url = self.url(segments)?;
        let mut stale = None;
        loop {
            let (token, generation) = self.bearer(stale).await?;
            let mut request = self
                .http
                .request(method.clone(), url.clone())
                .bearer_auth(token.expose_secret())
                .header(reqwest::header::ACCEPT, "application/json");
            if !parts.query.is_empty() {
                request = request.query(&parts.query);
            }
            if let Some(body) = &parts.body {
                request = request
                    .header(reqwest::header::CONTENT_TYPE, "application/json")
                    .body(body.clone());
            }
            let reply = receive(&what, request).await?;
            if reply.status == StatusCode::UNAUTHORIZED && stale.is_none() {
                stale = Some(generation);
                continue;
            }
            return if reply.status.is_success() {
                Ok(reply)
            } else {
                Err(failure(&what, &reply))
            };
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, AdminError> {
        self.get_with(path, Vec::new()).await
    }

    async fn get_with<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: Vec<(&str, String)>,
    ) -> Result<T, AdminError> {
        let reply = self.call(Method::GET, path, Parts { query, body: None }).await?;
        decode(&format!("GET {}", path.join("/")), &reply.body)
    }

    /// A page of rows.
    async fn rows<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: Vec<(&str, String)>,
    ) -> Result<Rows<T>, AdminError> {
        let reply = self.call(Method::GET, path, Parts { query, body: None }).await?;
        let what = format!("GET {}", path.join("/"));
        text::rows(&reply.body).map_err(|error| malformed(&what, &error))
    }

    /// A call whose answer has no body of interest.
    async fn act(&self, method: Method, path: &[&str]) -> Result<(), AdminError> {
        self.call(method, path, Parts::default()).await.map(|_| ())
    }

    async fn send<B: Serialize + ?Sized>(
        &self,
        method: Method,
        path: &[&str],
        body: &B,
    ) -> Result<(), AdminError> {
        let body = Some(encode(path, body)?);
        self.call(
            method,
            path,
            Parts {
                query: Vec::new(),
                body,
            },
        )
        .await
        .map(|_| ())
    }

    /// A POST that creates something and tells its id in `Location`.
    async fn create<B: Serialize + ?Sized>(&self, path: &[&str], body: &B) -> Result<String, AdminError> {
        let parts = Parts {
            query: Vec::new(),
            body: Some(encode(path, body)?),
        };
        let reply = self.call(Method::POST, path, parts).await?;
        let id = reply
            .location
            .as_deref()
            .and_then(|location| location.trim_end_matches('/').rsplit('/').next());
        let in_body = || {
            let body: serde_json::Value = text::read(&reply.body).ok()?;
            body.get("id")?.as_str().map(str::to_owned)
        };
        id.filter(|id| !id.is_empty())
            .map(str::to_owned)
            .or_else(in_body)
            .ok_or_else(|| AdminError::Malformed {
                what: format!("POST {}", path.join("/")),
                reason: "no id of what was created".to_owned(),
            })
    }
}

fn encode<B: Serialize + ?Sized>(path: &[&str], body: &B) -> Result<Vec<u8>, AdminError> {
    serde_json::to_vec(body).map_err(|error| AdminError::Malformed {
        what: path.join("/"),
        reason: error.to_string(),
    })
}

fn decode<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, AdminError> {
    text::read(body).map_err(|error| malformed(what, &error))
}

fn malformed(what: &str, error: &serde_json::Error) -> AdminError {
    AdminError::Malformed {
        what: what.to_owned(),
        reason: error.to_string(),
    }
}

/// One octet of a path segment. A semicolon would begin parameters that the server drops, and the URL standard drops line
/// breaks: both would name somebody else.
fn encoded(octet: u8) -> String {
    if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
        char::from(octet).to_string()
    } else {
        format!("%{octet:02X}")
    }
}

async fn receive(what: &str, mut request: reqwest::RequestBuilder) -> Result<Reply, AdminError> {
    for (name, value) in crate::ports::trace::headers() {
        request = request.header(name, value);
    }
    let mut response = request
        .send()
        .await
        .map_err(|error| AdminError::transport(what, &error))?;
    let status = response.status();
    let location = response
        .headers()
        .get(reqwest::header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| AdminError::transport(what, &error))?
    {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(AdminError::Malformed {
                what: what.to_owned(),
                reason: format!("more than {BODY_LIMIT} octets"),
            });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply {
        status,
        location,
        body,
    })
}
