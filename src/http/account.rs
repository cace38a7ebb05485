//! `/account`: the owner looks, ends sessions, and removes what was added in the hold. Nothing here can shorten
//! anything (P4).
//!
//! Without a session of ours the browser is sent to the IdP and comes back. Every act is a POST with a token that is
//! bound to the session, beside a cookie that other sites' POSTs do not carry.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::domain::session::Session;
use crate::domain::subject::UpstreamId;
use crate::flow::session::{self, Found};
use crate::flow::{FlowError, account};
use crate::http::broker::browser::{self, SESSION};
use crate::http::broker::login::{self, Goal};
use crate::http::context::Context;
use crate::http::extract::{Form, Query};
use crate::http::limits::{Kind as Counted, Limit};
use crate::http::pages::account::{self as page, Done, Looking};
use crate::http::pages::{self, Notice, Tone};
use crate::http::routes::Route;
use crate::ports::seal::Purpose;

/// What is served here.
pub const ROUTES: &[Route] = &[
    Route::public("GET", "/account", || get(look))
        .limited(Limit::Tries(Counted::Login))
        .acting(),
    Route::public("POST", "/account/sessions/end", || post(end_session)),
    Route::public("POST", "/account/factors/remove", || post(remove_factor)),
];

#[derive(Debug, Deserialize)]
struct Asked {
    done: Option<String>,
    upstream: Option<String>,
}

/// The page, or the way to the log-in.
async fn look(State(context): State<Context>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    match found(&context, &headers).await {
        Ok(Some(found)) => {
            show(
                &context,
                &found.session,
                asked.done.as_deref().and_then(Done::parse),
            )
            .await
        }
        Ok(None) => log_in(&context, &headers, asked.upstream.as_deref()).await,
        Err(response) => response,
    }
}

/// The living session of this browser.
async fn found(context: &Context, headers: &HeaderMap) -> Result<Option<Found>, Response> {
    let Some(cookie) = browser::cookie(context, headers, SESSION) else {
        return Ok(None);
    };
    let found = session::find(&context.flow, cookie).await;
    found.map_err(|error| pages::fault(&context.pages, &error))
}

async fn log_in(context: &Context, headers: &HeaderMap, wanted: Option<&str>) -> Response {
    let wanted = wanted.and_then(UpstreamId::parse);
    let upstreams = &context.broker.settings.upstreams;
    let upstream = upstreams
        .iter()
        .find(|u| Some(&u.id) == wanted.as_ref())
        .or(upstreams.first());
    match upstream {
        Some(upstream) => {
            login::begin(
                context,
                headers,
                &upstream.id,
                Goal::Page("/account".to_owned()),
                false,
            )
            .await
        }
        // Token mode alone: relying parties stay at the IdP, and nobody signs in here.
        None => browser::outcome(
            browser::page(
                context,
                StatusCode::NOT_FOUND,
                "There is no sign-in here",
                "Use the account page of the service that you sign in to. Links in messages about your account work here.",
            ),
            "no_sign_in_here",
        ),
    }
}

async fn show(context: &Context, session: &Session, done: Option<Done>) -> Response {
    let view = match account::view(&context.flow, &session.subject).await {
        Ok(view) => view,
        Err(error) => return pages::fault(&context.pages, &error),
    };
    let form = form_token(context, session);
    let looking = Looking {
        session,
        form: &form,
        done,
        settings: &context.broker.settings,
    };
    pages::html(StatusCode::OK, page::page(&context.pages, &view, &looking))
}

/// What a form token is bound to: this purpose, this session.
fn bound(session: &Session) -> Vec<u8> {
    format!("account\0{}", session.id).into_bytes()
}

fn form_token(context: &Context, session: &Session) -> String {
    URL_SAFE_NO_PAD.encode(context.flow.seal.mac(Purpose::Form, &bound(session)))
}

/// The session that a form came from.
async fn from_page(context: &Context, headers: &HeaderMap, form: &str) -> Result<Session, Response> {
    let session = found(context, headers).await?.map(|found| found.session);
    let mac = URL_SAFE_NO_PAD.decode(form).unwrap_or_default();
    session
        .filter(|session| context.flow.seal.verify(Purpose::Form, &bound(session), &mac))
        .ok_or_else(|| stale(context))
}

/// A form that did not come from the page as it now is: nothing was done.
fn stale(context: &Context) -> Response {
    let page = context.pages.notice(&Notice {
        title: "Nothing was changed",
        lines: vec![
            "The page that you sent this from is too old. Open it again and repeat what you did.".to_owned(),
        ],
        tone: Tone::Failed,
        reference: None,
        next: Some(("Open the page again", format!("{}/account", context.pages.base()))),
    });
    browser::outcome(pages::html(StatusCode::FORBIDDEN, page), "stale_form")
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Idp,
    Own,
}

#[derive(Debug, Deserialize)]
struct Ending {
    form: String,
    kind: Kind,
    id: String,
}

/// Ends a session, at the IdP or here.
async fn end_session(
    State(context): State<Context>,
    headers: HeaderMap,
    Form(asked): Form<Ending>,
) -> Response {
    let session = match from_page(&context, &headers, &asked.form).await {
        Ok(session) => session,
        Err(response) => return response,
    };
    let (ended, own) = match asked.kind {
        Kind::Idp => (
            account::end_idp_session(&context.flow, &session.subject, &asked.id).await,
            session.upstream_sid.as_deref() == Some(asked.id.as_str()),
        ),
        Kind::Own => (
            account::end_session(&context.flow, &session.subject, &asked.id).await,
            session.id == asked.id,
        ),
    };
    if own && ended.is_ok() {
        return signed_out(&context);
    }
    back(&context, &ended, Done::SessionEnded)
}

#[derive(Debug, Deserialize)]
struct Removing {
    form: String,
    id: String,
}

/// Removes a way to sign in that was added in the hold.
async fn remove_factor(
    State(context): State<Context>,
    headers: HeaderMap,
    Form(asked): Form<Removing>,
) -> Response {
    let session = match from_page(&context, &headers, &asked.form).await {
        Ok(session) => session,
        Err(response) => return response,
    };
    let removed = account::remove_factor(&context.flow, &session.subject, &asked.id).await;
    back(&context, &removed, Done::FactorRemoved)
}

/// Back to the page, which says what came of it.
fn back(context: &Context, result: &Result<(), FlowError>, done: Done) -> Response {
    let done = match result {
        Ok(()) => done,
        Err(FlowError::Unknown(_)) => Done::Gone,
        Err(error) => {
            tracing::warn!(%error, "an owner's act could not be done");
            Done::NotNow
        }
    };
    browser::redirect(
        &context
            .broker
            .settings
            .url(&format!("/account?done={}", done.as_str())),
    )
}

/// The session of this very page has ended.
fn signed_out(context: &Context) -> Response {
    let page = context.pages.notice(&Notice {
        title: "You are signed out",
        lines: vec!["The session of this page has ended. You can close it.".to_owned()],
        tone: Tone::Done,
        reference: None,
        next: Some(("Sign in again", format!("{}/account", context.pages.base()))),
    });
    browser::with_cookie(context, pages::html(StatusCode::OK, page), SESSION, "", Some(0))
}
