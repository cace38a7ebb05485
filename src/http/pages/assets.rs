//! The style sheet, the deployment's colours, the script and the logo.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::http::context::Context;
use crate::http::problem::Problem;
use crate::http::routes::Route;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/page.js");

/// What is served here.
pub const ROUTES: &[Route] = &[
    Route::public("GET", "/assets/style.css", || get(style)),
    Route::public("GET", "/assets/brand.css", || get(brand)),
    Route::public("GET", "/assets/page.js", || get(script)),
    Route::public("GET", "/assets/logo", || get(logo)),
];

/// Old pages with a new style sheet look wrong for five minutes at most.
const CACHE: &str = "public, max-age=300";

async fn style() -> impl IntoResponse {
    (
        [
            (header::CONTENT_TYPE, "text/css; charset=utf-8"),
            (header::CACHE_CONTROL, CACHE),
        ],
        STYLE,
    )
}

async fn script() -> impl IntoResponse {
    (
        [
            (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
            (header::CACHE_CONTROL, CACHE),
        ],
        SCRIPT,
    )
}

async fn brand(State(context): State<Context>) -> impl IntoResponse {
    let colours = context.pages.brand().accent.as_ref().map(|(light, dark)| {
        format!(
            ":root {{ --accent: {light}; --on-accent: #ffffff; }}\n\
             @media (prefers-color-scheme: dark) {{ :root {{ --accent: {dark}; --on-accent: #161a20; }} }}\n"
        )
    });
    let colours = colours.unwrap_or_default();
    (
        [
            (header::CONTENT_TYPE, "text/css; charset=utf-8"),
            (header::CACHE_CONTROL, CACHE),
        ],
        colours,
    )
}

async fn logo(State(context): State<Context>) -> Response {
    let Some(logo) = &context.pages.brand().logo else {
        return Problem::not_found().into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, logo.kind),
        (header::CACHE_CONTROL, CACHE),
        // A picture opened by itself runs nothing.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        ),
    ];
    (headers, logo.bytes.clone()).into_response()
}
