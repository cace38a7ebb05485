//! What is done around every request: a place for it or 503, a deadline, panics caught, security headers, one wide
//! log line with the matched route and never the path, and a trace id as the only word of a 5xx.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use crate::domain::pace;
use crate::flow::session;
use crate::http::broker::browser::{self, SESSION};
use crate::http::context::Context;
use crate::http::cors;
use crate::http::extract::{self, Arrived, BodyBounds};
use crate::http::limits::{self, Kind, Limit};
use crate::http::pages;
use crate::http::peer::Peer;
use crate::http::problem::{Fault, Problem, fault_document};
use crate::http::rooms::Door;
use crate::http::routes::{Route, Table};
use crate::ports::clock::Entropy;
use crate::ports::trace::{self, Trace};
use crate::telemetry::request::Line;

/// What a page without a policy of its own gets.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'";

/// Marks a response whose faults are told in the words of RFC 6749.
#[derive(Clone, Copy, Debug)]
pub struct OAuthFault(pub &'static str);

/// Words a handler adds to the log line of its request: the client, the outcome. No secret, no address, no `sub`.
#[derive(Clone, Debug, Default)]
pub struct LogWords {
    /// The OAuth client.
    pub client: Option<String>,
    /// The IdP by its configured id.
    pub upstream: Option<String>,
    /// The ceiling that was answered.
    pub ceiling: Option<String>,
    /// `shadow` when the rules that would restrict this account are not in force yet, otherwise `on`.
    pub rollout: Option<&'static str>,
    /// A stable word for what came out.
    pub outcome: Option<&'static str>,
}

/// What the guard goes by.
#[derive(Clone)]
pub struct Guard {
    /// The handlers' context.
    pub context: Context,
    /// The routes of this listener.
    pub table: Arc<Table>,
}

/// The guard.
pub async fn around(
    State(Guard { context, table }): State<Guard>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let trace = trace(&context, request.headers());
    let trace_id = trace.id();
    let peer = context.proxies.client(request.headers(), request.extensions());
    let method = request.method().clone();
    let route = matched.as_ref().map_or("(none)", MatchedPath::as_str);
    let row = table.row(method.as_str(), route);
    request.extensions_mut().insert(peer);
    let span_id = trace.span();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let work = trace::scope(trace, answer(&context, peer, route, row, request, next));
    let mut response = work.await;
    let cause = explain(&mut response, &trace_id);
    cors::share(&context.broker.settings, route, origin.as_ref(), &mut response);
    secure(response.headers_mut(), context.broker.settings.is_https());
    let words = response.extensions_mut().remove::<LogWords>().unwrap_or_default();
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    // A probe that says "not yet" is an answer, not a fault.
    if let Some(cause) = cause.filter(|_| route != "/ready") {
        tracing::error!(%trace_id, %method, %route, status, cause, "request failed");
    }
    Line {
        trace_id: &trace_id,
        span_id: &span_id,
        method: method.as_str(),
        route,
        status,
        elapsed,
        client: words.client.as_deref(),
        upstream: words.upstream.as_deref(),
        outcome: words.outcome,
        ceiling: words.ceiling.as_deref(),
        rollout: words.rollout,
    }
    .emit();
    response
}

/// Whether the request names its host once, as every one of HTTP/1.1 has to (RFC 9112 §3.2): what two readers could send
/// to two places is answered by neither.
fn has_one_host(request: &Request) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11)
}

