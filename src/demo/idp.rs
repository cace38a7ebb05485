//! The demo's identity provider: log-in, "Forgot password?", and enough of `OpenID` Connect for one client.
//!
//! It is what a company already has. It knows nothing of holds; it writes its log and does what it is asked.

use std::sync::{Arc, Mutex};

use axum::extract::{Form, Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minijinja::context;
use serde::Deserialize;
use serde_json::json;

use crate::demo::mailbox::Mailbox;
use crate::demo::page::{cookie, page, see_other, set_cookie, style};
use crate::demo::people::{CODE_LIFE, Code, People, Session};
use crate::demo::provider::locked;
use crate::demo::reset;
use crate::domain::time::{Span, Timestamp};
use crate::ports::clock::{Clock, Entropy};
use crate::ports::signer::{Algorithm, Signer};

pub(crate) const COOKIE: &str = "demo_idp";

/// What the provider's pages work on.
#[derive(Clone)]
pub struct Idp {
    /// Its own address, the issuer.
    pub issuer: String,
    /// The client: Reentry.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// Where it may be sent back to.
    pub redirect_uri: String,
    /// The bank's first page, for the way on after a reset.
    pub bank: String,
    /// Accounts, sessions, log.
    pub people: Arc<Mutex<People>>,
    /// Where its mails go.
    pub mailbox: Arc<Mailbox>,
    /// Its signing key.
    pub signer: Arc<dyn Signer>,
    /// Demo time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Idp {
    pub(crate) fn random(&self) -> String {
        let mut buffer = [0; 24];
        self.entropy.fill(&mut buffer);
        URL_SAFE_NO_PAD.encode(buffer)
    }

    pub(crate) fn begin_session(&self, sub: &str) -> String {
        let id = self.random();
        let session = Session {
            sub: sub.to_owned(),
            began: self.clock.now(),
        };
        locked(&self.people).sessions.insert(id.clone(), session);
        id
    }
}

/// The provider's routes.
pub fn router(idp: Idp) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/style.css", get(style))
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .route("/authorize", get(authorize))
        .route("/login", post(log_in))
        .route("/forgot", get(reset::forgot).post(reset::send))
        .route("/reset", get(reset::show).post(reset::set))
        .route("/token", post(token))
        .route("/logout", get(log_out))
        .with_state(idp)
}

async fn home(State(idp): State<Idp>, headers: HeaderMap) -> Response {
    let people = locked(&idp.people);
    let who = cookie(&headers, COOKIE)
        .and_then(|id| people.of_session(id, idp.clock.now()))
        .map(|(p, _)| p.name.clone());
    let text = who.map_or_else(
        || "You are not signed in.".to_owned(),
        |name| format!("You are signed in as {name}."),
    );
    let note = context! { place => "Example Identity", title => "Your sign-in", text, link => idp.bank, link_text => "Go to the bank" };
    page(StatusCode::OK, "note.html", note)
}

