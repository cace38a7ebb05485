//! `/logout`: our session and its families, then the IdP's. Nobody is logged out by a link that nobody vouches for:
//! without an ID token of that very person we ask.
//!
//! A form from another site comes without our cookie, so the same request is asked for again by GET, where the browser
//! sends it (`SameSite=Lax`). A cookie is taken away, and somebody told that they are signed out, only when a session was
//! found and has ended: whoever leaves a shared computer relies on it.

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::session::Session;
use crate::domain::time::Span;
use crate::flow::session::{self, Found};
use crate::http::broker::browser::{self, SESSION};
use crate::http::context::Context;
use crate::http::extract::{Path, Sent};
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::views::ConfirmLogout;
use crate::oidc::logout::{self, LogoutRequest};
use crate::oidc::params::Params;
use crate::ports::seal::{Purpose, SubjectKey};
use crate::ports::store::StoreError;

/// How long the IdP may take to log out.
const PATIENCE: Span = Span::from_mins(30);
/// The longest query that a form is turned into.
const LONGEST: usize = 6000;

/// `GET` and `POST /logout`.
pub async fn logout(
    State(context): State<Context>,
    method: Method,
    headers: HeaderMap,
    Sent(params): Sent,
) -> Response {
    let broker = &context.broker;
    let now = context.flow.clock.now();
    let query = params.query();
    if method == Method::POST
        && browser::cookie(&context, &headers, SESSION).is_none()
        && query.len() <= LONGEST
    {
        return browser::redirect(&broker.settings.url(&format!("/logout?{query}")));
    }
    let Ok(params) = params.unique() else {
        return refused(&context, "The application sent something twice.");
    };
    let request = match logout::parse(&params, &broker.settings, |token| broker.hint(token, now).ok()) {
        Ok(request) => request,
        Err(text) => return refused(&context, text),
    };
    let response = decide(&context, &method, &headers, &params, &request).await;
    let response = response.unwrap_or_else(|error| Problem::unavailable(error).into_response());
    browser::of_client(response, request.client.as_deref().unwrap_or(""))
}

fn refused(context: &Context, text: &str) -> Response {
    let page = browser::page(context, StatusCode::BAD_REQUEST, "You are still signed in", text);
    browser::outcome(page, "logout_refused")
}

async fn decide(
    context: &Context,
    method: &Method,
    headers: &HeaderMap,
    params: &Params,
    request: &LogoutRequest,
) -> Result<Response, StoreError> {
    let found = match browser::cookie(context, headers, SESSION) {
        Some(cookie) => session::find(&context.flow, cookie).await?,
        None => None,
    };
    if let Some(found) = found.as_ref().filter(|f| !vouched(context, request, f))
        && !(*method == Method::POST && confirmed(context, params, request, found))
    {
        return Ok(ask(context, params, request, found));
    }
    let mut named = Vec::new();
    if let Some((sid, sub)) = &request.hint
        && let Some(subject) = context.broker.settings.subject(sub)
    {
        named.push((context.flow.key(&subject), sid.clone()));
    }
    let here = found.is_some();
    named.extend(found.map(|f| (f.key, f.session.id)));
    let Some(ended) = end(context, &named).await? else {
        return Ok(nothing(context, request.back.as_deref()));
    };
    let response = onwards(context, request, ended).await;
    Ok(if here {
        browser::with_cookie(context, response, SESSION, "", Some(0))
    } else {
        response
    })
}

/// Nothing has ended. The application gets its browser back all the same: it asked for that, and said what it knows.
fn nothing(context: &Context, back: Option<&str>) -> Response {
    let response = match back {
        Some(url) => browser::redirect(url),
        None => browser::page(
            context,
            StatusCode::OK,
            "Nobody is signed in here",
            "There was no session of this browser to end. Applications may still have you signed in: sign out there.",
        ),
    };
    browser::outcome(response, "nothing_to_log_out")
}

/// Whether the hint is of the person in this browser.
fn vouched(context: &Context, request: &LogoutRequest, found: &Found) -> bool {
    let sub = context.broker.settings.sub(&found.session.subject);
    request
        .hint
        .as_ref()
        .is_some_and(|(_, hinted)| Some(hinted) == sub.as_ref())
}

/// What the form token is bound to.
fn bound(request: &LogoutRequest, found: &Found) -> Vec<u8> {
    format!(
        "logout\0{}\0{}",
        found.session.id,
        request.back.as_deref().unwrap_or("")
    )
    .into_bytes()
}

fn confirmed(context: &Context, params: &Params, request: &LogoutRequest, found: &Found) -> bool {
    let mac = params.get("confirm").and_then(|t| URL_SAFE_NO_PAD.decode(t).ok());
    mac.is_some_and(|mac| {
        context
            .flow
            .seal
            .verify(Purpose::Form, &bound(request, found), &mac)
    })
}

fn ask(context: &Context, params: &Params, request: &LogoutRequest, found: &Found) -> Response {
    let mac = context.flow.seal.mac(Purpose::Form, &bound(request, found));
    let mut fields = vec![("confirm".to_owned(), URL_SAFE_NO_PAD.encode(mac))];
    for name in ["client_id", "post_logout_redirect_uri", "state", "id_token_hint"] {
        fields.extend(params.get(name).map(|v| (name.to_owned(), v.to_owned())));
    }
    let confirm = ConfirmLogout {
        action: context.broker.settings.url("/logout"),
        fields,
    };
    browser::outcome(
        pages::leading_away(context.views.confirm_logout(&confirm)),
        "logout_asked",
    )
}

/// Ends sessions here; gives one to end at the IdP. `None` when none of them lived any more.
async fn end(context: &Context, sessions: &[(SubjectKey, String)]) -> Result<Option<Session>, StoreError> {
    let mut last = None;
    for (key, sid) in sessions {
        last = session::end(&context.flow, key, sid).await?.or(last);
    }
    Ok(last)
}

/// To the IdP's log-out if there is one, then back to the application or to a page of ours.
async fn onwards(context: &Context, request: &LogoutRequest, session: Session) -> Response {
    let upstream = &session.subject.upstream;
    let state = context.flow.random::<24>();
    let back = context
        .broker
        .settings
        .url(&format!("/callback/{upstream}/logout"));
    let there = context
        .broker
        .upstreams
        .end_session(upstream, &session.id_token, &back, &state)
        .await;
    let target = request.back.clone().unwrap_or_default();
    let kept = context
        .flow
        .store
        .put_state(&format!("logout:{state}"), target.as_bytes(), PATIENCE)
        .await;
    if let (Some(url), Ok(())) = (there, kept) {
        return browser::outcome(browser::redirect(&url), "logout_upstream");
    }
    done(context, request.back.as_deref())
}

fn done(context: &Context, back: Option<&str>) -> Response {
    let response = match back.filter(|b| !b.is_empty()) {
        Some(url) => browser::redirect(url),
        None => browser::page(
            context,
            StatusCode::OK,
            "You are signed out",
            "You can close this page.",
        ),
    };
    browser::outcome(response, "logged_out")
}

/// `GET /callback/{upstream}/logout`: back from the IdP's log-out.
pub async fn back(State(context): State<Context>, Path(_): Path<String>, Sent(params): Sent) -> Response {
    let state = params.get("state").unwrap_or("");
    let fits = (16..=64).contains(&state.len())
        && state
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let kept = if fits {
        context.flow.store.take_state(&format!("logout:{state}")).await
    } else {
        Ok(None)
    };
    match kept.ok().flatten().and_then(|v| String::from_utf8(v).ok()) {
        Some(target) => done(&context, Some(&target)),
        None => nothing(&context, None),
    }
}
