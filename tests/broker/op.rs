//! A small OpenID provider that says what it is told to say, and misbehaves on request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use reentry::oidc::keys::KeyRing;
use reentry::ports::clock::Clock;
use reentry::ports::signer::{Algorithm, Signer as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::forge::{Keys, hmac, unsigned};

/// What the next log-in says.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one way to misbehave")]
pub struct Word {
    pub sub: String,
    pub sid: String,
    pub auth_time: Option<i64>,
    pub acr: Option<String>,
    pub more: Value,
    /// The nonce to send instead of the one that was asked for.
    pub nonce: Option<String>,
    pub audience: String,
    /// `iss` of the authorization response: its own, another, or none.
    pub iss: Option<String>,
    /// An error instead of a code.
    pub error: Option<String>,
    /// Signs with the key it does not publish yet.
    pub unpublished: bool,
    /// Signs with a key that is somebody else's but under the published name.
    pub broken_signature: bool,
    pub expired: bool,
    pub no_id_token: bool,
    /// Puts the ID token together by itself.
    pub forge: Option<Forge>,
}

/// ID tokens that no provider would make.
#[derive(Clone, Copy, Debug)]
pub enum Forge {
    /// `alg: none`, no signature.
    None,
    /// HS256 with our client secret.
    SharedSecret,
    /// HS256 with the octets of the published RSA key.
    PublicKey,
    /// ES256 with a published key, under the name of the RSA key.
    SwappedKey,
    /// A header that demands what nobody understands.
    Crit,
    /// An issuer of another's.
    Issuer,
}

impl Default for Word {
    fn default() -> Self {
        Self {
            sub: "alice".to_owned(),
            sid: "kc-session-1".to_owned(),
            auth_time: None,
            acr: Some("silver".to_owned()),
            more: json!({
                "name": "Alice", "email": "alice@example.com", "email_verified": true, "amr": ["pwd"],
                "department": "sales", "secret_note": "not for others", "recovery_scope": "full", "scope": "x",
            }),
            nonce: None,
            audience: "reentry".to_owned(),
            iss: Some("own".to_owned()),
            error: None,
            unpublished: false,
            broken_signature: false,
            expired: false,
            no_id_token: false,
            forge: None,
        }
    }
}

struct Inside {
    issuer: String,
    ring: Arc<KeyRing>,
    next: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    word: Mutex<Word>,
    down: Mutex<bool>,
    token_down: Mutex<bool>,
    publish_next: Mutex<bool>,
    no_keys: Mutex<bool>,
    asked: Mutex<BTreeMap<String, String>>,
    fetches: Mutex<u32>,
    codes: Mutex<BTreeMap<String, (String, String)>>,
    traces: Mutex<Vec<Vec<String>>>,
    given: Mutex<u32>,
}

/// The provider.
#[derive(Clone)]
pub struct Op {
    pub issuer: String,
    inside: Arc<Inside>,
}

impl Op {
    pub async fn start(ring: Arc<KeyRing>, next: Arc<KeyRing>, clock: Arc<dyn Clock>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let inside = Arc::new(Inside {
            issuer: issuer.clone(),
            ring,
            next,
            clock,
            word: Mutex::new(Word::default()),
            down: Mutex::new(false),
            token_down: Mutex::new(false),
            publish_next: Mutex::new(false),
            no_keys: Mutex::new(false),
            asked: Mutex::default(),
            fetches: Mutex::new(0),
            codes: Mutex::default(),
            traces: Mutex::default(),
            given: Mutex::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/logout", get(|| async { "out" }))
            .with_state(Arc::clone(&inside));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { issuer, inside }
    }

    pub fn say(&self, word: &Word) {
        *self.inside.word.lock().unwrap() = word.clone();
    }

    pub fn word(&self) -> Word {
        self.inside.word.lock().unwrap().clone()
    }

    pub fn down(&self, down: bool) {
        *self.inside.down.lock().unwrap() = down;
    }

    pub fn token_down(&self, down: bool) {
        *self.inside.token_down.lock().unwrap() = down;
    }

    pub fn publish_next(&self) {
        *self.inside.publish_next.lock().unwrap() = true;
    }

    /// `traceparent` and `tracestate` of the last call to the token endpoint.
    pub fn traced(&self) -> Vec<String> {
        self.inside
            .traces
            .lock()
            .unwrap()
            .last()
            .cloned()
            .unwrap_or_default()
    }

    /// How often the token endpoint was called.
    pub fn exchanged(&self) -> usize {
        self.inside.traces.lock().unwrap().len()
    }

    /// Whether the JWK Set has become empty.
    pub fn no_keys(&self, none: bool) {
        *self.inside.no_keys.lock().unwrap() = none;
    }

    /// What the last authorization request asked for.
    pub fn asked(&self) -> BTreeMap<String, String> {
        self.inside.asked.lock().unwrap().clone()
    }

    pub fn fetches(&self) -> u32 {
        *self.inside.fetches.lock().unwrap()
    }
}

fn gone(op: &Inside) -> Option<Response> {
    op.down
        .lock()
        .unwrap()
        .then(|| (StatusCode::BAD_GATEWAY, "<html>down</html>").into_response())
}

async fn discovery(State(op): State<Arc<Inside>>) -> Response {
    if let Some(gone) = gone(&op) {
        return gone;
    }
    *op.fetches.lock().unwrap() += 1;
    let at = |path: &str| format!("{}{path}", op.issuer);
    Json(json!({
        "issuer": op.issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "jwks_uri": at("/jwks"),
        "end_session_endpoint": at("/logout"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "authorization_response_iss_parameter_supported": true,
    }))
    .into_response()
}

async fn jwks(State(op): State<Arc<Inside>>) -> Response {
    if let Some(gone) = gone(&op) {
        return gone;
    }
    let set = if *op.no_keys.lock().unwrap() {
        r#"{"keys": []}"#.to_owned()
    } else if *op.publish_next.lock().unwrap() {
        op.next.jwks()
    } else {
        op.ring.jwks()
    };
    ([(header::CONTENT_TYPE, "application/json")], set).into_response()
}

async fn authorize(State(op): State<Arc<Inside>>, RawQuery(query): RawQuery) -> Response {
    let asked: BTreeMap<String, String> = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .into_owned()
        .collect();
    *op.asked.lock().unwrap() = asked.clone();
    let word = op.word.lock().unwrap().clone();
    let mut back = url::Url::parse(&asked["redirect_uri"]).unwrap();
    {
        let mut pairs = back.query_pairs_mut();
        pairs.append_pair("state", &asked["state"]);
        if let Some(error) = &word.error {
            pairs.append_pair("error", error);
        } else {
            *op.given.lock().unwrap() += 1;
            let port = op.issuer.rsplit(':').next().unwrap();
            let code = format!("code-{port}-{}", op.given.lock().unwrap());
            let kept = (asked["nonce"].clone(), asked["code_challenge"].clone());
            op.codes.lock().unwrap().insert(code.clone(), kept);
            pairs.append_pair("code", &code);
        }
        match word.iss.as_deref() {
            Some("own") => pairs.append_pair("iss", &op.issuer),
            Some(other) => pairs.append_pair("iss", other),
            None => &mut pairs,
        };
    }
    (StatusCode::FOUND, [(header::LOCATION, back.to_string())]).into_response()
}

async fn token(State(op): State<Arc<Inside>>, headers: HeaderMap, body: String) -> Response {
    let told = ["traceparent", "tracestate"].map(|n| headers.get_all(n).iter().collect::<Vec<_>>());
    let told = told.into_iter().flatten().map(|v| v.to_str().unwrap().to_owned());
    op.traces.lock().unwrap().push(told.collect());
    if *op.token_down.lock().unwrap() {
        return (StatusCode::BAD_GATEWAY, "<html>down</html>").into_response();
    }
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    let Some((nonce, challenge)) = op.codes.lock().unwrap().remove(&form["code"]) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    assert_eq!(
        reentry::oidc::digest::s256(&form["code_verifier"]),
        challenge,
        "PKCE towards the IdP"
    );
    let word = op.word.lock().unwrap().clone();
    let now = op.clock.now().secs();
    let mut claims = json!({
        "iss": op.issuer, "sub": word.sub, "aud": word.audience, "iat": now,
        "exp": if word.expired { now - 10 } else { now + 300 },
        "nonce": word.nonce.unwrap_or(nonce), "sid": word.sid,
    });
    let members = claims.as_object_mut().unwrap();
    if let Some(at) = word.auth_time {
        members.insert("auth_time".to_owned(), json!(at));
    }
    if let Some(acr) = &word.acr {
        members.insert("acr".to_owned(), json!(acr));
    }
    for (name, value) in word.more.as_object().unwrap() {
        members.insert(name.clone(), value.clone());
    }
    let ring = if word.unpublished { &op.next } else { &op.ring };
    let mut id_token = ring
        .sign(Algorithm::Rs256, "JWT", claims.to_string().as_bytes())
        .await
        .unwrap();
    if let Some(forge) = word.forge {
        id_token = forged(&op, forge, &claims);
    }
    if word.broken_signature {
        let cut = id_token.rfind('.').unwrap() + 1;
        let flipped = if id_token.as_bytes()[cut] == b'A' {
            "B"
        } else {
            "A"
        };
        id_token.replace_range(cut..=cut, flipped);
    }
    let mut answer =
        json!({ "access_token": "opaque", "token_type": "Bearer", "expires_in": 60, "id_token": id_token });
    if word.no_id_token {
        answer.as_object_mut().unwrap().shift_remove("id_token");
    }
    Json(answer).into_response()
}

/// The forged token. The provider's keys lie in a folder of the test.
fn forged(op: &Inside, forge: Forge, claims: &Value) -> String {
    let keys = Keys::of("op");
    let rsa = keys.kid(Algorithm::Rs256);
    let header = |alg: &str, kid: &str| json!({"typ": "JWT", "alg": alg, "kid": kid});
    match forge {
        Forge::None => unsigned(&json!({"typ": "JWT", "alg": "none"}), claims),
        Forge::SharedSecret => hmac(&header("HS256", &rsa), claims, b"upstream secret"),
        Forge::PublicKey => {
            let set: Value = serde_json::from_str(&op.ring.jwks()).unwrap();
            let n = set["keys"]
                .as_array()
                .unwrap()
                .iter()
                .find_map(|k| k["n"].as_str())
                .unwrap();
            hmac(&header("HS256", &rsa), claims, n.as_bytes())
        }
        Forge::SwappedKey => keys.sign(Algorithm::Es256, &header("ES256", &rsa), claims),
        Forge::Crit => {
            let mut header = header("RS256", &rsa);
            header["crit"] = json!(["urn:example:unheard-of"]);
            header["urn:example:unheard-of"] = json!(true);
            keys.sign(Algorithm::Rs256, &header, claims)
        }
        Forge::Issuer => {
            let mut claims = claims.clone();
            claims["iss"] = json!("https://another.example");
            keys.sign(Algorithm::Rs256, &header("RS256", &rsa), &claims)
        }
    }
}
