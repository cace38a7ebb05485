//! A small bank as the relying party: balance, payee, transfer, export.
//!
//! It is an ordinary OAuth client. Before every act it asks the shipped checker ([`crate::rp`]) whether the
//! token's `recovery_scope` covers the act's class, and shows the refusal in its own words. Before what cannot be taken
//! back it asks Reentry too, so that a token that is still out moves no money once the account is frozen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minijinja::context;
use serde::Deserialize;
use serde_json::Value;

use crate::demo::book::{Book, euros};
use crate::demo::idp::s256;
use crate::demo::mailbox::said;
use crate::demo::page::{cookie, page, see_other, set_cookie, style};
use crate::domain::ceiling::Class;
use crate::domain::time::Timestamp;
use crate::oidc::keys::KeyRing;
use crate::oidc::verify::{self, Expected};
use crate::ports::clock::{Clock, Entropy};
use crate::rp::{Checker, Decision};

const COOKIE: &str = "demo_bank";
/// What the bank asks for.
const SCOPES: &str = "openid profile accounts:read payees:write transfers:write statements:export";

/// What the bank works on.
#[derive(Clone)]
pub struct Bank {
    /// Its own address.
    pub address: String,
    /// Reentry, its issuer.
    pub issuer: String,
    /// Its client id there.
    pub client_id: String,
    /// Its secret there.
    pub client_secret: String,
    /// The issuer's public keys.
    pub ring: Arc<KeyRing>,
    /// The shipped checker.
    pub checker: Arc<Checker>,
    /// Demo time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// For calling the issuer.
    pub http: reqwest::Client,
    /// Browser sessions.
    pub visits: Arc<Mutex<HashMap<String, Visit>>>,
    /// What customers own.
    pub books: Arc<Mutex<HashMap<String, Book>>>,
}

/// One browser.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    state: String,
    verifier: String,
    access: Option<String>,
    refresh: Option<String>,
    id_token: Option<String>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bank {
    fn random(&self) -> String {
        let mut buffer = [0; 32];
        self.entropy.fill(&mut buffer);
        URL_SAFE_NO_PAD.encode(buffer)
    }

    fn visit(&self, headers: &HeaderMap) -> Option<(String, Visit)> {
        let id = cookie(headers, COOKIE)?;
        locked(&self.visits).get(id).map(|v| (id.to_owned(), v.clone()))
    }

    /// The claims of a valid access token, refreshed when it has run out.
    async fn claims(&self, headers: &HeaderMap) -> Option<serde_json::Map<String, Value>> {
        let (id, visit) = self.visit(headers)?;
        let expected = Expected {
            issuer: &self.issuer,
            audience: Some(&self.client_id),
            typ: verify::ACCESS_TOKEN,
            expired: false,
        };
        if let Ok(token) = verify::verify(&self.ring, visit.access.as_deref()?, &expected, self.clock.now()) {
            return Some(token.claims);
        }
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", visit.refresh.as_deref()?),
        ];
        if !self.fetch(&id, &form).await {
            locked(&self.visits).remove(&id);
            return None;
        }
        let access = locked(&self.visits).get(&id).and_then(|v| v.access.clone())?;
        verify::verify(&self.ring, &access, &expected, self.clock.now())
            .ok()
            .map(|t| t.claims)
    }

    /// The claims as they are now: what Reentry says of the token at this moment takes the place of what stands in it.
    async fn asked(&self, headers: &HeaderMap) -> Option<serde_json::Map<String, Value>> {
        let mut claims = self.claims(headers).await?;
        let (id, visit) = self.visit(headers)?;
        let request = self.http.post(format!("{}/introspect", self.issuer));
        let sent = request
            .basic_auth(&self.client_id, Some(&self.client_secret))
            .form(&[("token", visit.access.as_deref()?)])
            .send()
            .await
            .ok()?;
        let answer = sent.json::<serde_json::Map<String, Value>>().await.ok()?;
        if answer.get("active") != Some(&Value::Bool(true)) {
            locked(&self.visits).remove(&id);
            return None;
        }
        for name in ["scope", "recovery_scope", "recovery_until", "recovery_ref"] {
            match answer.get(name) {
                Some(value) => drop(claims.insert(name.to_owned(), value.clone())),
                None => drop(claims.remove(name)),
            }
        }
        Some(claims)
    }

    /// Asks the token endpoint and keeps what it gives.
    async fn fetch(&self, visit: &str, form: &[(&str, &str)]) -> bool {
        let request = self.http.post(format!("{}/token", self.issuer));
        let sent = request
            .basic_auth(&self.client_id, Some(&self.client_secret))
            .form(form)
            .send()
            .await;
        let Ok(answer) = sent else { return false };
        if !answer.status().is_success() {
            return false;
        }
        let Ok(body) = answer.json::<Value>().await else {
            return false;
        };
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut visits = locked(&self.visits);
        let entry = visits.entry(visit.to_owned()).or_default();
        entry.access = text("access_token");
        entry.refresh = text("refresh_token").or_else(|| entry.refresh.take());
        entry.id_token = text("id_token").or_else(|| entry.id_token.take());
        entry.access.is_some()
    }
}

