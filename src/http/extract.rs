//! Extractors whose rejections are problem documents too.

use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
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
/// As long as nobody says otherwise.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Whether the body is of this kind, whatever its parameters.
fn is(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let found = value.and_then(|v| v.split(';').next()).unwrap_or("");
    found.trim().eq_ignore_ascii_case(kind)
}

/// How long the body of a request may take to arrive; the guard writes it down.
#[derive(Clone, Copy, Debug)]
pub struct BodyTime(pub Duration);

/// The whole body, within the listener's limits of size and time.
pub(super) async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let most = request.extensions().get::<BodyTime>().map_or(BODY_TIME, |t| t.0);
    let mut read = pin!(Bytes::from_request(request, state));
    // Most bodies are there with their heads: no timer then.
    let read = match read.as_mut().now_or_never() {
        Some(read) => read,
        None => match tokio::time::timeout(most, read).await {
            Ok(read) => read,
            Err(_) => return Err(Problem::too_slow()),
        },
    };
    read.map_err(|rejection: BytesRejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::too_large()
        } else {
            Problem::bad_request("the body did not arrive whole")
        }
    })
}

fn fields<T: DeserializeOwned>(params: Result<Params, Fault>) -> Result<T, Problem> {
    let params = params
        .and_then(Params::unique)
        .map_err(|fault| Problem::bad_request(fault.to_string()))?;
    params.read().map_err(|e| Problem::bad_request(e.to_string()))
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is(request.headers(), "application/json") {
            return Err(Problem::unsupported_media_type("application/json"));
        }
        let bytes = body(request, state).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| Problem::bad_request(format!("the JSON body: {e}")))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is(request.headers(), FORM) {
            return Err(Problem::unsupported_media_type(FORM));
        }
        let bytes = body(request, state).await?;
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

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
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
        Params::parse(&body(request, state).await?)
            .map(Self)
            .map_err(refuse)
    }
}

/// Parameters of an OAuth endpoint: as [`Sent`], with rejections in the words of RFC 6749.
#[derive(Clone, Debug)]
pub struct Posted(pub Params);

impl<S: Send + Sync> FromRequest<S> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match Sent::from_request(request, state).await {
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
