//! Dead letters: what was not delivered and is not tried again by itself. An operator looks, mends what was wrong, and
//! sends it again; nothing here drops one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Administrator, Reader};
use super::{documents, page_size};
use crate::flow::letter;
use crate::http::context::Context;
use crate::http::extract::{Path, Query};
use crate::http::problem::Problem;
use crate::ports::store::PendingId;

#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    limit: Option<usize>,
}

/// What could not be delivered, oldest first within a partition of the store.
pub(super) async fn list(
    _: Reader,
    State(context): State<Context>,
    Query(asked): Query<Listing>,
) -> Result<Response, Problem> {
    let size = page_size(asked.limit)?;
    let dead = context.flow.store.dead(size + 1).await?;
    let letters: Vec<Value> = dead.iter().take(size).map(documents::dead_letter).collect();
    Ok(axum::Json(json!({ "letters": letters, "complete": dead.len() <= size })).into_response())
}

/// Puts one back to be delivered, with all the patience of a new one.
pub(super) async fn retry(
    Administrator(who): Administrator,
    State(context): State<Context>,
    Path(place): Path<String>,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found().detail("there is no such dead letter");
    let at: PendingId = place.parse().map_err(|()| missing())?;
    if letter::retry(&context.flow, &at, &who).await? {
        Ok(StatusCode::ACCEPTED.into_response())
    } else {
        Err(missing())
    }
}
