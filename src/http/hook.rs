//! Hooks: `/hooks/generic/{upstream}/events`, `/hooks/extension/{upstream}/events` and `/backchannel-logout/{upstream}`.
//!
//! What is pushed is proven by the adapter before it is read. A 2xx is sent only after the change is stored; while the
//! store is away it is 503, and the sender repeats.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use serde_json::json;

use crate::domain::subject::UpstreamId;
use crate::flow::hook::{HookFault, take};
use crate::http::context::Context;
use crate::http::extract::{self, Path, Posted};
use crate::http::guard::{LogWords, oauth_unavailable};
use crate::http::limits::{Kind, Limit};
use crate::http::problem::Problem;
use crate::http::rooms::Door;
use crate::http::routes::Route;
use crate::ports::hook::{HookCall, HookKind, HookRefusal};

/// A hook: what is pushed without proof, or a second time, is counted; it has places of its own.
const fn hook(path: &'static str, mount: fn() -> MethodRouter<Context>) -> Route {
    let limit = Limit::Failures(Kind::Hook);
    Route::public("POST", path, mount)
        .limited(limit)
        .behind(Door::Hooks)
}

/// What is served here.
pub const ROUTES: &[Route] = &[
    hook("/hooks/generic/{upstream}/events", || post(generic)),
    hook("/hooks/extension/{upstream}/events", || post(extension)),
    hook("/backchannel-logout/{upstream}", || post(logout)),
];

/// `POST /hooks/generic/{upstream}/events`: any program tells of a change.
async fn generic(
    State(context): State<Context>,
    Path(upstream): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    taken(&context, &upstream, HookKind::Generic, request).await
}

/// `POST /hooks/extension/{upstream}/events`: an extension of the IdP wakes the poller.
async fn extension(
    State(context): State<Context>,
    Path(upstream): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    taken(&context, &upstream, HookKind::Extension, request).await
}

async fn taken(
    context: &Context,
    upstream: &str,
    kind: HookKind,
    request: Request,
) -> Result<Response, Problem> {
    let upstream = UpstreamId::parse(upstream).ok_or_else(Problem::not_found)?;
    let sent = request.headers().clone();
    if !is_json(&sent) {
        return Err(Problem::unsupported_media_type("application/json"));
    }
    let body = extract::body(request).await?;
    let call = HookCall {
        kind,
        headers: headers(kind, &sent)?,
        body: &body,
    };
    let taken = take(&context.flow, &context.wakes, &upstream, &call).await;
    let mut response = match taken {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(fault) => problem(fault).into_response(),
    };
    response.extensions_mut().insert(LogWords {
        upstream: Some(upstream.to_string()),
        ..LogWords::default()
    });
    Ok(response)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// The headers that a hook reads, each at most once.
fn headers(kind: HookKind, sent: &HeaderMap) -> Result<BTreeMap<&'static str, &str>, Problem> {
    let mut read = BTreeMap::new();
    for name in kind.headers() {
        let mut values = sent.get_all(*name).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(Problem::bad_request(format!(
                "the header {name} was sent more than once"
            )));
        }
        let plain = value
            .to_str()
            .map_err(|_| Problem::bad_request(format!("the header {name} is not plain text")))?;
        read.insert(*name, plain);
    }
    Ok(read)
}

fn problem(fault: HookFault) -> Problem {
    match fault {
        HookFault::Flow(error) => Problem::unavailable(error),
        HookFault::Refused(refusal) => match refusal {
            HookRefusal::NotConfigured => Problem::not_found(),
            HookRefusal::Malformed(why) => Problem::bad_request(why),
            HookRefusal::Unproven(why) => Problem::unauthorized(why),
            HookRefusal::Replayed(why) => {
                Problem::new(StatusCode::CONFLICT, "replayed", "This was heeded before").detail(why)
            }
            HookRefusal::Invalid(why) => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-event",
                "The event cannot be what it says",
            )
            .detail(why),
            HookRefusal::Unavailable(why) => Problem::unavailable(why),
        },
    }
}

/// `POST /backchannel-logout/{upstream}`: the IdP ended sessions. Answers in the words of the specification
/// (`OpenID` Connect Back-Channel Logout 1.0 §2.8): 200, or 400 with an OAuth error.
async fn logout(
    State(context): State<Context>,
    Path(upstream): Path<String>,
    Posted(params): Posted,
) -> Response {
    let Some(upstream) = UpstreamId::parse(&upstream) else {
        return Problem::not_found().into_response();
    };
    let params = match params.unique() {
        Ok(params) => params,
        Err(fault) => return refused(&fault.to_string()),
    };
    let call = HookCall {
        kind: HookKind::Logout,
        headers: BTreeMap::new(),
        body: params.get("logout_token").unwrap_or_default().as_bytes(),
    };
    match take(&context.flow, &context.wakes, &upstream, &call).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(HookFault::Refused(HookRefusal::NotConfigured)) => Problem::not_found().into_response(),
        Err(HookFault::Refused(HookRefusal::Unavailable(why))) => oauth_unavailable(&why),
        Err(HookFault::Refused(refusal)) => refused(&refusal.to_string()),
        Err(HookFault::Flow(error)) => oauth_unavailable(&error.to_string()),
    }
}

fn refused(why: &str) -> Response {
    let body = json!({ "error": "invalid_request", "error_description": why });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::BAD_REQUEST, kind, body.to_string()).into_response()
}
