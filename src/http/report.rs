//! "This was not me": GET shows how things stand, POST freezes and leads back there, so that a reload is no second
//! report. The token in the path is the authority, so there is nothing that another site could make a browser add; mail
//! scanners and previews only ever GET.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::domain::hold::contest::report::ReportRefusal;
use crate::flow::link::{self, LinkRefusal};
use crate::flow::report::{self, ReportError};
use crate::http::broker::browser;
use crate::http::context::Context;
use crate::http::extract::Path;
use crate::http::limits::{Kind, Limit};
use crate::http::pages::{self, report as page};
use crate::http::problem::Problem;
use crate::http::rooms::Door;
use crate::http::routes::Route;

/// What is served here.
pub const ROUTES: &[Route] = &[
    Route::public("GET", "/cancel/{token}", || get(look)).behind(Door::Reports),
    Route::public("POST", "/cancel/{token}", || axum::routing::post(act))
        .limited(Limit::Failures(Kind::Report))
        .behind(Door::Reports),
    Route::public("POST", "/cancel/{token}/mine", || axum::routing::post(own))
        .limited(Limit::Failures(Kind::Report))
        .behind(Door::Reports),
];

async fn look(State(context): State<Context>, Path(token): Path<String>) -> Response {
    match report::look(&context.flow, &token).await {
        Ok(view) => pages::html(StatusCode::OK, page::look(&context.pages, &view, &token)),
        Err(error) => refused(&context, error),
    }
}

async fn act(State(context): State<Context>, Path(token): Path<String>) -> Response {
    // Each press of a good link is recorded, so the link has a pace of its own.
    let good = link::open(&context.flow, &token, context.flow.policy.load().link_validity).is_ok();
    if good && let Err(seconds) = context.limiter.take(Kind::Report, token.as_str()) {
        return Problem::too_often(seconds).into_response();
    }
    match report::act(&context.flow, &token).await {
        Ok(_) => shown(&context, &token),
        Err(error) => refused(&context, error),
    }
}

/// "It was me after all".
async fn own(State(context): State<Context>, Path(token): Path<String>) -> Response {
    match report::own(&context.flow, &token).await {
        Ok(()) => shown(&context, &token),
        Err(error) => refused(&context, error),
    }
}

/// Back to the page, which shows what came of it.
fn shown(context: &Context, token: &str) -> Response {
    browser::redirect(&context.broker.settings.url(&format!("/cancel/{token}")))
}

fn refused(context: &Context, error: ReportError) -> Response {
    let (status, why) = match error {
        ReportError::Link(LinkRefusal::Invalid) => (StatusCode::NOT_FOUND, page::Refused::Incomplete),
        ReportError::Link(LinkRefusal::Expired) => (StatusCode::GONE, page::Refused::Expired),
        ReportError::Refused(ReportRefusal::UnknownCase | ReportRefusal::NotContested) => {
            (StatusCode::GONE, page::Refused::Over)
        }
        ReportError::Refused(ReportRefusal::NoVoice | ReportRefusal::Already) => {
            (StatusCode::FORBIDDEN, page::Refused::NoVoice)
        }
        ReportError::Flow(fault) => return pages::fault(&context.pages, &fault),
    };
    pages::html(status, page::refused(&context.pages, why))
}
