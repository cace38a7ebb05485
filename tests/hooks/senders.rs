//! Those who call hooks: a program with a webhook secret, the extension, Keycloak itself.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
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
                "claim.value": sha256(body),
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

/// A key by which the realm signs, and of which the test has the private half: what it signs differs from the realm's
/// own tokens in nothing but what the test wants it to.
pub struct RealmKey {
    pair: RsaKeyPair,
    kid: String,
    issuer: String,
}

impl RealmKey {
    pub async fn add(world: &World) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
            STANDARD.encode(der.as_ref())
        );
        let provider = json!({
            "name": "of-the-test", "providerId": "rsa", "providerType": "org.keycloak.keys.KeyProvider",
            "config": {
                "privateKey": [pem], "priority": ["0"], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"],
            },
        });
        let id = world.realm.post("components", &provider).await;
        let keys = world.realm.get("keys").await;
        let made = keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["providerId"] == id);
        Self {
            kid: made.unwrap()["kid"].as_str().unwrap().to_owned(),
            pair,
            issuer: world.proxy.through(&world.realm.issuer()),
        }
    }

    /// Claims of a good token for `audience`, with some of its own.
    pub fn claims(&self, audience: &str, more: &Value) -> Value {
        let now = now_s();
        let mut claims = json!({ "iss": self.issuer, "aud": audience, "iat": now, "exp": now + 60 });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    /// A good token.
    pub fn sign(&self, claims: &Value) -> String {
        self.signed(&self.header("RS256"), claims.to_string().as_bytes())
    }

    fn header(&self, alg: &str) -> Value {
        json!({ "typ": "JWT", "alg": alg, "kid": self.kid })
    }

    /// Any octets under any header, signed as the header says.
    fn signed(&self, header: &Value, payload: &[u8]) -> String {
        let message = message(header, payload);
        let padding: &dyn RsaEncoding = if header["alg"] == "PS256" {
            &RSA_PSS_SHA256
        } else {
            &RSA_PKCS1_SHA256
        };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair
            .sign(padding, &random, message.as_bytes(), &mut signature)
            .unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The public half where a careless verifier would take it for a shared secret.
    fn mac(&self, claims: &Value) -> String {
        let message = message(&self.header("HS256"), claims.to_string().as_bytes());
        let modulus = self.pair.public_key().modulus();
        let modulus = URL_SAFE_NO_PAD.encode(modulus.big_endian_without_leading_zero());
        let key = hmac::Key::new(hmac::HMAC_SHA256, modulus.as_bytes());
        let tag = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// Tokens with these claims, wrong in one thing each, and with a right signature wherever that one thing is not the
    /// signature itself.
    pub fn spoiled(&self, claims: &Value) -> Vec<(&'static str, String)> {
        let good = self.sign(claims);
        let (head, signature) = good.rsplit_once('.').unwrap();
        let (header, payload) = head.split_once('.').unwrap();
        let with_header = |name: &str, value: Value| {
            let mut header = self.header("RS256");
            header[name] = value;
            self.signed(&header, claims.to_string().as_bytes())
        };
        let with_claim = |name: &str, value: Value| {
            let mut changed = claims.clone();
            changed[name] = value;
            self.sign(&changed)
        };
        let unsigned = |header: Value| format!("{}.", message(&header, claims.to_string().as_bytes()));
        let text = claims.to_string();
        let twice = text.replacen('{', "{\"iss\":\"x\",", 1);
        let inside = text.replacen('{', "{\"other\":{\"a\":1,\"a\":2},", 1);
        let octets = text.replacen('{', "{\"other\":\"\u{1}\",", 1).into_bytes();
        let octets: Vec<u8> = octets
            .into_iter()
            .map(|o| if o == 1 { 0xff } else { o })
            .collect();
        let mut other = claims.clone();
        other["sub"] = json!("somebody-else");
        let other = other.to_string();
        let now = now_s();
        vec![
            (
                "wrong signature",
                format!("{}.{signature}", message(&self.header("RS256"), other.as_bytes())),
            ),
            ("no signature", format!("{head}.")),
            ("alg none", unsigned(self.header("none"))),
            ("alg none and no key", unsigned(json!({ "alg": "none" }))),
            ("a swapped key type", self.mac(claims)),
            (
                "another algorithm",
                self.signed(&self.header("PS256"), text.as_bytes()),
            ),
            ("unknown crit", with_header("crit", json!(["exp"]))),
            ("another key", with_header("kid", json!("nobodys"))),
            ("no key", with_header("kid", Value::Null)),
            (
                "duplicate members",
                self.signed(&self.header("RS256"), twice.as_bytes()),
            ),
            (
                "duplicate members inside",
                self.signed(&self.header("RS256"), inside.as_bytes()),
            ),
            ("bad UTF-8", self.signed(&self.header("RS256"), &octets)),
            (
                "another issuer",
                with_claim("iss", json!("https://another.example")),
            ),
            ("another audience", with_claim("aud", json!("elsewhere"))),
            ("over", with_claim("exp", json!(now - 120))),
            ("no end", with_claim("exp", Value::Null)),
            ("of the future", with_claim("iat", json!(now + 600))),
            ("two parts", head.to_owned()),
            ("four parts", format!("{good}.x")),
            ("bad base64", format!("{header}.{payload}=.{signature}")),
            ("not a token", "hello".to_owned()),
            ("long", format!("{header}.{}.{signature}", "A".repeat(20_000))),
        ]
    }
}

fn message(header: &Value, payload: &[u8]) -> String {
    let part = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    format!("{}.{}", part(header.to_string().as_bytes()), part(payload))
}

/// The SHA-256 of a body, as the extension's tokens name it.
pub fn sha256(body: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, body).as_ref())
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
