//! Extractors whose rejections are problem documents too.

use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;

use crate::http::problem::Problem;
use crate::oidc::params::{Fault, Params};

/// A JSON body of at most the listener's limit; `Content-Type: application/json` is required.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// A form body, each field at most once; `Content-Type: application/x-www-form-urlencoded` is required.
#[derive(Clone, Copy, Debug)]
pub struct Form<T>(pub T);

/// A query, each parameter at most once.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

/// Path parameters.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

/// OAuth parameters: of the body for a POST, of the query otherwise. Nothing is decided about duplicates here.
#[derive(Clone, Debug)]
pub struct Sent(pub Params);

/// How a form is sent.
const FORM: &str = "application/x-www-form-urlencoded";
/// What is read of a body that is too large, so that its sender comes to the answer: a connection that is closed over
/// unread octets is reset, and the answer is lost with it (RFC 9112 §9.6).
const DISCARDED: usize = 4 * 1024 * 1024;
/// For as long as this at most.
const DISCARDING: Duration = Duration::from_secs(2);

/// Whether the body is of this kind, whatever its parameters.
fn is(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let found = value.and_then(|v| v.split(';').next()).unwrap_or("");
    found.trim().eq_ignore_ascii_case(kind)
}

/// How large the body of a request may be, and how long it may take to arrive.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// Octets.
    pub most: usize,
    /// From the first to the last of them.
    pub time: Duration,
}

impl Default for BodyBounds {
    fn default() -> Self {
        Self {
            most: 64 * 1024,
            time: Duration::from_secs(10),
        }
    }
}

/// The body of a request, or why there is none, before its handler is reached.
#[derive(Clone, Debug)]
pub struct Arrived(pub Result<Bytes, Problem>);

/// The whole body, or why it did not come: 413, 408, or 400 when it broke off. Most bodies are there with their heads
/// and need no room; for one that is not, `room` is asked. `None` when there is none.
pub(super) async fn arrive<R>(
    headers: &HeaderMap,
    body: Body,
    bounds: BodyBounds,
    room: impl Fn() -> Option<R>,
) -> Option<Result<Bytes, Problem>> {
    // Whoever asks first has not sent it yet.
    let asks = headers.contains_key(header::EXPECT);
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if asks && announced.is_some_and(|octets| octets > bounds.most) {
        return Some(Err(Problem::too_large()));
    }
    let mut frames = body.into_data_stream();
    let mut underway = None;
    let read = {
        let mut read = pin!(whole(&mut frames, bounds.most));
        // No timer either for what is there.
        if let Some(read) = read.as_mut().now_or_never() {
            read
        } else {
            underway = Some(room()?);
            tokio::time::timeout(bounds.time, read)
                .await
                .unwrap_or_else(|_| Err(Problem::too_slow()))
        }
    };
    if let Err(problem) = &read
        && problem.status == StatusCode::PAYLOAD_TOO_LARGE
    {
        let _underway = match underway {
            Some(underway) => underway,
            None => room()?,
        };
        // In time or not: what it says is the same.
        let _ = tokio::time::timeout(DISCARDING.min(bounds.time), discard(&mut frames)).await;
    }
    Some(read)
}

/// The whole body, as the guard received it.
///
/// # Errors
/// 413, 408, or 400 when it broke off.
pub(super) async fn body(mut request: Request) -> Result<Bytes, Problem> {
    if let Some(Arrived(arrived)) = request.extensions_mut().remove() {
        return arrived;
    }
    let (parts, body) = request.into_parts();
    let arrived = arrive(&parts.headers, body, BodyBounds::default(), || Some(())).await;
    arrived.unwrap_or_else(|| Ok(Bytes::new()))
}

async fn whole(frames: &mut BodyDataStream, most: usize) -> Result<Bytes, Problem> {
    let broken = |_| Problem::bad_request("the body did not arrive whole");
    let first = frames.try_next().await.map_err(broken)?.unwrap_or_default();
    if first.len() > most {
        return Err(Problem::too_large());
    }
    // Nearly always that is all, and nothing has to be copied.
    let Some(second) = frames.try_next().await.map_err(broken)? else {
        return Ok(first);
    };
    let mut whole = Vec::from(first);
    let mut next = Some(second);
    while let Some(octets) = next {
        if octets.len() > most.saturating_sub(whole.len()) {
            return Err(Problem::too_large());
        }
        whole.extend_from_slice(&octets);
        next = frames.try_next().await.map_err(broken)?;
    }
    Ok(Bytes::from(whole))
}

async fn discard(frames: &mut BodyDataStream) {
    let mut left = DISCARDED;
    while let Ok(Some(octets)) = frames.try_next().await {
        let Some(less) = left.checked_sub(octets.len()) else {
            return;
        };
        left = less;
    }
}

fn fields<T: DeserializeOwned>(params: Result<Params, Fault>) -> Result<T, Problem> {
    let params = params
        .and_then(Params::unique)
        .map_err(|fault| Problem::bad_request(fault.to_string()))?;
    params.read().map_err(|e| Problem::bad_request(e.to_string()))
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is(request.headers(), "application/json") {
            return Err(Problem::unsupported_media_type("application/json"));
        }
        let bytes = body(request).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| Problem::bad_request(format!("the JSON body: {e}")))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is(request.headers(), FORM) {
            return Err(Problem::unsupported_media_type(FORM));
        }
        let bytes = body(request).await?;
        fields(Params::parse(&bytes)).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        fields(Params::parse(parts.uri.query().unwrap_or("").as_bytes())).map(Self)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        found.map(|p| Self(p.0)).map_err(|rejection: PathRejection| {
            if rejection.status().is_server_error() {
                Problem::fault(rejection)
            } else {
                Problem::not_found()
            }
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let refuse = |fault: Fault| Problem::bad_request(fault.to_string());
        if request.method() != axum::http::Method::POST {
            let query = request.uri().query().unwrap_or("").as_bytes();
            return Params::parse(query).map(Self).map_err(refuse);
        }
        let empty = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .is_some_and(|v| v == "0");
        if !empty && !is(request.headers(), FORM) {
            return Err(Problem::unsupported_media_type(FORM));
        }
        Params::parse(&body(request).await?).map(Self).map_err(refuse)
    }
}

/// Parameters of an OAuth endpoint: as [`Sent`], with rejections in the words of RFC 6749.
#[derive(Clone, Debug)]
pub struct Posted(pub Params);

impl<S: Send + Sync> FromRequest<S> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        match Sent::from_request(request, &()).await {
            Ok(Sent(params)) => Ok(Self(params)),
            Err(problem) => {
                let body =
                    serde_json::json!({ "error": "invalid_request", "error_description": problem.detail });
                let kind = [(header::CONTENT_TYPE, "application/json")];
                Err((problem.status, kind, body.to_string()).into_response())
            }
        }
    }
}