async fn discovery(State(idp): State<Idp>) -> Json<serde_json::Value> {
    let at = |path: &str| format!("{}{path}", idp.issuer);
    Json(json!({
        "issuer": idp.issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "jwks_uri": at("/jwks"),
        "end_session_endpoint": at("/logout"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn jwks(State(idp): State<Idp>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], idp.signer.jwks()).into_response()
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Authorization {
    client_id: String,
    redirect_uri: String,
    state: Option<String>,
    nonce: Option<String>,
    code_challenge: Option<String>,
    prompt: Option<String>,
    max_age: Option<i64>,
}

async fn authorize(
    State(idp): State<Idp>,
    headers: HeaderMap,
    RawQuery(raw): RawQuery,
    Query(request): Query<Authorization>,
) -> Response {
    if request.client_id != idp.client_id || request.redirect_uri != idp.redirect_uri {
        return note(
            StatusCode::BAD_REQUEST,
            "This request is not known here",
            "Please go back and try again.",
        );
    }
    let prompt = request.prompt.as_deref().unwrap_or_default();
    let session = cookie(&headers, COOKIE).and_then(|id| {
        let people = locked(&idp.people);
        people
            .of_session(id, idp.clock.now())
            .map(|(person, s)| (id.to_owned(), person.sub.clone(), s.began))
    });
    let fresh = |began: Timestamp| {
        request
            .max_age
            .is_none_or(|age| idp.clock.now().since(began) <= Span::from_secs(age))
    };
    match session {
        Some((id, sub, began)) if prompt != "login" && fresh(began) => {
            answer(&idp, &request, &id, &sub, began)
        }
        _ if prompt == "none" => back(&idp, &request, &[("error", "login_required")]),
        _ => login_page(raw.as_deref().unwrap_or_default(), None),
    }
}

fn login_page(request: &str, fault: Option<&str>) -> Response {
    let status = if fault.is_some() {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::OK
    };
    page(
        status,
        "login.html",
        context! { place => "Example Identity", title => "Sign in", request, fault },
    )
}

/// Back to the client with a code.
fn answer(idp: &Idp, request: &Authorization, session: &str, sub: &str, auth_time: Timestamp) -> Response {
    let code = idp.random();
    let kept = Code {
        sub: sub.to_owned(),
        session: session.to_owned(),
        auth_time,
        nonce: request.nonce.clone(),
        challenge: request.code_challenge.clone(),
        redirect_uri: request.redirect_uri.clone(),
        expires: idp.clock.now().plus(CODE_LIFE),
    };
    locked(&idp.people).codes.insert(code.clone(), kept);
    back(idp, request, &[("code", &code)])
}

fn back(idp: &Idp, request: &Authorization, parameters: &[(&str, &str)]) -> Response {
    let Ok(mut url) = url::Url::parse(&request.redirect_uri) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    url.query_pairs_mut()
        .extend_pairs(parameters)
        .append_pair("iss", &idp.issuer);
    if let Some(state) = &request.state {
        url.query_pairs_mut().append_pair("state", state);
    }
    see_other(url.as_str())
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
    request: String,
}

async fn log_in(State(idp): State<Idp>, Form(form): Form<Login>) -> Response {
    let found = locked(&idp.people)
        .log_in(&form.username, &form.password)
        .map(|p| p.sub.clone());
    let Some(sub) = found else {
        return login_page(
            &form.request,
            Some("That name and password do not belong together, or the account is not open."),
        );
    };
    let session = idp.begin_session(&sub);
    // What the log-in was asked for (`prompt`, `max_age`) is done now.
    let rest =
        url::form_urlencoded::parse(form.request.as_bytes()).filter(|(k, _)| k != "prompt" && k != "max_age");
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(rest)
        .finish();
    set_cookie(see_other(&format!("/authorize?{query}")), COOKIE, &session)
}

pub(crate) fn note(status: StatusCode, title: &str, text: &str) -> Response {
    page(
        status,
        "note.html",
        context! { place => "Example Identity", title, text, link => "/", link_text => "Back" },
    )
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    code: String,
    redirect_uri: String,
    code_verifier: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

async fn token(State(idp): State<Idp>, headers: HeaderMap, Form(form): Form<TokenRequest>) -> Response {
    let refuse = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
    if !client_known(&idp, &headers, &form) {
        return refuse("invalid_client");
    }
    let code = locked(&idp.people).codes.remove(&form.code);
    let valid = code.filter(|c| {
        form.grant_type == "authorization_code"
            && c.redirect_uri == form.redirect_uri
            && idp.clock.now() < c.expires
            && c.challenge.as_deref().is_none_or(|challenge| {
                form.code_verifier
                    .as_deref()
                    .is_some_and(|v| s256(v) == challenge)
            })
    });
    let Some(code) = valid else {
        return refuse("invalid_grant");
    };
    let Some(claims) = claims(&idp, &code) else {
        return refuse("invalid_grant");
    };
    match idp
        .signer
        .sign(Algorithm::Rs256, "JWT", claims.to_string().as_bytes())
        .await
    {
        Ok(id_token) => {
            let body = json!({ "access_token": idp.random(), "token_type": "Bearer", "expires_in": 300, "id_token": id_token });
            ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the demo's identity provider cannot sign");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn claims(idp: &Idp, code: &Code) -> Option<serde_json::Value> {
    let people = locked(&idp.people);
    let person = people.people.get(&code.sub)?;
    let now = idp.clock.now().secs();
    Some(json!({
        "iss": idp.issuer, "aud": idp.client_id, "sub": person.sub, "iat": now, "exp": now + 300,
        "auth_time": code.auth_time.secs(), "sid": code.session, "nonce": code.nonce, "amr": ["pwd"],
        "name": person.name, "preferred_username": person.username, "email": person.email, "email_verified": true,
    }))
}

fn client_known(idp: &Idp, headers: &HeaderMap, form: &TokenRequest) -> bool {
    let expected = format!("{}:{}", idp.client_id, idp.client_secret);
    let basic = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Basic "));
    let basic = basic.and_then(|b| base64::engine::general_purpose::STANDARD.decode(b).ok());
    let posted = form
        .client_id
        .as_ref()
        .zip(form.client_secret.as_ref())
        .map(|(id, secret)| format!("{id}:{secret}"));
    basic == Some(expected.clone().into_bytes()) || posted == Some(expected)
}

/// The PKCE challenge of a verifier (RFC 7636 §4.2).
#[must_use]
pub fn s256(verifier: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    URL_SAFE_NO_PAD.encode(digest)
}

#[derive(Deserialize)]
struct LogOut {
    post_logout_redirect_uri: Option<String>,
    state: Option<String>,
}

async fn log_out(State(idp): State<Idp>, headers: HeaderMap, Query(request): Query<LogOut>) -> Response {
    if let Some(id) = cookie(&headers, COOKIE) {
        locked(&idp.people).sessions.remove(id);
    }
    // Only back to where the client lives.
    let origin = idp.redirect_uri.split("/callback/").next().unwrap_or_default();
    match request
        .post_logout_redirect_uri
        .filter(|uri| uri.starts_with(&format!("{origin}/")))
    {
        Some(uri) => match url::Url::parse(&uri) {
            Ok(mut url) => {
                if let Some(state) = &request.state {
                    url.query_pairs_mut().append_pair("state", state);
                }
                see_other(url.as_str())
            }
            Err(_) => StatusCode::BAD_REQUEST.into_response(),
        },
        None => note(
            StatusCode::OK,
            "You are signed out",
            "Close this page, or go back to the bank.",
        ),
    }
}
