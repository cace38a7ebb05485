//! A relying party that knows OpenID Connect and nothing of Reentry. It shows what came, status and raw
//! JSON, and judges nothing.

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::RequestBuilder;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// How the client authenticates at the token endpoint and its like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_secret_basic`, with this secret.
    Basic(String),
    /// `client_secret_post`, with this secret.
    Post(String),
    /// `none`: a public client.
    None,
}

/// A raw answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body as JSON; `null` when it is empty or no JSON.
    pub json: Value,
    /// The body as it came.
    pub body: String,
}

impl Reply {
    /// Reads an answer of `reqwest`.
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.expect("a whole answer");
        Self {
            status,
            headers,
            json: serde_json::from_str(&body).unwrap_or(Value::Null),
            body,
        }
    }

    /// Itself, or a panic with the whole answer when the status is another.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert!(
            self.status == status,
            "{status} expected, came {}: {}",
            self.status,
            self.body
        );
        self
    }

    /// A member that must be a string.
    #[track_caller]
    pub fn text(&self, name: &str) -> &str {
        self.json[name]
            .as_str()
            .unwrap_or_else(|| panic!("no string {name:?} in {}: {}", self.status, self.body))
    }

    /// A member that may be a string.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.json[name].as_str()
    }

    /// `error` of RFC 6749 §5.2, empty without one.
    pub fn error(&self) -> &str {
        self.get("error").unwrap_or_default()
    }

    /// The words of `scope`, sorted.
    pub fn scopes(&self) -> Vec<&str> {
        words(self.get("scope").unwrap_or_default())
    }

    /// The claims of the access token.
    #[track_caller]
    pub fn access_claims(&self) -> Value {
        claims(self.text("access_token"))
    }

    /// The claims of the ID token.
    #[track_caller]
    pub fn id_claims(&self) -> Value {
        claims(self.text("id_token"))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// The words of a space separated list, sorted.
pub fn words(list: &str) -> Vec<&str> {
    let mut words: Vec<_> = list.split(' ').filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words
}

/// The payload of a JWT, without any check.
#[track_caller]
pub fn claims(token: &str) -> Value {
    part(token, 1)
}

/// The header of a JWT, without any check.
#[track_caller]
pub fn header(token: &str) -> Value {
    part(token, 0)
}

#[track_caller]
fn part(token: &str, index: usize) -> Value {
    let text = token
        .split('.')
        .nth(index)
        .unwrap_or_else(|| panic!("not a JWT: {token}"));
    let octets = URL_SAFE_NO_PAD
        .decode(text)
        .unwrap_or_else(|error| panic!("not a JWT ({error}): {token}"));
    serde_json::from_slice(&octets).unwrap_or_else(|error| panic!("not a JWT ({error}): {token}"))
}

/// 32 random octets, base64url without padding.
pub fn random() -> String {
    let mut octets = [0_u8; 32];
    rand::fill(&mut octets).expect("random octets");
    URL_SAFE_NO_PAD.encode(octets)
}

/// `S256` of RFC 7636 §4.2.
pub fn s256(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// An authorization request and what its sender keeps to check the answer.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// Where to send the browser.
    pub url: Url,
    /// `state`.
    pub state: String,
    /// `nonce`.
    pub nonce: String,
    /// The PKCE code verifier.
    pub verifier: String,
}

impl Authorization {
    /// Adds a parameter, or replaces it, or removes it when `value` is `None`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Option<&'static str>>) -> Self {
        self.replace(name, value.into());
        self
    }

    /// As [`Authorization::with`], for a value made at run time.
    #[must_use]
    pub fn with_value(mut self, name: &str, value: &str) -> Self {
        self.replace(name, Some(value));
        self
    }

    fn replace(&mut self, name: &str, value: Option<&str>) {
        let mut pairs: Vec<(String, String)> = self.url.query_pairs().into_owned().collect();
        pairs.retain(|(key, _)| key != name);
        pairs.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        self.url.query_pairs_mut().clear().extend_pairs(pairs);
    }
}

/// A client of one issuer.
#[derive(Debug, Clone)]
pub struct RelyingParty {
    http: reqwest::Client,
    /// The discovery document.
    pub metadata: Value,
    /// `client_id`.
    pub client_id: String,
    /// How it authenticates.
    pub auth: ClientAuth,
    /// `redirect_uri`.
    pub redirect_uri: String,
}

impl RelyingParty {
    /// Reads `{issuer}/.well-known/openid-configuration` and checks that it names the same issuer.
    pub async fn discover(issuer: &str, client_id: &str, auth: ClientAuth, redirect_uri: &str) -> Self {
        let http = client();
        let url = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let response = http
            .get(&url)
            .send()
            .await
            .unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let reply = Reply::read(response).await.expect_status(200);
        assert_eq!(reply.text("issuer"), issuer, "issuer of {url}");
        Self {
            http,
            metadata: reply.json,
            client_id: client_id.to_owned(),
            auth,
            redirect_uri: redirect_uri.to_owned(),
        }
    }

