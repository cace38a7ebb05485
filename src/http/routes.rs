//! The route table: what is served, and what hangs on it whatever the method is, limits above all.
//!
//! A limit that named methods was gone around by one that it did not name (`HEAD` reaches a `GET` handler). So limits
//! stand here, beside the path, and a method without a row of its own has the strictest of its path's.

use std::collections::HashMap;

use axum::routing::MethodRouter;

use crate::http::context::Context;
use crate::http::limits::Limit;
use crate::http::pages::assets;
use crate::http::rooms::Door;
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
    /// What is counted here by address, of every method that has no row of its own too.
    pub limit: Option<Limit>,
    /// A `GET` that does more than show: it is for somebody who goes there, and neither `HEAD` nor a prefetch reaches
    /// it.
    pub acts: bool,
    /// Whose places it is worked on.
    pub door: Door,
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
            limit: None,
            acts: false,
            door: Door::Common,
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
            limit: None,
            acts: false,
            door: Door::Common,
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
            limit: None,
            acts: false,
            door: Door::Operations,
            mount,
        }
    }

    /// The same with a limit.
    #[must_use]
    pub const fn limited(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The same with places of its own.
    #[must_use]
    pub const fn behind(mut self, door: Door) -> Self {
        self.door = door;
        self
    }

    /// The same, for a `GET` that does more than show.
    #[must_use]
    pub const fn acting(mut self) -> Self {
        self.acts = true;
        self
    }
}

/// The routes of one listener, by matched path.
#[derive(Debug)]
pub struct Table(HashMap<String, Vec<Route>>);

impl Table {
    /// From rows with the paths under which they are mounted.
    #[must_use]
    pub fn of(mounted: impl IntoIterator<Item = (String, Route)>) -> Self {
        let mut all: HashMap<String, Vec<Route>> = HashMap::new();
        for (path, route) in mounted {
            all.entry(path).or_default().push(route);
        }
        Self(all)
    }

    /// The row that speaks for a method at a matched path: its own; for `HEAD` that of `GET`; otherwise the first one
    /// with a limit, so that no method goes around it.
    #[must_use]
    pub fn row(&self, method: &str, matched: &str) -> Option<&Route> {
        let rows = self.0.get(matched)?;
        let meant = if method == "HEAD" { "GET" } else { method };
        let own = rows.iter().find(|row| row.method == meant);
        let limited = || rows.iter().find(|row| row.limit.is_some());
        own.or_else(limited).or_else(|| rows.first())
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
