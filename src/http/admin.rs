//! The admin API: who is limited, since when, why, until when; what was written down; what could not be delivered;
//! and the one act there is, an administrator's word for the end of a freeze.
//!
//! No route shortens a clock or skips a notice (P4): there is nothing here to lift a hold with. The word of one
//! administrator does nothing alone, and a static key reads only.

pub mod access;
pub mod documents;
pub mod letters;

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::audit::Entry;
use crate::domain::hold::contest::{Finding, ThawRefusal};
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::Timestamp;
use crate::domain::wording::Wording;
use crate::flow::thaw::{self, ThawError};
use crate::flow::{Flow, FlowError};
use crate::http::admin::access::{Administrator, Reader};
use crate::http::admin::documents::{Filter, Moment};
use crate::http::context::Context;
use crate::http::extract::{Json, Path, Query};
use crate::http::problem::Problem;
use crate::http::routes::Route;
use crate::ports::idp::IdpError;
use crate::ports::store::{Parts, StoreError};

/// What is served here.
pub const ROUTES: &[Route] = &[
    Route::public("GET", "/api/v1/subjects", || get(subjects)),
    Route::public("GET", "/api/v1/subjects/{upstream}/{sub}", || get(subject)),
    Route::public("POST", "/api/v1/subjects/{upstream}/{sub}/thaw", || post(approve)),
    Route::public("GET", "/api/v1/audit", || get(audit)),
    Route::public("GET", "/api/v1/outbox", || get(outbox)),
    Route::public("GET", "/api/v1/dead-letters", || get(letters::list)),
    Route::public("POST", "/api/v1/dead-letters/{letter}/retry", || {
        post(letters::retry)
    }),
];

/// Most lines of one page.
const MOST: usize = 500;
/// Lines of a page that does not say how many.
const USUAL: usize = 100;
/// Longest wait for the identity provider's word whether there is an account.
const ASKED: Duration = Duration::from_secs(5);
/// Most accounts in a hold that are looked at for one list.
const LOOKED_AT: usize = 50_000;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error)
    }
}

impl From<FlowError> for Problem {
    fn from(error: FlowError) -> Self {
        match error {
            FlowError::Unknown(_) | FlowError::Idp(IdpError::UnknownSubject) => {
                Self::not_found().detail("there is no such account")
            }
            other => Self::unavailable(other),
        }
    }
}

/// How many lines a page has.
fn page_size(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(USUAL) {
        n @ 1..=MOST => Ok(n),
        _ => Err(Problem::bad_request(format!("limit must be 1 to {MOST}"))),
    }
}

fn named(flow: &Flow, upstream: &str, sub: &str) -> Result<Subject, Problem> {
    let missing = || Problem::not_found().detail("there is no such account");
    let upstream = UpstreamId::parse(upstream).ok_or_else(missing)?;
    flow.idp(&upstream)?;
    Subject::new(upstream, sub).ok_or_else(missing)
}

#[derive(Debug, Deserialize)]
struct Listing {
    state: Option<Filter>,
    after: Option<String>,
    limit: Option<usize>,
}

/// Accounts in a hold or a freeze, in the order of their keys in the store.
async fn subjects(
    _: Reader,
    State(context): State<Context>,
    Query(asked): Query<Listing>,
) -> Result<Response, Problem> {
    let flow = &context.flow;
    let size = page_size(asked.limit)?;
    let mut keys = flow
        .store
        .due(Timestamp::from_millis(i64::MAX), LOOKED_AT)
        .await?;
    let complete = keys.len() < LOOKED_AT;
    keys.sort_unstable();
    let after = asked.after.as_deref().map(documents::read_key).transpose()?;
    let mut items = Vec::new();
    let mut next = None;
    for key in keys.into_iter().filter(|k| after.is_none_or(|after| *k > after)) {
        if items.len() == size {
            next = items
                .last()
                .map(|(key, _): &(_, Value)| documents::write_key(key));
            break;
        }
        let loaded = flow.store.read(&key, Parts::GRANTS).await?;
        let now = flow.now(loaded.store_time);
        let Some(record) = loaded.record else { continue };
        let brokered = brokered(&context, &record.subject);
        let (state, document) = documents::summary(&record, loaded.grants.as_ref(), brokered, now);
        if state.shown(asked.state) {
            items.push((key, document));
        }
    }
    let items: Vec<Value> = items.into_iter().map(|(_, document)| document).collect();
    Ok(axum::Json(json!({ "subjects": items, "next": next, "complete": complete })).into_response())
}

