//! RFC 9457 problem documents with stable `type` codes.
//!
//! A 4xx says what to do. A 5xx says nothing but a trace id: its cause goes to the log, and the body is written by
//! the [guard](crate::http::guard), which alone knows the id.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// What every `type` begins with; the stable code follows.
pub const TYPE: &str = "urn:reentry:problem:";

/// A problem: an expected refusal (4xx), or a fault (5xx).
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    /// The stable code, lower case with hyphens.
    pub code: &'static str,
    /// Short and the same for every problem of this code.
    pub title: &'static str,
    /// What to do about this one. Never sent with a 5xx: there it goes to the log.
    pub detail: Option<String>,
    /// Further members.
    pub members: Map<String, Value>,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
}

/// Marks a response that the guard has to give a trace id: why it failed, for the log.
#[derive(Clone, Debug)]
pub struct Fault(pub String);

impl Problem {
    /// A problem without detail.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self {
            status,
            code,
            title,
            detail: None,
            members: Map::new(),
            retry_after: None,
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with one more member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The same with `Retry-After`.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// 400: the request cannot be understood.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request cannot be understood",
        )
        .detail(detail)
    }

    /// 401: nobody, or nobody we know.
    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Authentication is needed",
        )
        .detail(detail)
    }

    /// 403: known, and not allowed.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed").detail(detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here")
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This method is not for this address",
        )
    }

    /// 408: the body did not arrive in time.
    #[must_use]
    pub fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "too-slow",
            "The request did not arrive in time",
        )
    }

    /// 413.
    #[must_use]
    pub fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The request is too large",
        )
    }

    /// 415.
    #[must_use]
    pub fn unsupported_media_type(expected: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "This kind of body is not understood",
        )
        .detail(format!("send {expected}"))
    }

    /// 429: too often; `seconds` until it will do again.
    #[must_use]
    pub fn too_often(seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-often", "Too many attempts")
            .detail("wait as long as Retry-After says, then try again")
            .retry_after(seconds)
    }

    /// 500: our own fault; `cause` goes to the log.
    #[must_use]
    pub fn fault(cause: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "fault",
            "Something went wrong here",
        )
        .detail(cause.to_string())
    }

    /// 503: state or an upstream cannot be had now; `cause` goes to the log.
    #[must_use]
    pub fn unavailable(cause: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Not available now",
        )
        .detail(cause.to_string())
        .retry_after(5)
    }

    fn document(&self) -> Value {
        let mut body = Map::new();
        body.insert("type".to_owned(), json!(format!("{TYPE}{}", self.code)));
        body.insert("title".to_owned(), json!(self.title));
        body.insert("status".to_owned(), json!(self.status.as_u16()));
        if let Some(detail) = &self.detail {
            body.insert("detail".to_owned(), json!(detail));
        }
        body.extend(self.members.clone());
        Value::Object(body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = if self.status.is_server_error() {
            let mut response = self.status.into_response();
            response.extensions_mut().insert(Fault(
                self.detail.clone().unwrap_or_else(|| self.title.to_owned()),
            ));
            response
        } else {
            let mut response = (self.status, self.document().to_string()).into_response();
            let kind = HeaderValue::from_static("application/problem+json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        };
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The body of a 5xx.
#[must_use]
pub fn fault_document(status: StatusCode, trace_id: &str) -> Value {
    let code = if status == StatusCode::SERVICE_UNAVAILABLE {
        "unavailable"
    } else {
        "fault"
    };
    json!({ "type": format!("{TYPE}{code}"), "status": status.as_u16(), "trace_id": trace_id })
}
