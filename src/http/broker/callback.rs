//! `/callback/{upstream}`: back from the IdP.
//!
//! What the browser carries says what was begun; nothing is used up before the IdP's answer is proven, so whoever looks
//! ahead, tries, or is somebody else costs the owner nothing. Then it counts once. The same browser that comes the same
//! way again (reload, back button, a second click) goes on to the same end with the session that it got.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::domain::session::Session;
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Now, Timestamp};
use crate::flow::session::{self, Login, OpenRefusal, Opened};
use crate::http::broker::authorize::{self, give, judge};
use crate::http::broker::browser::{self, SESSION};
use crate::http::broker::carried::{self, Carried, Finished};
use crate::http::broker::login::{self, Goal, Pending};
use crate::http::broker::once::Once;
use crate::http::context::Context;
use crate::http::extract::{Path, Sent};
use crate::http::limits::Kind;
use crate::http::problem::Problem;
use crate::oidc::authorize::{SKEW, fresh};
use crate::oidc::claims;
use crate::oidc::params::Params;
use crate::oidc::upstream::{Answer, UpstreamFault};
use crate::ports::seal::SubjectKey;

/// Errors of an IdP that are ours to pass on; anything else is `access_denied`.
const PASSED: [&str; 7] = [
    "login_required",
    "interaction_required",
    "consent_required",
    "account_selection_required",
    "access_denied",
    "temporarily_unavailable",
    "unmet_authentication_requirements",
];

/// `GET /callback/{upstream}`.
pub async fn callback(
    State(context): State<Context>,
    Path(upstream): Path<String>,
    headers: HeaderMap,
    Sent(params): Sent,
) -> Response {
    let Some(upstream) =
        UpstreamId::parse(&upstream).filter(|id| context.broker.settings.upstream(id).is_some())
    else {
        return Problem::not_found().into_response();
    };
    let Ok(params) = params.unique() else {
        return lost(&context);
    };
    let state = params.get("state").unwrap_or("");
    match carried::find(&context, &headers, state) {
        Some(Carried::Underway(pending)) if pending.upstream == upstream => {
            let client = client_of(&pending.goal);
            let refused = pending.clone();
            let work = arrived(&context, &headers, &params, state, pending);
            // The client hears of an IdP that is slow before the request as a whole is given up.
            let response = match tokio::time::timeout(patience(&context), work).await {
                Ok(response) => response,
                Err(_) => unavailable(&context, &refused, &"the identity provider is too slow"),
            };
            browser::of_client(response, &client)
        }
        Some(Carried::Over(finished)) if finished.upstream == upstream => {
            let client = client_of(&finished.goal);
            browser::of_client(repeated(&context, &headers, finished).await, &client)
        }
        _ => lost(&context),
    }
}

/// How long a log-in may take to end: less than any request may.
fn patience(context: &Context) -> Duration {
    context.limits.time.mul_f32(0.8)
}

/// Nothing can be said now; the client may try again.
fn unavailable(context: &Context, pending: &Pending, cause: &dyn std::fmt::Display) -> Response {
    tracing::warn!(upstream = %pending.upstream, %cause, "log-in not finished");
    let words = "signing in is not possible now";
    failed(context, pending, "temporarily_unavailable", words)
}

fn client_of(goal: &Goal) -> String {
    match goal {
        Goal::Client(request) => request.client.clone(),
        Goal::Page(_) => String::new(),
    }
}

/// A log-in that nobody began here, or that is over.
fn lost(context: &Context) -> Response {
    let text = "This sign-in is too old, was finished before, or was begun in another browser. \
                Go back to the application and sign in again.";
    let account = context.broker.settings.url("/account");
    let page = browser::page_with(
        context,
        StatusCode::BAD_REQUEST,
        "This sign-in cannot be finished",
        text,
        Some(("Or look at your account".to_owned(), account)),
    );
    browser::outcome(page, "unknown_state")
}

