//! A relying party and a browser.

use std::collections::BTreeMap;

use reentry::oidc::digest;
use reqwest::header;
use serde_json::Value;
use url::Url;

use crate::house::{House, REDIRECT, SECRET};

/// A PKCE verifier.
pub const VERIFIER: &str = "0123456789012345678901234567890123456789-._~abc";

/// A browser: cookies of our issuer.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    pub cookies: BTreeMap<String, String>,
}

/// What came back.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    pub location: Option<String>,
    pub headers: header::HeaderMap,
    pub body: String,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.body))
    }

    /// The query of the redirect.
    pub fn query(&self) -> BTreeMap<String, String> {
        let location = self
            .location
            .as_ref()
            .unwrap_or_else(|| panic!("no redirect: {self:?}"));
        Url::parse(location).unwrap().query_pairs().into_owned().collect()
    }

    pub fn error(&self) -> String {
        self.query()
            .remove("error")
            .unwrap_or_else(|| panic!("no error: {self:?}"))
    }
}

impl Browser {
    pub async fn send(&mut self, request: reqwest::RequestBuilder) -> Seen {
        let line: Vec<String> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let response = request
            .header(header::COOKIE, line.join("; "))
            .send()
            .await
            .unwrap();
        for set in response.headers().get_all(header::SET_COOKIE) {
            let text = set.to_str().unwrap();
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            if text.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        seen(response).await
    }

    pub async fn get(&mut self, house: &House, url: &str) -> Seen {
        self.send(house.http.get(url)).await
    }
}

pub async fn seen(response: reqwest::Response) -> Seen {
    Seen {
        status: response.status().as_u16(),
        location: response
            .headers()
            .get(header::LOCATION)
            .map(|l| l.to_str().unwrap().to_owned()),
        headers: response.headers().clone(),
        body: response.text().await.unwrap(),
    }
}

/// An authorization request of the bank, with changes: an empty value leaves the parameter out.
pub fn authorize_url(house: &House, changes: &[(&str, &str)]) -> String {
    let mut params = BTreeMap::from([
        ("client_id", "bank".to_owned()),
        ("redirect_uri", REDIRECT.to_owned()),
        ("response_type", "code".to_owned()),
        (
            "scope",
            "openid profile email accounts:read payees:write transfers:write".to_owned(),
        ),
        ("state", "s t&1".to_owned()),
        ("nonce", "n-1".to_owned()),
        ("code_challenge", digest::s256(VERIFIER)),
        ("code_challenge_method", "S256".to_owned()),
    ]);
    for (name, value) in changes {
        params.insert(name, (*value).to_owned());
    }
    params.retain(|_, v| !v.is_empty());
    Url::parse_with_params(&house.url("/authorize"), params)
        .unwrap()
        .into()
}

/// Goes through the log-in until something else than a redirect between us and the IdP comes.
pub async fn log_in(house: &House, browser: &mut Browser, changes: &[(&str, &str)]) -> Seen {
    let mut url = authorize_url(house, changes);
    for _ in 0..8 {
        let seen = if url.starts_with(&house.issuer) {
            browser.get(house, &url).await
        } else {
            seen(house.http.get(&url).send().await.unwrap()).await
        };
        match &seen.location {
            Some(next) if next.starts_with(&house.issuer) || next.starts_with(&house.op.issuer) => {
                url.clone_from(next);
            }
            _ => return seen,
        }
    }
    panic!("a loop of redirects");
}

/// A code for the bank.
pub async fn code(house: &House, browser: &mut Browser, changes: &[(&str, &str)]) -> String {
    let seen = log_in(house, browser, changes).await;
    seen.query()
        .remove("code")
        .unwrap_or_else(|| panic!("no code: {seen:?}"))
}

/// The bank's `Authorization` header.
pub fn bank() -> String {
    use base64::Engine as _;
    let encoded: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let text = base64::engine::general_purpose::STANDARD.encode(format!("bank:{encoded}"));
    format!("Basic {text}")
}

/// A form to one of our endpoints, by the bank.
pub async fn post(house: &House, path: &str, form: &[(&str, &str)]) -> Seen {
    let request = house
        .http
        .post(house.url(path))
        .header(header::AUTHORIZATION, bank())
        .form(form);
    seen(request.send().await.unwrap()).await
}

pub async fn redeem(house: &House, code: &str) -> Seen {
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    post(house, "/token", &form).await
}

pub async fn refresh(house: &House, token: &str) -> Seen {
    post(
        house,
        "/token",
        &[("grant_type", "refresh_token"), ("refresh_token", token)],
    )
    .await
}

pub async fn introspect(house: &House, token: &str) -> Seen {
    post(house, "/introspect", &[("token", token)]).await
}

pub async fn userinfo(house: &House, token: &str) -> Seen {
    let request = house.http.get(house.url("/userinfo")).bearer_auth(token);
    seen(request.send().await.unwrap()).await
}

/// Tokens of the bank after a log-in.
pub async fn tokens(house: &House, browser: &mut Browser, changes: &[(&str, &str)]) -> Value {
    let code = code(house, browser, changes).await;
    let seen = redeem(house, &code).await;
    assert_eq!(seen.status, 200, "{}", seen.body);
    seen.json()
}

pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}
