//! Browsers of other origins (Fetch, CORS protocol): public documents for everybody; tokens and userinfo for the origins
//! that a client is configured with. Never with credentials: no cookie of ours is of use to a script.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::http::guard::LogWords;
use crate::oidc::settings::BrokerSettings;

/// Whether a route is for scripts of clients.
fn shared(route: &str) -> bool {
    route.ends_with("/token") || route.ends_with("/userinfo")
}

/// Whether a route is for everybody's.
fn public(route: &str) -> bool {
    route.ends_with("/jwks") || route.contains("/.well-known/")
}

/// The answer to a preflight, if it is one that may be answered.
#[must_use]
pub fn preflight(
    settings: &BrokerSettings,
    route: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Response> {
    let asks = *method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let origin = headers.get(header::ORIGIN).filter(|_| asks)?;
    let known = shared(route) && allowed(settings, origin, None);
    if !known && !public(route) {
        return None;
    }
    let words = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, traceparent, tracestate",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    Some((StatusCode::NO_CONTENT, words).into_response())
}

/// Lets the browser show an answer to the script that asked: with a client in the answer, to that client's origins.
pub fn share(settings: &BrokerSettings, route: &str, origin: Option<&HeaderValue>, response: &mut Response) {
    if public(route) {
        let everybody = HeaderValue::from_static("*");
        response
            .headers_mut()
            .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, everybody);
        return;
    }
    if !shared(route) {
        return;
    }
    response
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("Origin"));
    let client = response
        .extensions()
        .get::<LogWords>()
        .and_then(|w| w.client.clone());
    if let Some(origin) = origin.filter(|o| allowed(settings, o, client.as_deref())) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let shown = HeaderValue::from_static("www-authenticate, retry-after");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
    }
}

fn allowed(settings: &BrokerSettings, origin: &HeaderValue, client: Option<&str>) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let clients = settings.clients.values();
    clients
        .filter(|c| client.is_none_or(|id| id == c.id))
        .any(|c| c.origins.contains(origin))
}