/// One account, with everything that was decided and why.
async fn subject(
    _: Reader,
    State(context): State<Context>,
    Path((upstream, sub)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let subject = named(&context.flow, &upstream, &sub)?;
    let loaded = context
        .flow
        .store
        .read(&context.flow.key(&subject), Parts::ALL)
        .await?;
    if loaded.record.is_none() && loaded.account.is_none() {
        there_is(&context.flow, &subject).await?;
    }
    let now = context.flow.now(loaded.store_time);
    let brokered = brokered(&context, &subject);
    let document = documents::subject(&subject, &loaded, brokered, now);
    Ok(axum::Json(document).into_response())
}

/// Whether the account's users log in here, so that it has tokens of ours.
fn brokered(context: &Context, subject: &Subject) -> bool {
    context.broker.settings.upstream(&subject.upstream).is_some()
}

/// The store knows nothing of the account: whether there is one only the identity provider can say.
async fn there_is(flow: &Flow, subject: &Subject) -> Result<(), Problem> {
    let idp = flow.idp(&subject.upstream)?;
    match tokio::time::timeout(ASKED, idp.account(&subject.sub)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(FlowError::from(error).into()),
        Err(_) => Err(Problem::unavailable(
            "the identity provider did not say in time whether there is such an account",
        )),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    finding: Finding,
}

/// An administrator says that a freeze may end, and what was found.
async fn approve(
    Administrator(approver): Administrator,
    State(context): State<Context>,
    Path((upstream, sub)): Path<(String, String)>,
    Json(word): Json<Word>,
) -> Result<Response, Problem> {
    let subject = named(&context.flow, &upstream, &sub)?;
    let state = thaw::approve(&context.flow, &subject, &approver, word.finding)
        .await
        .map_err(refused)?;
    let finding = word.finding.as_str();
    if let Some(other) = state.instead_of {
        return Err(disagreed(finding, other.as_str()));
    }
    let body = json!({
        "finding": finding,
        "approvals": state.approvals,
        "needed": 2,
        "ready": state.ready.map(Wording::machine),
    });
    Ok((StatusCode::OK, axum::Json(body)).into_response())
}

/// Two administrators who found different things: whoever speaks last is told, and so are the others by the account's
/// `freeze`.
fn disagreed(finding: &str, other: &str) -> Problem {
    let detail = format!(
        "another administrator found `{other}`; your word, `{finding}`, stands in its place now. Talk to each other: a \
         second one has to find the same"
    );
    Problem::new(
        StatusCode::CONFLICT,
        "findings-differ",
        "Another administrator found something else",
    )
    .detail(detail)
    .with("finding", finding)
    .with("other_finding", other)
}

fn refused(error: ThawError) -> Problem {
    let conflict = |code, detail: &ThawRefusal| {
        Problem::new(StatusCode::CONFLICT, code, "The freeze cannot be ended like this")
            .detail(detail.to_string())
    };
    match error {
        ThawError::NotEligible => {
            Problem::forbidden("you do not have a role that may approve this, at this moment")
        }
        ThawError::TooNew(from) => {
            let text = format!(
                "your role counts from {} on: the other administrators were told when you got it, and may look at it until then",
                Wording::machine(from)
            );
            Problem::new(
                StatusCode::FORBIDDEN,
                "role-too-new",
                "Your role is too new for this",
            )
            .detail(text)
        }
        ThawError::Refused(why @ (ThawRefusal::OwnAccount | ThawRefusal::NotAllowed)) => {
            Problem::forbidden(why.to_string())
        }
        ThawError::Refused(why @ ThawRefusal::NotContested) => conflict("not-frozen", &why),
        ThawError::Refused(why @ ThawRefusal::SamePerson) => conflict("second-administrator-needed", &why),
        ThawError::Refused(why @ ThawRefusal::AlreadyApproved) => conflict("already-approved", &why),
        ThawError::Flow(error) => error.into(),
    }
}

#[derive(Debug, Deserialize)]
struct Lines {
    upstream: Option<String>,
    sub: Option<String>,
    before: Option<Moment>,
    limit: Option<usize>,
}

/// What was written down, newest first; of one account, or of all.
async fn audit(
    _: Reader,
    State(context): State<Context>,
    Query(asked): Query<Lines>,
) -> Result<Response, Problem> {
    let flow = &context.flow;
    let size = page_size(asked.limit)?;
    let key = match (&asked.upstream, &asked.sub) {
        (Some(upstream), Some(sub)) => Some(flow.key(&named(flow, upstream, sub)?)),
        (None, None) => None,
        _ => return Err(Problem::bad_request("upstream and sub name an account together")),
    };
    let before = asked.before.map_or(Timestamp::from_millis(i64::MAX), |m| m.0);
    let mut lines = flow.store.audit(key.as_ref(), before, size).await?;
    let next = (lines.len() == size)
        .then(|| cut_at_an_instant(&mut lines))
        .flatten();
    let items: Vec<Value> = lines
        .iter()
        .map(|(subject, entry)| documents::audit(subject, entry))
        .collect();
    Ok(axum::Json(json!({ "entries": items, "next_before": next })).into_response())
}

/// Ends a full page between two instants, so that lines of one instant are never torn apart and lost: gives where
/// the next page begins.
fn cut_at_an_instant(lines: &mut Vec<(Subject, Entry)>) -> Option<i64> {
    let last = lines.last()?.1.at;
    if lines.first().is_some_and(|(_, first)| first.at == last) {
        return Some(last.millis());
    }
    lines.retain(|(_, entry)| entry.at != last);
    Some(last.millis().saturating_add(1))
}

#[derive(Debug, Deserialize)]
struct Waiting {
    limit: Option<usize>,
}

/// What waits to be delivered or to be done at an IdP, and what could not be.
async fn outbox(
    _: Reader,
    State(context): State<Context>,
    Query(asked): Query<Waiting>,
) -> Result<Response, Problem> {
    let flow = &context.flow;
    let size = page_size(asked.limit)?;
    let far = Timestamp::from_millis(i64::MAX);
    let pending = flow.store.waiting(size).await?;
    let lines = flow.store.audit(None, far, MOST).await?;
    let failed: Vec<Value> = lines
        .iter()
        .filter(|(_, entry)| entry.action == "notice_undeliverable")
        .map(|(subject, entry)| documents::audit(subject, entry))
        .collect();
    let pending: Vec<Value> = pending.iter().map(documents::pending).collect();
    Ok(axum::Json(json!({ "pending": pending, "undeliverable": failed })).into_response())
}
