//! The demo's first page: the four places, the story in steps, and the clock.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use minijinja::context;
use serde::Deserialize;

use crate::demo::clock::DemoClock;
use crate::demo::mailbox::said;
use crate::demo::page::{page, see_other, style};
use crate::demo::people::People;
use crate::domain::time::Span;
use crate::ports::clock::Clock;

/// What the first page shows.
#[derive(Clone)]
pub struct Guide {
    /// The bank.
    pub bank: String,
    /// The identity provider.
    pub idp: String,
    /// The mailbox.
    pub mailbox: String,
    /// Reentry.
    pub issuer: String,
    /// Demo time.
    pub clock: Arc<DemoClock>,
}

/// The guide's routes.
pub fn router(guide: Guide) -> Router {
    Router::new()
        .route("/", get(show))
        .route("/style.css", get(style))
        .route("/clock", post(advance))
        .with_state(guide)
}

async fn show(State(guide): State<Guide>) -> Response {
    let people: Vec<_> = People::new(guide.clock.now())
        .people
        .into_values()
        .map(
            |p| context! { name => p.name, about => p.about, username => p.username, password => p.password },
        )
        .collect();
    let ahead = guide.clock.ahead();
    let shown = context! {
        place => "Reentry", title => "Recovery, the way it should end", people,
        bank => guide.bank, idp => guide.idp, mailbox => guide.mailbox, issuer => guide.issuer,
        now => said(guide.clock.now()),
        ahead => (ahead > Span::ZERO).then(|| ahead.millis() / 3_600_000),
    };
    page(StatusCode::OK, "guide.html", shown)
}

#[derive(Deserialize)]
struct Advance {
    hours: u16,
}

async fn advance(State(guide): State<Guide>, Form(form): Form<Advance>) -> Response {
    guide
        .clock
        .advance(Span::from_hours(i64::from(form.hours.min(24 * 60))));
    see_other("/#clock")
}