    /// The same issuer through another client.
    #[must_use]
    pub fn as_client(&self, client_id: &str, auth: ClientAuth, redirect_uri: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            auth,
            redirect_uri: redirect_uri.to_owned(),
            ..self.clone()
        }
    }

    /// An endpoint named in the discovery document.
    #[track_caller]
    pub fn endpoint(&self, name: &str) -> Url {
        let text = self.metadata[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {}", self.metadata));
        Url::parse(text).unwrap_or_else(|error| panic!("{name} {text:?}: {error}"))
    }

    /// A code request with PKCE, state and nonce for these scopes.
    pub fn authorization(&self, scope: &str) -> Authorization {
        let (state, nonce, verifier) = (random(), random(), random());
        let mut url = self.endpoint("authorization_endpoint");
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", scope)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &s256(&verifier))
            .append_pair("code_challenge_method", "S256");
        Authorization {
            url,
            state,
            nonce,
            verifier,
        }
    }

    /// The code of an answer to `request` that came to the redirect URI, after checking `state` and `iss`
    /// (RFC 9207); panics on an error answer.
    #[track_caller]
    pub fn code(&self, request: &Authorization, callback: &Url) -> String {
        let get = |name: &str| {
            callback
                .query_pairs()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        assert!(
            callback.as_str().starts_with(&self.redirect_uri),
            "an answer to somewhere else: {callback}"
        );
        assert_eq!(
            get("state").as_deref(),
            Some(request.state.as_str()),
            "state of {callback}"
        );
        if let Some(issuer) = get("iss") {
            assert_eq!(
                Some(issuer.as_str()),
                self.metadata["issuer"].as_str(),
                "iss of {callback}"
            );
        }
        get("code").unwrap_or_else(|| panic!("no code in {callback}"))
    }

    /// Exchanges a code.
    pub async fn exchange(&self, code: &str, verifier: &str) -> Reply {
        self.token(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", verifier),
        ])
        .await
    }

    /// Refreshes, asking for no scope.
    pub async fn refresh(&self, refresh_token: &str) -> Reply {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token)])
            .await
    }

    /// Refreshes, asking for these scopes.
    pub async fn refresh_for(&self, refresh_token: &str, scope: &str) -> Reply {
        self.token(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("scope", scope),
        ])
        .await
    }

    /// A token for the client itself.
    pub async fn client_credentials(&self, scope: &str) -> Reply {
        self.token(&[("grant_type", "client_credentials"), ("scope", scope)])
            .await
    }

    /// A request of any kind to the token endpoint.
    pub async fn token(&self, form: &[(&str, &str)]) -> Reply {
        self.post("token_endpoint", form).await
    }

    /// `GET userinfo` with a bearer token.
    pub async fn userinfo(&self, access_token: &str) -> Reply {
        self.send(
            self.http
                .get(self.endpoint("userinfo_endpoint"))
                .bearer_auth(access_token),
        )
        .await
    }

    /// Introspection (RFC 7662).
    pub async fn introspect(&self, token: &str) -> Reply {
        self.post("introspection_endpoint", &[("token", token)]).await
    }

    /// Revocation (RFC 7009).
    pub async fn revoke(&self, token: &str) -> Reply {
        self.post("revocation_endpoint", &[("token", token)]).await
    }

    /// The URL of an RP-initiated logout.
    pub fn logout_url(&self, id_token: &str, back_to: &str) -> Url {
        let mut url = self.endpoint("end_session_endpoint");
        url.query_pairs_mut()
            .append_pair("id_token_hint", id_token)
            .append_pair("client_id", &self.client_id)
            .append_pair("post_logout_redirect_uri", back_to);
        url
    }

    /// A form to an endpoint of the discovery document, with the client's authentication.
    pub async fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> Reply {
        let mut form = form.to_vec();
        let request = self.http.post(self.endpoint(endpoint));
        let request = match &self.auth {
            ClientAuth::Basic(secret) => request.header("authorization", basic(&self.client_id, secret)),
            ClientAuth::Post(secret) => {
                form.extend([("client_id", self.client_id.as_str()), ("client_secret", secret)]);
                request
            }
            ClientAuth::None => {
                form.push(("client_id", &self.client_id));
                request
            }
        };
        self.send(request.form(&form)).await
    }

    async fn send(&self, request: RequestBuilder) -> Reply {
        Reply::read(request.send().await.unwrap_or_else(|error| panic!("{error:?}"))).await
    }
}

/// RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
fn basic(client_id: &str, secret: &str) -> String {
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", encode(client_id), encode(secret)))
    )
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .expect("an HTTP client")
}

#[cfg(test)]
mod tests {
    use super::{basic, claims, s256, words};

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        assert_eq!(
            s256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn claims_are_read_without_a_check() {
        assert_eq!(claims("e30.eyJzdWIiOiJhIn0.x")["sub"], "a");
        assert_eq!(words(" b a  c"), ["a", "b", "c"]);
        assert_eq!(basic("a b", "c:d"), "Basic YStiOmMlM0Fk");
    }
}
