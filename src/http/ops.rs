//! The operations listener: whether the process lives, whether it takes traffic, and what it counts.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::http::context::Context;
use crate::http::guard::Rendered;
use crate::http::problem::Problem;
use crate::http::routes::Route;

/// What is served here.
pub const ROUTES: &[Route] = &[
    Route::operations("GET", "/live", || get(live)),
    Route::operations("GET", "/ready", || get(ready)),
    Route::operations("GET", "/metrics", || get(metrics)),
];

/// The process answers; nothing else is asked, so that a fault elsewhere restarts nobody.
async fn live() -> &'static str {
    "alive\n"
}

/// 200 once the log of every IdP was read to its end and the store was sound, and from then on; the body says what
/// is wrong now.
async fn ready(State(context): State<Context>) -> Response {
    let answer = context.readiness.answer();
    let status = if answer.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut response = (
        status,
        axum::Json(json!({ "ready": answer.ready, "reasons": answer.reasons })),
    )
        .into_response();
    // The reasons are the answer here: nobody outside reaches this listener.
    response.extensions_mut().insert(Rendered);
    response
}

/// Everything counted so far, in Prometheus' text format.
async fn metrics(State(context): State<Context>) -> Response {
    match &context.metrics {
        Some(metrics) => (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            metrics.render(),
        )
            .into_response(),
        None => Problem::not_found()
            .detail("this process counts nothing")
            .into_response(),
    }
}
