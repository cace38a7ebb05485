//! Answers in the words of RFC 6749 and RFC 6750.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::domain::pace;
use crate::http::broker::{assertion as client_assertion, browser};
use crate::http::context::Context;
use crate::http::limits::{self, Kind};
use crate::http::peer::Peer;
use crate::oidc::assertion;
use crate::oidc::client_auth::{self, Authorization, Refusal};
use crate::oidc::params::Params;
use crate::oidc::settings::Client;
use crate::ports::seal::SubjectKey;

/// A JSON answer; nobody keeps it.
#[must_use]
pub fn json(status: StatusCode, body: &Value) -> Response {
    text(status, body.to_string())
}

/// A JSON answer that is spelt already; nobody keeps it.
#[must_use]
pub fn text(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    // Room for those that every answer gets, too, so that the table is made once.
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::PRAGMA, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    *response.headers_mut() = headers;
    response
}

/// An error of RFC 6749 §5.2.
#[must_use]
pub fn error(status: StatusCode, code: &'static str, description: &str) -> Response {
    let body = json!({ "error": code, "error_description": description });
    browser::outcome(json(status, &body), code)
}

/// 400 `invalid_request`.
#[must_use]
pub fn invalid_request(description: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "invalid_request", description)
}

/// The parameters, each once, and the client, recognised by exactly one method.
///
/// # Errors
/// The answer.
pub async fn client<'a>(
    context: &'a Context,
    peer: Peer,
    headers: &HeaderMap,
    params: Params,
) -> Result<(&'a Client, Params), Response> {
    let params = params
        .unique()
        .map_err(|fault| invalid_request(&fault.to_string()))?;
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(invalid_request("more than one Authorization header"));
    }
    let header = match line.map(HeaderValue::to_str) {
        None => None,
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => return Err(unknown_client(true)),
    };
    let credentials = header.map(Authorization::read);
    let recognised =
        if params.get("client_assertion").is_some() || params.get("client_assertion_type").is_some() {
            asserted(context, header, &params).await?
        } else {
            client_auth::authenticate(&context.broker.settings, credentials.as_ref(), &params)
        };
    // Failures are counted after they have failed: whoever has the right secret is never asked.
    let judged = pace::judge(!matches!(recognised, Err(Refusal::Unknown)), || {
        let who = failing(context, peer, credentials.as_ref(), &params);
        who.map_or(Ok(()), |who| context.limiter.take(Kind::Token, who))
    });
    if let Err(seconds) = judged {
        return Err(too_often(Kind::Token, seconds));
    }
    match recognised {
        Ok(client) => Ok((client, params)),
        Err(Refusal::Mixed) => Err(invalid_request("use exactly one way of client authentication")),
        Err(Refusal::Unknown) => Err(unknown_client(header.is_some())),
    }
}

/// By `private_key_jwt`, and by nothing else beside it.
async fn asserted<'a>(
    context: &'a Context,
    header: Option<&str>,
    params: &Params,
) -> Result<Result<&'a Client, Refusal>, Response> {
    if header.is_some() || params.get("client_secret").is_some() {
        return Ok(Err(Refusal::Mixed));
    }
    let (Some(kind), Some(token)) = (
        params.get("client_assertion_type"),
        params.get("client_assertion"),
    ) else {
        return Ok(Err(Refusal::Unknown));
    };
    if kind != assertion::TYPE {
        return Ok(Err(Refusal::Unknown));
    }
    let found = client_assertion::client(context, token).await?;
    let named = |c: &&Client| params.get("client_id").is_none_or(|id| id == c.id);
    Ok(found.filter(named).ok_or(Refusal::Unknown))
}

/// Whose failures are counted: an address and the client it claims to be. All clients that do not exist are one.
fn failing<'a>(
    context: &'a Context,
    peer: Peer,
    credentials: Option<&Authorization>,
    params: &Params,
) -> Option<(IpAddr, Option<&'a str>)> {
    if !peer.is_known() {
        return None;
    }
    let claimed = client_auth::claimed(credentials, params);
    let known = claimed.and_then(|id| context.broker.settings.client(&id));
    Some((limits::place(peer.0), known.map(|client| client.id.as_str())))
}

/// Counts a grant that failed, by its account and, for a client that proves nothing, by where it came from; the answer
/// is kept back when that happens too often.
#[must_use]
pub fn failed(
    context: &Context,
    peer: Peer,
    client: &Client,
    account: Option<SubjectKey>,
    answer: Response,
) -> Response {
    let limiter = &context.limiter;
    if let Some(Err(seconds)) = account.map(|key| limiter.take(Kind::Account, key.0)) {
        return too_often(Kind::Account, seconds);
    }
    // Many people stand behind the address of a client that has proven who it is.
    if peer.is_known()
        && !client.is_confidential()
        && let Err(seconds) = limiter.take(Kind::Token, (limits::place(peer.0), Some(&client.id)))
    {
        return too_often(Kind::Token, seconds);
    }
    answer
}

/// 429 in the shape of RFC 6749.
fn too_often(kind: Kind, seconds: u64) -> Response {
    metrics::counter!("reentry_limited_total", "kind" => kind.as_str()).increment(1);
    let mut response = error(
        StatusCode::TOO_MANY_REQUESTS,
        "temporarily_unavailable",
        "too many attempts failed; wait as long as Retry-After says",
    );
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn unknown_client(by_header: bool) -> Response {
    let mut response = error(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        "client authentication failed",
    );
    if by_header {
        let challenge = HeaderValue::from_static(r#"Basic realm="reentry""#);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// A bearer token of the header; `Err` for a header that is something else (RFC 6750 §2.1).
///
/// # Errors
/// The answer.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Response> {
    let Some(line) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let split = line.to_str().ok().and_then(|text| text.split_once(' '));
    match split {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(challenge(StatusCode::UNAUTHORIZED, None)),
    }
}

/// A challenge of RFC 6750 §3; without an error code when no token was sent.
#[must_use]
pub fn challenge(status: StatusCode, fault: Option<(&'static str, &'static str)>) -> Response {
    let (mut response, value) = match fault {
        None => (status.into_response(), "Bearer".to_owned()),
        Some((code, description)) => (
            error(status, code, description),
            format!(r#"Bearer error="{code}", error_description="{description}""#),
        ),
    };
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}
