//! `/callback/{upstream}`: back from the IdP.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::Now;
use crate::flow::session::{self, Login, OpenRefusal, Opened};
use crate::http::broker::authorize::{give, judge};
use crate::http::broker::browser::{self, SESSION};
use crate::http::broker::login::{self, Goal, Pending};
use crate::http::context::Context;
use crate::http::extract::{Path, Sent};
use crate::http::problem::Problem;
use crate::oidc::authorize::{SKEW, fresh};
use crate::oidc::claims;
use crate::oidc::params::Params;
use crate::oidc::upstream::{Answer, UpstreamFault};

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
    let pending = match login::take(&context, &headers, params.get("state").unwrap_or("")).await {
        Ok(Some(pending)) if pending.upstream == upstream => pending,
        Ok(_) => return lost(&context),
        Err(error) => return Problem::unavailable(error).into_response(),
    };
    let client = if let Goal::Client(request) = &pending.goal {
        request.client.clone()
    } else {
        String::new()
    };
    browser::of_client(arrived(&context, &headers, &params, pending).await, &client)
}

/// A log-in that nobody began here, or that is over.
fn lost(context: &Context) -> Response {
    let text = "This sign-in is too old, was finished before, or was begun in another browser. \
                Go back to the application and sign in again.";
    let page = browser::page(
        context,
        StatusCode::BAD_REQUEST,
        "This sign-in cannot be finished",
        text,
    );
    browser::outcome(page, "unknown_state")
}

async fn arrived(context: &Context, headers: &HeaderMap, params: &Params, pending: Pending) -> Response {
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
    let uri = login::callback_uri(context, &pending.upstream);
    let now = context.flow.clock.now();
    match upstreams
        .finish(&pending.upstream, code, &pending.begun, &uri, now)
        .await
    {
        Ok(answer) => logged_in(context, headers, pending, answer).await,
        Err(fault) => {
            tracing::warn!(upstream = %pending.upstream, %fault, "log-in not finished");
            match fault {
                UpstreamFault::Unavailable(_) => failed(
                    context,
                    &pending,
                    "temporarily_unavailable",
                    "signing in is not possible now",
                ),
                _ => failed(
                    context,
                    &pending,
                    "server_error",
                    "the identity provider's answer was not valid",
                ),
            }
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

async fn logged_in(context: &Context, headers: &HeaderMap, pending: Pending, answer: Answer) -> Response {
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
        Ok(opened) => {
            let cookie = opened.cookie.clone();
            let response = go_on(context, headers, pending, &opened).await;
            browser::with_cookie(context, response, SESSION, &cookie, None)
        }
        Err(OpenRefusal::Stale) => again(context, headers, pending).await,
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

/// The IdP's session has been ended by a change: only a fresh log-in there will do, once.
async fn again(context: &Context, headers: &HeaderMap, pending: Pending) -> Response {
    let silent = matches!(&pending.goal, Goal::Client(request) if request.silent());
    if pending.again || silent {
        return failed(context, &pending, "login_required", "a fresh log-in is needed");
    }
    login::begin(context, headers, &pending.upstream, pending.goal, true).await
}

async fn go_on(context: &Context, headers: &HeaderMap, pending: Pending, opened: &Opened) -> Response {
    let request = match pending.goal {
        Goal::Page(path) => return browser::redirect(&context.broker.settings.url(&path)),
        Goal::Client(request) => *request,
    };
    let session = &opened.session;
    let now = Now::exact(context.flow.clock.now());
    let done =
        fresh(&request, session, pending.at).and_then(|()| judge(context, &request, session, now, SKEW));
    if let Err(error) = done {
        let description = "the identity provider did not vouch for what was asked";
        return browser::error(context, &request.return_to(), error, description);
    }
    match context.broker.settings.client(&request.client).cloned() {
        Some(client) => give(context, headers, request, &client, &opened.key, session).await,
        None => Problem::fault("a client that is gone").into_response(),
    }
}
