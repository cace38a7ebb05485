//! A log-in at the IdP that begins: everything that is needed when the browser comes back travels with the browser
//! (see [`carried`]), and `state` only names it.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::domain::subject::UpstreamId;
use crate::domain::time::Timestamp;
use crate::http::broker::browser;
use crate::http::broker::carried::{self, Carried, TooLong};
use crate::http::context::Context;
use crate::http::guard::Rendered;
use crate::http::problem::Fault;
use crate::oidc::authorize::AuthorizeRequest;
use crate::oidc::upstream::{Begun, UpstreamFault};

/// What a log-in is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// To answer a client.
    Client(Box<AuthorizeRequest>),
    /// To show one of our pages: a path below the issuer, chosen by us, never by a request.
    Page(String),
}

/// A log-in under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What it is for.
    pub goal: Goal,
    /// The IdP.
    pub upstream: UpstreamId,
    /// What was sent there, without the address: it is not needed any more.
    pub begun: Begun,
    /// When it began.
    pub at: Timestamp,
    /// A fresh log-in was demanded already.
    pub again: bool,
}

/// The redirect URI that the IdP knows.
#[must_use]
pub fn callback_uri(context: &Context, upstream: &UpstreamId) -> String {
    context.broker.settings.url(&format!("/callback/{upstream}"))
}

/// Sends the browser to the IdP.
pub async fn begin(
    context: &Context,
    headers: &HeaderMap,
    upstream: &UpstreamId,
    goal: Goal,
    again: bool,
) -> Response {
    let request = if let Goal::Client(request) = &goal {
        Some(request.as_ref())
    } else {
        None
    };
    let back = request.map(AuthorizeRequest::return_to);
    let flow = &context.flow;
    let state = flow.random::<24>();
    let uri = callback_uri(context, upstream);
    let begun = context
        .broker
        .upstreams
        .begin(upstream, &uri, &state, request, again)
        .await;
    let unavailable = |cause: &str| {
        tracing::warn!(%upstream, cause, "a log-in cannot begin");
        match &back {
            Some(to) => browser::error(
                context,
                to,
                "temporarily_unavailable",
                "signing in is not possible now",
            ),
            None => away(context, cause),
        }
    };
    let begun = match begun {
        Ok(begun) => begun,
        Err(
            UpstreamFault::Unavailable(cause) | UpstreamFault::Refused(cause) | UpstreamFault::Invalid(cause),
        ) => {
            return unavailable(&cause);
        }
    };
    let Begun { url, nonce, verifier } = begun;
    let pending = Pending {
        goal,
        upstream: upstream.clone(),
        begun: Begun {
            url: String::new(),
            nonce,
            verifier,
        },
        at: flow.clock.now(),
        again,
    };
    let mut response = browser::redirect(&url);
    match carried::give(
        context,
        headers,
        &mut response,
        &state,
        &Carried::Underway(pending),
    ) {
        Ok(()) => response,
        Err(fault @ TooLong) => match &back {
            Some(to) => browser::error(
                context,
                to,
                "invalid_request",
                "the request is too long; shorten state, nonce, login_hint, ui_locales, acr_values or claims",
            ),
            None => away(context, &fault.to_string()),
        },
    }
}

/// What somebody sees who wanted one of our pages while nobody can be logged in.
fn away(context: &Context, cause: &str) -> Response {
    let text = "Signing in is not possible right now. Nothing is wrong with your account. Try again in a few minutes.";
    let mut page = browser::page(
        context,
        StatusCode::SERVICE_UNAVAILABLE,
        "Not available at the moment",
        text,
    );
    page.headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    page.extensions_mut().insert(Fault(cause.to_owned()));
    page.extensions_mut().insert(Rendered);
    browser::outcome(page, "temporarily_unavailable")
}