/// The answer: 429 to an address that asks or fails too often, 503 when there is no place, or what the handler says in
/// time.
async fn answer(
    context: &Context,
    peer: Peer,
    route: &str,
    row: Option<&Route>,
    request: Request,
    next: Next,
) -> Response {
    if !has_one_host(&request) {
        return Problem::bad_request("send the header Host once").into_response();
    }
    let settings = &context.broker.settings;
    if let Some(answer) = cors::preflight(settings, route, request.method(), request.headers()) {
        return answer;
    }
    let limit = row.and_then(|row| row.limit).filter(|_| peer.is_known());
    if let Some(Limit::Tries(kind)) = limit
        && let Err(answer) = tried(context, kind, route, peer, request.headers())
    {
        return answer;
    }
    let response = match row.filter(|row| row.acts).and_then(|row| ahead(row, &request)) {
        Some(response) => response,
        None => {
            handled(
                context,
                row.map_or(Door::Common, |row| row.door),
                peer,
                request,
                next,
            )
            .await
        }
    };
    let Some(Limit::Failures(kind)) = limit else {
        return response;
    };
    let proven = !response.status().is_client_error();
    let judged = pace::judge(proven, || {
        context.limiter.take(kind, limits::bucket(kind, route, peer.0))
    });
    judged.err().map_or(response, |seconds| too_often(kind, seconds))
}

/// Counts a request that proves nothing: by the session of a browser that has one of ours, otherwise by its address.
fn tried(
    context: &Context,
    kind: Kind,
    route: &str,
    peer: Peer,
    headers: &HeaderMap,
) -> Result<(), Response> {
    let cookie = browser::cookie(context, headers, SESSION);
    let taken = match cookie.and_then(|cookie| session::named(&context.flow, cookie)) {
        Some(session) => context.limiter.take(kind, session),
        None => context.limiter.take(kind, limits::bucket(kind, route, peer.0)),
    };
    taken.map_err(|seconds| too_often(kind, seconds))
}

fn too_often(kind: Kind, seconds: u64) -> Response {
    metrics::counter!("reentry_limited_total", "kind" => kind.as_str()).increment(1);
    Problem::too_often(seconds).into_response()
}

/// What whoever only looks ahead is told at a route that acts: `HEAD`, or a browser that fetches before anybody has
/// gone there. Whoever goes there finds everything as it was.
fn ahead(row: &Route, request: &Request) -> Option<Response> {
    if request.method() == Method::HEAD {
        let mut response = Problem::method_not_allowed().into_response();
        let allow = HeaderValue::from_static(row.method);
        response.headers_mut().insert(header::ALLOW, allow);
        return Some(response);
    }
    let says = |name: &str, word: &str| {
        let lines = request.headers().get_all(name).iter();
        let mut words = lines.filter_map(|line| line.to_str().ok());
        words.any(|line| line.contains(word))
    };
    let prefetch =
        says("sec-purpose", "prefetch") || says("purpose", "prefetch") || says("x-moz", "prefetch");
    prefetch.then(|| Problem::forbidden("this address is not fetched ahead; go there").into_response())
}

/// What the handler says in time, if there is a place for it when the request is there as a whole.
async fn handled(context: &Context, door: Door, peer: Peer, mut request: Request, next: Next) -> Response {
    let crowded = || {
        Problem::unavailable("too many requests at once")
            .retry_after(1)
            .into_response()
    };
    if request.method() == Method::POST && !request.body().is_end_stream() {
        let bounds = BodyBounds {
            most: context.limits.body,
            time: context.limits.body_time,
        };
        let body = std::mem::take(request.body_mut());
        let room = || context.rooms.body(door, peer);
        let Some(arrived) = extract::arrive(request.headers(), body, bounds, room).await else {
            return crowded();
        };
        request.extensions_mut().insert(Arrived(arrived));
    }
    let Ok(_place) = context.rooms.place(door) else {
        return crowded();
    };
    let person = is_person(&request);
    let work = AssertUnwindSafe(tokio::time::timeout(context.limits.time, next.run(request))).catch_unwind();
    match work.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) if person => pages::slow(&context.pages),
        Ok(Err(_)) => Problem::unavailable("the request took too long").into_response(),
        Err(_) => Problem::fault("a handler panicked").into_response(),
    }
}

