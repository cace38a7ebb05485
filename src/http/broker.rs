//! The broker's endpoints.

pub mod metadata;

use axum::routing::get;

use crate::http::routes::Route;

/// What is served here.
pub const ROUTES: &[Route] = &[
    Route::well_known("/.well-known/openid-configuration", || get(metadata::discovery)),
    Route::well_known("/.well-known/oauth-authorization-server", || {
        get(metadata::discovery)
    }),
    Route::public("GET", "/jwks", || get(metadata::jwks)),
];