/// The bank's routes.
pub fn router(bank: Bank) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/style.css", get(style))
        .route("/sign-in", get(sign_in))
        .route("/callback", get(callback))
        .route("/sign-out", post(sign_out))
        .route("/payee", post(add_payee))
        .route("/transfer", post(transfer))
        .route("/export", get(export))
        .with_state(bank)
}

async fn home(State(bank): State<Bank>, headers: HeaderMap) -> Response {
    match bank.claims(&headers).await {
        None => note(
            StatusCode::OK,
            "Good to see you",
            "Sign in to see your account.",
            "/sign-in",
            "Sign in",
        ),
        Some(claims) => match allowed(&bank, &claims, "read", "accounts:read") {
            Ok(()) => show(&bank, &claims, None),
            Err(refusal) => refusal,
        },
    }
}

/// The account page.
fn show(bank: &Bank, claims: &serde_json::Map<String, Value>, message: Option<&str>) -> Response {
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    let book = locked(&bank.books).entry(sub.to_owned()).or_default().clone();
    let ceiling = bank.checker.effective(claims);
    let waits: Vec<&str> = [
        ("write", "add a payee"),
        ("pay", "send money"),
        ("export", "download statements"),
    ]
    .into_iter()
    .filter(|(class, _)| !Class::parse(class).is_some_and(|c| ceiling.allows(&c)))
    .map(|(_, words)| words)
    .collect();
    let until = claims
        .get("recovery_until")
        .and_then(Value::as_i64)
        .map(|s| said(Timestamp::from_secs(s)));
    let shown = context! {
        place => "Example Bank", title => "Your account", name => claims.get("name").and_then(Value::as_str).unwrap_or("customer"),
        balance => euros(book.cents), payees => book.payees, done => book.done, waits, until, message,
        owner => format!("{}/account", bank.issuer), scope => ceiling.to_string(),
    };
    page(StatusCode::OK, "bank.html", shown)
}

/// Asks the shipped checker about an act.
fn allowed(
    bank: &Bank,
    claims: &serde_json::Map<String, Value>,
    class: &str,
    scope: &str,
) -> Result<(), Response> {
    let Some(class) = Class::parse(class) else {
        return Err(StatusCode::FORBIDDEN.into_response_page());
    };
    match bank.checker.check(claims, Some(&class), Some(scope)) {
        Decision::Allow => Ok(()),
        _ => Err(refused(bank, claims, class.as_str())),
    }
}

trait IntoResponsePage {
    fn into_response_page(self) -> Response;
}

impl IntoResponsePage for StatusCode {
    fn into_response_page(self) -> Response {
        note(
            self,
            "That did not work",
            "Please go back and try again.",
            "/",
            "Back to your account",
        )
    }
}

fn refused(bank: &Bank, claims: &serde_json::Map<String, Value>, class: &str) -> Response {
    let act = match class {
        "pay" => "send money",
        "export" => "download statements",
        "write" => "add a payee",
        _ => "see your account",
    };
    let until = claims
        .get("recovery_until")
        .and_then(Value::as_i64)
        .map(|s| said(Timestamp::from_secs(s)));
    let reference = claims.get("recovery_ref").and_then(Value::as_str);
    let context = context! {
        place => "Example Bank", title => format!("You cannot {act} just now"), act, until, reference,
        owner => format!("{}/account", bank.issuer),
    };
    page(StatusCode::FORBIDDEN, "refused.html", context)
}

async fn sign_in(State(bank): State<Bank>) -> Response {
    let (id, visit) = (
        bank.random(),
        Visit {
            state: bank.random(),
            verifier: bank.random(),
            ..Visit::default()
        },
    );
    let Ok(mut url) = url::Url::parse(&format!("{}/authorize", bank.issuer)) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response_page();
    };
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &bank.client_id)
        .append_pair("redirect_uri", &format!("{}/callback", bank.address))
        .append_pair("scope", SCOPES)
        .append_pair("state", &visit.state)
        .append_pair("code_challenge", &s256(&visit.verifier))
        .append_pair("code_challenge_method", "S256");
    locked(&bank.visits).insert(id.clone(), visit);
    set_cookie(see_other(url.as_str()), COOKIE, &id)
}

