//! The route table.

use axum::routing::MethodRouter;

use crate::http::context::Context;
use crate::http::pages::assets;
use crate::http::{account, admin, broker, hook, ops, report};

/// Which listener a route is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Reachable by everybody.
    Public,
    /// Another port, never public: probes and metrics.
    Operations,
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method, upper case.
    pub method: &'static str,
    /// The path below the issuer's, with `{name}` for parameters.
    pub path: &'static str,
    /// Where it is.
    pub listener: Listener,
    /// A well-known document: with a path in the issuer it is served at both its RFC 8414 and its OIDC place.
    pub well_known: bool,
    /// The handler.
    pub mount: fn() -> MethodRouter<Context>,
}

impl Route {
    /// A public route.
    #[must_use]
    pub const fn public(
        method: &'static str,
        path: &'static str,
        mount: fn() -> MethodRouter<Context>,
    ) -> Self {
        Self {
            method,
            path,
            listener: Listener::Public,
            well_known: false,
            mount,
        }
    }

    /// A well-known document.
    #[must_use]
    pub const fn well_known(path: &'static str, mount: fn() -> MethodRouter<Context>) -> Self {
        Self {
            method: "GET",
            path,
            listener: Listener::Public,
            well_known: true,
            mount,
        }
    }

    /// A route of the operations listener.
    #[must_use]
    pub const fn operations(
        method: &'static str,
        path: &'static str,
        mount: fn() -> MethodRouter<Context>,
    ) -> Self {
        Self {
            method,
            path,
            listener: Listener::Operations,
            well_known: false,
            mount,
        }
    }
}

/// Every route there is, by the module that serves it.
pub const ROUTES: &[&[Route]] = &[
    broker::ROUTES,
    assets::ROUTES,
    account::ROUTES,
    report::ROUTES,
    hook::ROUTES,
    admin::ROUTES,
    ops::ROUTES,
];
