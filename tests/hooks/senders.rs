//! Those who call hooks: a program with a webhook secret, the extension, Keycloak itself.

use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use axum::Router;
use axum::extract::{Form, State};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reentry_test_support::clock::now_s;
use reentry_test_support::rp::{ClientAuth, RelyingParty};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::world::{REDIRECT, World};

/// The extension's secret.
pub const EXTENSION_SECRET: &str = crate::world::EXTENSION_SECRET;

pub type Header = (&'static str, String);

/// Somebody who calls a hook.
pub struct Sender {
    pub url: String,
    pub content_type: &'static str,
    secret: String,
    http: reqwest::Client,
}

impl Sender {
    /// A program with a secret of the generic hook.
    pub fn new(world: &World, secret: &str) -> Self {
        Self {
            url: format!("{}/hooks/generic/company/events", world.issuer),
            content_type: "application/json",
            secret: secret.to_owned(),
            http: reqwest::Client::new(),
        }
    }

    /// The extension.
    pub fn extension(world: &World) -> Self {
        Self {
            url: format!("{}/hooks/extension/company/events", world.issuer),
            ..Self::new(world, "")
        }
    }

    /// The three headers of Standard Webhooks, made by its text and not by our code.
    pub fn headers(&self, id: &str, at: u64, body: &[u8]) -> Vec<Header> {
        self.headers_at(id, &at.to_string(), body)
    }

    pub fn headers_at(&self, id: &str, at: &str, body: &[u8]) -> Vec<Header> {
        let secret = STANDARD
            .decode(self.secret.strip_prefix("whsec_").unwrap())
            .unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let message = [id.as_bytes(), b".", at.as_bytes(), b".", body].concat();
        let signature = STANDARD.encode(hmac::sign(&key, &message));
        vec![
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", at.to_owned()),
            ("webhook-signature", format!("v1,{signature}")),
        ]
    }

    /// A correct call at this moment.
    pub async fn push(&self, id: &str, body: &str) -> (u16, Value) {
        self.send(&self.headers(id, now_s(), body.as_bytes()), body.as_bytes())
            .await
    }

    /// Any call.
    pub async fn send(&self, headers: &[Header], body: &[u8]) -> (u16, Value) {
        let mut request = self
            .http
            .post(&self.url)
            .header("content-type", self.content_type);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.body(body.to_vec()).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }
}

fn hex(octets: &[u8]) -> String {
    octets
        .iter()
        .fold(String::new(), |text, octet| format!("{text}{octet:02x}"))
}

/// `X-Keycloak-Signature` as the extension makes it.
pub fn hmac_hex(secret: &str, body: &str) -> Header {
    hmac_of(secret, body.as_bytes())
}

pub fn hmac_of(secret: &str, body: &[u8]) -> Header {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    ("x-keycloak-signature", hex(hmac::sign(&key, body).as_ref()))
}

/// A token that the realm itself signs, about this body and for this audience: what the extension sends.
pub async fn bearer(world: &World, body: &[u8], audience: &str) -> String {
    let name = format!("signer-{}", reentry_test_support::rp::random());
    let mapper = |kind: &str, config: Value| json!({ "name": kind, "protocol": "openid-connect", "protocolMapper": kind, "config": config });
    let mut client = reentry_test_support::keycloak::service_account(&name, "signers-secret");
    client["protocolMappers"] = json!([
        mapper(
            "oidc-hardcoded-claim-mapper",
            json!({
                "claim.name": "request_body_sha256", "jsonType.label": "String", "access.token.claim": "true",
                "claim.value": hex(digest::digest(&digest::SHA256, body).as_ref()),
            }),
        ),
        mapper(
            "oidc-audience-mapper",
            json!({ "included.custom.audience": audience, "access.token.claim": "true" }),
        ),
    ]);
    world.realm.post("clients", &client).await;
    // Through the proxy, as the issuer is named after the host that was called.
    let issuer = world.proxy.through(&world.realm.issuer());
    let auth = ClientAuth::Basic("signers-secret".to_owned());
    let rp = RelyingParty::discover(&issuer, &name, auth, REDIRECT).await;
    let reply = rp.client_credentials("openid").await.expect_status(200);
    reply.text("access_token").to_owned()
}

/// The same token made wrong in every way that leaves its shape.
pub fn spoiled(token: &str) -> Vec<(&'static str, String)> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = <[&str; 3]>::try_from(parts).unwrap();
    let object =
        |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let with_header = |name: &str, value: Value| {
        let mut changed = object(header);
        changed[name] = value;
        format!("{}.{payload}.{signature}", encode(&changed))
    };
    let mut claims = object(payload);
    claims["sub"] = json!("somebody-else");
    let none = json!({ "alg": "none", "typ": "JWT" });
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let twice = URL_SAFE_NO_PAD.encode(text.replacen('{', "{\"iss\":\"x\",", 1));
    // The public key's own modulus as an HMAC key, which is what a careless verifier would do.
    let swapped = {
        let mut changed = object(header);
        changed["alg"] = json!("HS256");
        let message = format!("{}.{payload}", encode(&changed));
        let key = hmac::Key::new(hmac::HMAC_SHA256, header.as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
        format!("{message}.{tag}")
    };
    vec![
        (
            "other claims",
            format!("{header}.{}.{signature}", encode(&claims)),
        ),
        ("alg none", format!("{}.{payload}.", encode(&none))),
        ("a swapped key type", swapped),
        ("another algorithm", with_header("alg", json!("PS256"))),
        ("unknown crit", with_header("crit", json!(["exp"]))),
        ("another key", with_header("kid", json!("nobodys"))),
        ("no key", with_header("kid", Value::Null)),
        ("a claim twice", format!("{header}.{twice}.{signature}")),
        ("no signature", format!("{header}.{payload}.")),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{token}.x")),
        ("bad base64", format!("{header}.{payload}=.{signature}")),
        ("not a token", "hello".to_owned()),
        ("long", format!("{header}.{}.{signature}", "A".repeat(20_000))),
    ]
}

/// Stands where Keycloak sends logout tokens.
pub struct Catcher {
    pub url: String,
    caught: tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>,
}

impl Catcher {
    pub async fn start() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let take = |State(sender): State<mpsc::UnboundedSender<String>>,
                    Form(form): Form<Vec<(String, String)>>| async move {
            for (name, value) in form {
                if name == "logout_token" {
                    let _ = sender.send(value);
                }
            }
        };
        let router = Router::new().route("/", post(take)).with_state(sender);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            caught: tokio::sync::Mutex::new(receiver),
        }
    }

    pub async fn token(&self) -> String {
        let mut caught = self.caught.lock().await;
        let got = tokio::time::timeout(Duration::from_secs(10), caught.recv()).await;
        got.unwrap().unwrap()
    }
}