#[derive(Deserialize)]
struct Callback {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

async fn callback(State(bank): State<Bank>, headers: HeaderMap, Query(answer): Query<Callback>) -> Response {
    let visit = bank
        .visit(&headers)
        .filter(|(_, v)| answer.state.as_deref() == Some(v.state.as_str()));
    let (Some((id, visit)), true) = (visit, answer.iss.as_deref() == Some(bank.issuer.as_str())) else {
        return note(
            StatusCode::BAD_REQUEST,
            "That took too long",
            "Please sign in again.",
            "/sign-in",
            "Sign in",
        );
    };
    if answer.error.is_some() {
        return note(
            StatusCode::FORBIDDEN,
            "You cannot sign in just now",
            "The account was reported and is closed for the moment. Your bank will be in touch.",
            "/",
            "Back",
        );
    }
    let redirect = format!("{}/callback", bank.address);
    let code = answer.code.unwrap_or_default();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", redirect.as_str()),
        ("code_verifier", visit.verifier.as_str()),
    ];
    if bank.fetch(&id, &form).await {
        see_other("/")
    } else {
        note(
            StatusCode::BAD_GATEWAY,
            "Signing in did not work",
            "Please try again.",
            "/sign-in",
            "Sign in",
        )
    }
}

async fn sign_out(State(bank): State<Bank>, headers: HeaderMap) -> Response {
    let Some((id, visit)) = bank.visit(&headers) else {
        return see_other("/");
    };
    locked(&bank.visits).remove(&id);
    let home = format!("{}/", bank.address);
    let hint = visit.id_token.unwrap_or_default();
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("id_token_hint", hint.as_str()),
            ("post_logout_redirect_uri", home.as_str()),
        ])
        .finish();
    see_other(&format!("{}/logout?{query}", bank.issuer))
}

#[derive(Deserialize)]
struct Payee {
    name: String,
}

async fn add_payee(State(bank): State<Bank>, headers: HeaderMap, Form(form): Form<Payee>) -> Response {
    let Some(claims) = bank.claims(&headers).await else {
        return see_other("/");
    };
    if let Err(refusal) = allowed(&bank, &claims, "write", "payees:write") {
        return refusal;
    }
    let name: String = form.name.trim().chars().take(60).collect();
    act(&bank, &claims, |book| {
        book.payees.push(name.clone());
        format!("{name} is one of your payees now.")
    })
}

#[derive(Deserialize)]
struct Transfer {
    payee: String,
    euros: u32,
}

async fn transfer(State(bank): State<Bank>, headers: HeaderMap, Form(form): Form<Transfer>) -> Response {
    let Some(claims) = bank.asked(&headers).await else {
        return signed_out();
    };
    if let Err(refusal) = allowed(&bank, &claims, "pay", "transfers:write") {
        return refusal;
    }
    let cents = i64::from(form.euros).saturating_mul(100);
    act(&bank, &claims, |book| {
        if !book.payees.contains(&form.payee) || cents > book.cents || cents == 0 {
            return "Nothing was sent: check the payee and the amount.".to_owned();
        }
        book.cents -= cents;
        let line = format!("{} sent to {}", euros(cents), form.payee);
        book.done.push(line.clone());
        format!("{line}.")
    })
}

/// Does something in the customer's book and shows it.
fn act(
    bank: &Bank,
    claims: &serde_json::Map<String, Value>,
    change: impl FnOnce(&mut Book) -> String,
) -> Response {
    let sub = claims
        .get("sub")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let message = change(locked(&bank.books).entry(sub).or_default());
    show(bank, claims, Some(&message))
}

async fn export(State(bank): State<Bank>, headers: HeaderMap) -> Response {
    let Some(claims) = bank.asked(&headers).await else {
        return signed_out();
    };
    if let Err(refusal) = allowed(&bank, &claims, "export", "statements:export") {
        return refusal;
    }
    show(&bank, &claims, Some("Your statements were downloaded."))
}

fn note(status: StatusCode, title: &str, text: &str, link: &str, link_text: &str) -> Response {
    page(
        status,
        "note.html",
        context! { place => "Example Bank", title, text, link, link_text },
    )
}

/// Somebody ended the session meanwhile: nothing was done.
fn signed_out() -> Response {
    note(
        StatusCode::FORBIDDEN,
        "You have been signed out",
        "Nothing was done: your sign-in has ended since, or your account was reported and is closed for the moment.",
        "/",
        "Back",
    )
}
