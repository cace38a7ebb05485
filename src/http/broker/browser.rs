//! What a browser carries and sees: cookies, redirects, pages.
//!
//! With an https issuer every cookie is `__Host-` and `Secure`. A plain-http issuer (loopback only) gets plain names:
//! browsers differ on whether `Secure` holds there.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use crate::domain::entitlement::Entitlement;
use crate::domain::subject::UpstreamId;
use crate::http::context::Context;
use crate::http::guard::LogWords;
use crate::http::problem::Problem;
use crate::http::views::Message;
use crate::oidc::authorize::ReturnTo;

/// The cookie of a session.
pub const SESSION: &str = "reentry_session";

/// The value of one of our cookies.
#[must_use]
pub fn cookie<'a>(context: &Context, headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let name = full_name(context, name);
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, v)| v)
}

/// The name under which the browser keeps a cookie of ours.
#[must_use]
pub fn full_name(context: &Context, name: &str) -> String {
    if context.broker.settings.is_https() {
        format!("__Host-{name}")
    } else {
        name.to_owned()
    }
}

/// The same response with a cookie, as [`set_cookie`] sets it.
#[must_use]
pub fn with_cookie(
    context: &Context,
    mut response: Response,
    name: &str,
    value: &str,
    max_age: Option<u32>,
) -> Response {
    set_cookie(context, &mut response, name, value, max_age);
    response
}

/// Adds a cookie to a response. `max_age` in seconds; 0 removes it, `None` keeps it until the browser closes.
pub fn set_cookie(context: &Context, response: &mut Response, name: &str, value: &str, max_age: Option<u32>) {
    let secure = if context.broker.settings.is_https() {
        "; Secure"
    } else {
        ""
    };
    let age = max_age.map(|a| format!("; Max-Age={a}")).unwrap_or_default();
    let line = format!(
        "{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}",
        full_name(context, name)
    );
    if let Ok(line) = HeaderValue::from_str(&line) {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
}

/// A redirect by GET (RFC 9700 §4.12: never 307 after a POST).
#[must_use]
pub fn redirect(url: &str) -> Response {
    HeaderValue::from_str(url).map_or_else(
        |_| Problem::fault("a redirect that is no header value").into_response(),
        |location| (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
    )
}

/// A page that says what happened.
#[must_use]
pub fn page(context: &Context, status: StatusCode, title: &str, text: &str) -> Response {
    page_with(context, status, title, text, None)
}

/// A page that says what happened, with one thing to do next: words and address.
#[must_use]
pub fn page_with(
    context: &Context,
    status: StatusCode,
    title: &str,
    text: &str,
    next: Option<(String, String)>,
) -> Response {
    let message = Message {
        title: title.to_owned(),
        text: text.to_owned(),
        reference: None,
        next,
    };
    (status, Html(context.views.message(&message))).into_response()
}

/// An error to the client, by way of the browser.
#[must_use]
pub fn error(context: &Context, to: &ReturnTo, error: &'static str, description: &str) -> Response {
    let response = match to.error(error, description, &context.broker.settings.issuer) {
        Some(url) => redirect(&url),
        None => Problem::fault("a redirect URI that is no URL").into_response(),
    };
    outcome(response, error)
}

/// The same response with a word for the log.
#[must_use]
pub fn outcome(mut response: Response, word: &'static str) -> Response {
    let words = response.extensions_mut().get_or_insert_default::<LogWords>();
    words.outcome = Some(word);
    response
}

/// The same response with what was decided, for the log.
#[must_use]
pub fn decided(mut response: Response, upstream: Option<&UpstreamId>, entitlement: &Entitlement) -> Response {
    let words = response.extensions_mut().get_or_insert_default::<LogWords>();
    words.upstream = upstream.map(ToString::to_string);
    words.ceiling = Some(entitlement.recovery_scope.to_string());
    words.rollout = Some(if entitlement.shadow.is_some() {
        "shadow"
    } else {
        "on"
    });
    response
}

/// The same response with its client for the log.
#[must_use]
pub fn of_client(mut response: Response, client: &str) -> Response {
    let words = response.extensions_mut().get_or_insert_default::<LogWords>();
    words.client = Some(client.to_owned());
    response
}
