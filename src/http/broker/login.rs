//! A log-in under way at the IdP: kept in the store under a random name, used once, bound to the browser.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::domain::subject::UpstreamId;
use crate::domain::time::{Span, Timestamp};
use crate::flow::Flow;
use crate::http::broker::browser::{self, LOGIN};
use crate::http::context::Context;
use crate::http::guard::Rendered;
use crate::http::problem::Fault;
use crate::oidc::authorize::AuthorizeRequest;
use crate::oidc::upstream::{Begun, UpstreamFault};
use crate::ports::seal::Purpose;
use crate::ports::store::StoreError;

/// How long a log-in may take.
const PATIENCE: Span = Span::from_mins(30);

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
    /// What was sent there.
    pub begun: Begun,
    /// MAC of the browser's cookie.
    pub browser: Vec<u8>,
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
    let url = begun.url.clone();
    let secret = browser_secret(context, headers);
    let browser = flow.seal.mac(Purpose::Cookie, secret.as_bytes()).to_vec();
    let pending = Pending {
        goal,
        upstream: upstream.clone(),
        begun,
        browser,
        at: flow.clock.now(),
        again,
    };
    match put(flow, &state, &pending).await {
        Ok(()) => browser::with_cookie(context, browser::redirect(&url), LOGIN, &secret, Some(1800)),
        Err(error) => unavailable(&error.to_string()),
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

/// The browser's secret: the one it has, so that log-ins in several tabs do not disturb each other, or a new one.
fn browser_secret(context: &Context, headers: &HeaderMap) -> String {
    let old = browser::cookie(context, headers, LOGIN).filter(|v| {
        v.len() == 43
            && v.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    old.map_or_else(|| context.flow.random::<32>(), str::to_owned)
}

async fn put(flow: &Flow, state: &str, pending: &Pending) -> Result<(), StoreError> {
    let value = serde_json::to_vec(pending).map_err(|e| StoreError::Unreadable(e.to_string()))?;
    flow.store
        .put_state(&format!("login:{state}"), &value, PATIENCE)
        .await
}

/// Takes a log-in: it is gone afterwards. `None` for one that is unknown, used, too old, or of another browser.
///
/// # Errors
/// [`StoreError`].
pub async fn take(
    context: &Context,
    headers: &HeaderMap,
    state: &str,
) -> Result<Option<Pending>, StoreError> {
    let fits = (16..=64).contains(&state.len())
        && state
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let Some(secret) = browser::cookie(context, headers, LOGIN).filter(|_| fits) else {
        return Ok(None);
    };
    let flow = &context.flow;
    let Some(value) = flow.store.take_state(&format!("login:{state}")).await? else {
        return Ok(None);
    };
    let pending: Option<Pending> = serde_json::from_slice(&value).ok();
    Ok(pending.filter(|p| {
        flow.clock.now() < p.at.plus(PATIENCE)
            && flow.seal.verify(Purpose::Cookie, secret.as_bytes(), &p.browser)
    }))
}
