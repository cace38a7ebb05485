//! What relying parties read before anything else.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::http::context::Context;
use crate::oidc::discovery;

/// `GET /.well-known/openid-configuration` and `/.well-known/oauth-authorization-server`.
pub async fn discovery(State(context): State<Context>) -> Response {
    let document = discovery::document(&context.broker, &context.flow.policy.load());
    document_for_everybody(document.to_string(), "public, max-age=300")
}

/// `GET /jwks`.
pub async fn jwks(State(context): State<Context>) -> Response {
    document_for_everybody(context.broker.signer().jwks(), "public, max-age=300")
}

/// A public JSON document; any origin may read it (the guard says so), it holds nothing of anybody.
fn document_for_everybody(body: String, cache: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, cache),
    ];
    (headers, body).into_response()
}