async fn arrived(
    context: &Context,
    headers: &HeaderMap,
    params: &Params,
    state: &str,
    pending: Pending,
) -> Response {
    let upstreams = &context.broker.upstreams;
    if let Err(fault) = upstreams.check_issuer(&pending.upstream, params.get("iss")).await {
        tracing::warn!(upstream = %pending.upstream, %fault, "authorization response refused");
        return lost(context);
    }
    if let Some(error) = params.get("error") {
        let passed = PASSED
            .into_iter()
            .find(|p| *p == error)
            .unwrap_or("access_denied");
        return failed(
            context,
            &pending,
            passed,
            "the identity provider did not log anybody in",
        );
    }
    let Some(code) = params.get("code") else {
        return failed(
            context,
            &pending,
            "server_error",
            "the identity provider gave no answer",
        );
    };
    let once = Once::of("login", state, carried::PATIENCE);
    if let Err(error) = once.can_be_marked(&context.flow).await {
        return unavailable(context, &pending, &error);
    }
    let answer = match proven(context, &pending, state, code).await {
        Ok(answer) => answer,
        Err(refused) => return refused,
    };
    match once.is_first(&context.flow).await {
        Ok(true) => logged_in(context, headers, state, pending, answer).await,
        Ok(false) => {
            let mut response = resumed(context, headers, &pending.upstream, pending.goal).await;
            carried::take_away(context, headers, &mut response, state);
            response
        }
        Err(error) => unavailable(context, &pending, &error),
    }
}

/// What the IdP says for a code. Each costs it a question, so what does not do is counted for each log-in.
async fn proven(context: &Context, pending: &Pending, state: &str, code: &str) -> Result<Answer, Response> {
    if let Err(seconds) = context.limiter.ready(Kind::State, state) {
        return Err(Problem::too_often(seconds).into_response());
    }
    let (upstream, now) = (&pending.upstream, context.flow.clock.now());
    let uri = login::callback_uri(context, upstream);
    let upstreams = &context.broker.upstreams;
    let answer = upstreams.finish(upstream, code, &pending.begun, &uri, now).await;
    answer.map_err(|fault| {
        // Whether it was too often is asked before the next one.
        let _ = context.limiter.take(Kind::State, state);
        unproven(context, pending, &fault)
    })
}

/// An answer that the IdP does not stand by.
fn unproven(context: &Context, pending: &Pending, fault: &UpstreamFault) -> Response {
    tracing::warn!(upstream = %pending.upstream, %fault, "log-in not finished");
    let (error, description) = match fault {
        UpstreamFault::Unavailable(_) => ("temporarily_unavailable", "signing in is not possible now"),
        UpstreamFault::Refused(_) | UpstreamFault::Invalid(_) => {
            ("server_error", "the identity provider's answer was not valid")
        }
    };
    failed(context, pending, error, description)
}

/// Back once more in the browser that has the session: the same end, with a code of its own.
async fn repeated(context: &Context, headers: &HeaderMap, finished: Finished) -> Response {
    let found = match browser::cookie(context, headers, SESSION) {
        Some(cookie) => session::find(&context.flow, cookie).await,
        None => Ok(None),
    };
    match found {
        Ok(Some(found)) if found.session.id == finished.session => {
            let way = (finished.goal, finished.began);
            go_on(context, headers, way, &found.key, &found.session).await
        }
        Ok(_) => resumed(context, headers, &finished.upstream, finished.goal).await,
        Err(error) => Problem::unavailable(error).into_response(),
    }
}

/// As if it were asked for anew, at the same IdP: the answer with the session was lost, or the session has ended.
async fn resumed(context: &Context, headers: &HeaderMap, upstream: &UpstreamId, goal: Goal) -> Response {
    match goal {
        Goal::Page(path) => browser::redirect(&context.broker.settings.url(&path)),
        Goal::Client(mut request) => {
            request.upstream = Some(upstream.clone());
            authorize::answer(context, headers, *request, &Params::default()).await
        }
    }
}

