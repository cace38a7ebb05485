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
pub mod rooms;
pub mod routes;
pub mod views;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

use crate::http::context::Context;
use crate::http::guard::Guard;
use crate::http::problem::Problem;
use crate::http::routes::{Listener, ROUTES, Route, Table};

/// The public listener: everything that relying parties, browsers and IdPs reach, below the issuer's path.
pub fn public(context: Context) -> Router {
    let base = context.broker.settings.base_path().to_owned();
    let mut inner = Router::new();
    let mut outer = Router::new();
    let mut mounted: Vec<(String, Route)> = Vec::new();
    for route in ROUTES
        .iter()
        .copied()
        .flatten()
        .filter(|r| r.listener == Listener::Public)
    {
        inner = inner.route(route.path, (route.mount)());
        mounted.push((format!("{base}{}", route.path), *route));
        if route.well_known && !base.is_empty() {
            let path = format!("{}{base}", route.path);
            outer = outer.route(&path, (route.mount)());
            mounted.push((path, *route));
        }
    }
    let router = if base.is_empty() {
        inner
    } else {
        outer.nest(&base, inner)
    };
    finish(router, context, Table::of(mounted))
}

/// The operations listener: never reachable from outside.
pub fn operations(context: Context) -> Router {
    let mut router = Router::new();
    let mut mounted: Vec<(String, Route)> = Vec::new();
    for route in ROUTES
        .iter()
        .copied()
        .flatten()
        .filter(|r| r.listener == Listener::Operations)
    {
        router = router.route(route.path, (route.mount)());
        mounted.push((route.path.to_owned(), *route));
    }
    finish(router, context, Table::of(mounted))
}

/// What holds for every route: one guard around each request, and problems for what is not there.
fn finish(router: Router<Context>, context: Context, table: Table) -> Router {
    let guard = Guard {
        context: context.clone(),
        table: Arc::new(table),
    };
    router
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(from_fn_with_state(guard, guard::around))
        .with_state(context)
}
