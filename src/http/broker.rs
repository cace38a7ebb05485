//! The broker's endpoints.

pub mod assertion;
pub mod authorize;
pub mod browser;
pub mod callback;
pub mod carried;
pub mod introspect;
pub mod known;
pub mod login;
pub mod logout;
pub mod metadata;
pub mod oauth;
pub mod once;
pub mod revoke;
pub mod token;
pub mod userinfo;

use axum::routing::{get, post};

use crate::http::limits::{Kind, Limit};
use crate::http::rooms::Door;
use crate::http::routes::Route;

/// What is served here.
pub const ROUTES: &[Route] = &[
    Route::well_known("/.well-known/openid-configuration", || get(metadata::discovery)),
    Route::well_known("/.well-known/oauth-authorization-server", || {
        get(metadata::discovery)
    }),
    Route::public("GET", "/jwks", || get(metadata::jwks)),
    Route::public("GET", "/authorize", || get(authorize::authorize))
        .limited(Limit::Tries(Kind::Login))
        .acting(),
    Route::public("POST", "/authorize", || post(authorize::posted)).limited(Limit::Tries(Kind::Login)),
    Route::public("GET", "/callback/{upstream}", || get(callback::callback))
        .limited(Limit::Failures(Kind::Callback))
        .acting(),
    Route::public("POST", "/token", || post(token::token)),
    Route::public("GET", "/userinfo", || get(userinfo::userinfo)),
    Route::public("POST", "/userinfo", || post(userinfo::userinfo)),
    Route::public("POST", "/introspect", || post(introspect::introspect)).behind(Door::Introspection),
    Route::public("POST", "/revoke", || post(revoke::revoke)),
    Route::public("GET", "/logout", || get(logout::logout)).acting(),
    Route::public("POST", "/logout", || post(logout::logout)),
    Route::public("GET", "/callback/{upstream}/logout", || get(logout::back))
        .limited(Limit::Tries(Kind::Callback))
        .acting(),
];
