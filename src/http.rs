//! The two listeners: routes, extractors, problem documents, limits. Handlers parse, call a use case and render;
//! nothing here decides.
//!
//! The route table ([`routes::ROUTES`]) is the only way a handler is reached: routers are built from it, the API
//! description is held equal to it, and the tests that send rubbish everywhere walk it.

pub mod account;
pub mod admin;
pub mod broker;
pub mod context;
pub mod cors;
pub mod extract;
pub mod guard;
pub mod hook;
pub mod limits;
pub mod ops;
pub mod pages;
pub mod peer;
pub mod problem;
pub mod readiness;
pub mod report;
pub mod routes;
pub mod views;

use axum::Router;
use axum::middleware::from_fn_with_state;

use crate::http::context::Context;
use crate::http::problem::Problem;
use crate::http::routes::{Listener, ROUTES};

/// The public listener: everything that relying parties, browsers and IdPs reach, below the issuer's path.
pub fn public(context: Context) -> Router {
    let base = context.broker.settings.base_path().to_owned();
    let mut inner = Router::new();
    let mut outer = Router::new();
    for route in ROUTES
        .iter()
        .copied()
        .flatten()
        .filter(|r| r.listener == Listener::Public)
    {
        inner = inner.route(route.path, (route.mount)());
        if route.well_known && !base.is_empty() {
            outer = outer.route(&format!("{}{base}", route.path), (route.mount)());
        }
    }
    let router = if base.is_empty() {
        inner
    } else {
        outer.nest(&base, inner)
    };
    finish(router, context)
}

/// The operations listener: never reachable from outside.
pub fn operations(context: Context) -> Router {
    let mut router = Router::new();
    for route in ROUTES
        .iter()
        .copied()
        .flatten()
        .filter(|r| r.listener == Listener::Operations)
    {
        router = router.route(route.path, (route.mount)());
    }
    finish(router, context)
}

/// What holds for every route: one guard around each request, and problems for what is not there.
fn finish(router: Router<Context>, context: Context) -> Router {
    router
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(from_fn_with_state(context.clone(), guard::around))
        .with_state(context)
}