/// Tells the client, or the person when there is no client.
fn failed(context: &Context, pending: &Pending, error: &'static str, description: &str) -> Response {
    match &pending.goal {
        Goal::Client(request) => browser::error(context, &request.return_to(), error, description),
        Goal::Page(_) => {
            let text = "You were not signed in. Try again, or go back to where you came from.";
            browser::outcome(
                browser::page(context, StatusCode::BAD_REQUEST, "Not signed in", text),
                error,
            )
        }
    }
}

async fn logged_in(
    context: &Context,
    headers: &HeaderMap,
    state: &str,
    pending: Pending,
    answer: Answer,
) -> Response {
    let subject = Subject::new(pending.upstream.clone(), &answer.sub);
    let Some(subject) = subject.filter(|s| context.broker.settings.sub(s).is_some()) else {
        return failed(
            context,
            &pending,
            "access_denied",
            "this account cannot be used here",
        );
    };
    let login = Login {
        subject,
        upstream_sid: answer.sid,
        auth_time: answer.auth_time,
        acr: answer.acr,
        amr: answer.amr,
        claims: claims::kept(&answer.claims, &context.flow.policy.load().claims),
        id_token: answer.id_token,
    };
    let former = browser::cookie(context, headers, SESSION);
    match session::open(&context.flow, &login, former).await {
        Ok(opened) => finished(context, headers, state, pending, &opened).await,
        Err(OpenRefusal::Stale) => {
            let mut response = again(context, headers, pending).await;
            carried::take_away(context, headers, &mut response, state);
            response
        }
        Err(error @ OpenRefusal::UnknownSubject) => {
            tracing::error!(upstream = %pending.upstream, %error, "a log-in is refused");
            failed(
                context,
                &pending,
                "access_denied",
                "the identity provider does not know this account",
            )
        }
        Err(OpenRefusal::Disabled) => failed(
            context,
            &pending,
            "access_denied",
            "the account is disabled at the identity provider",
        ),
        Err(error) => {
            tracing::warn!(%error, "a session cannot be opened");
            failed(
                context,
                &pending,
                "temporarily_unavailable",
                "signing in is not possible now",
            )
        }
    }
}

/// On to what it was for, with the session; the browser carries that it is over.
async fn finished(
    context: &Context,
    headers: &HeaderMap,
    state: &str,
    pending: Pending,
    opened: &Opened,
) -> Response {
    let over = Finished {
        goal: pending.goal.clone(),
        upstream: pending.upstream,
        session: opened.session.id.clone(),
        began: pending.at,
        at: context.flow.clock.now(),
    };
    let way = (pending.goal, pending.at);
    let mut response = go_on(context, headers, way, &opened.key, &opened.session).await;
    if carried::give(context, headers, &mut response, state, &Carried::Over(over)).is_err() {
        carried::take_away(context, headers, &mut response, state);
    }
    browser::with_cookie(context, response, SESSION, &opened.cookie, None)
}

/// The IdP's session has been ended by a change: only a fresh log-in there will do, once.
async fn again(context: &Context, headers: &HeaderMap, pending: Pending) -> Response {
    let silent = matches!(&pending.goal, Goal::Client(request) if request.silent());
    if pending.again || silent {
        return failed(context, &pending, "login_required", "a fresh log-in is needed");
    }
    login::begin(context, headers, &pending.upstream, pending.goal, true).await
}

/// To what the log-in was for, with when it began.
async fn go_on(
    context: &Context,
    headers: &HeaderMap,
    (goal, began): (Goal, Timestamp),
    key: &SubjectKey,
    session: &Session,
) -> Response {
    let request = match goal {
        Goal::Page(path) => return browser::redirect(&context.broker.settings.url(&path)),
        Goal::Client(request) => *request,
    };
    let now = Now::exact(context.flow.clock.now());
    let done = fresh(&request, session, began).and_then(|()| judge(context, &request, session, now, SKEW));
    if let Err(error) = done {
        let description = "the identity provider did not vouch for what was asked";
        return browser::error(context, &request.return_to(), error, description);
    }
    match context.broker.settings.client(&request.client).cloned() {
        Some(client) => give(context, headers, request, &client, key, session).await,
        None => Problem::fault("a client that is gone").into_response(),
    }
}