/// Whether somebody looks at the answer in a browser, and wants a page.
fn is_person(request: &Request) -> bool {
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|a| a.to_str().ok());
    request.method() == Method::GET && accept.is_some_and(|a| a.contains("text/html"))
}

/// The trace that the request belongs to: the caller's if it is well-formed, else a new one.
fn trace(context: &Context, headers: &HeaderMap) -> Trace {
    let dice = dice(context.flow.entropy.as_ref());
    let (id, span) = (first(&dice), first(dice.get(16..).unwrap_or_default()));
    let one = |name: &str| {
        let mut lines = headers.get_all(name).iter();
        lines.next().filter(|_| lines.next().is_none())?.to_str().ok()
    };
    let found = one("traceparent").and_then(|parent| Trace::continuing(parent, one("tracestate"), span));
    found.unwrap_or_else(|| Trace::new(id, span))
}

/// Octets of a trace's names. They are no secret and only have to differ, so they are drawn for some requests at once.
fn dice(entropy: &dyn Entropy) -> [u8; 24] {
    const REQUESTS: usize = 32;
    thread_local! {
        static DRAWN: RefCell<Vec<[u8; 24]>> = const { RefCell::new(Vec::new()) };
    }
    DRAWN.with_borrow_mut(|drawn| {
        if let Some(dice) = drawn.pop() {
            return dice;
        }
        let mut fresh = [0; 24 * REQUESTS];
        entropy.fill(&mut fresh);
        let (dice, _) = fresh.as_chunks::<24>();
        drawn.extend_from_slice(dice);
        drawn.pop().unwrap_or_default()
    })
}

/// The first `N` octets; a trace's name of zeros only is replaced where it is made.
fn first<const N: usize>(octets: &[u8]) -> [u8; N] {
    octets.first_chunk().copied().unwrap_or([0; N])
}

/// Gives a 5xx its only word, and the cause for the log.
fn explain(response: &mut Response, trace_id: &str) -> Option<String> {
    let status = response.status();
    if !status.is_server_error() {
        return None;
    }
    let cause = response
        .extensions()
        .get::<Fault>()
        .map_or_else(|| "unexplained".to_owned(), |f| f.0.clone());
    let oauth = response.extensions().get::<OAuthFault>().copied();
    if response.extensions().get::<Rendered>().is_some() {
        return Some(cause);
    }
    let (kind, body) = match oauth {
        Some(OAuthFault(error)) => (
            "application/json",
            serde_json::json!({ "error": error, "trace_id": trace_id }),
        ),
        None => ("application/problem+json", fault_document(status, trace_id)),
    };
    let retry = response.headers().get(header::RETRY_AFTER).cloned();
    let words = response.extensions().get::<LogWords>().cloned();
    *response = (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response();
    if let Some(retry) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, retry);
    }
    if let Some(words) = words {
        response.extensions_mut().insert(words);
    }
    Some(cause)
}

/// Marks a 5xx that is a page already.
#[derive(Clone, Copy, Debug)]
pub struct Rendered;

/// Security headers; a handler's own stand.
fn secure(headers: &mut HeaderMap, https: bool) {
    let mut put = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    put(header::CACHE_CONTROL, "no-store");
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::REFERRER_POLICY, "no-referrer");
    put(header::X_FRAME_OPTIONS, "DENY");
    put(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    if https {
        put(
            header::STRICT_TRANSPORT_SECURITY,
            "max-age=31536000; includeSubDomains",
        );
    }
}

/// 503 in the words of RFC 6749.
#[must_use]
pub fn oauth_unavailable(cause: &str) -> Response {
    oauth_fault(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", cause)
}

/// A 5xx in the words of RFC 6749; `cause` goes to the log.
#[must_use]
pub fn oauth_fault(status: StatusCode, error: &'static str, cause: &str) -> Response {
    let mut response = status.into_response();
    response.extensions_mut().insert(Fault(cause.to_owned()));
    response.extensions_mut().insert(OAuthFault(error));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}
