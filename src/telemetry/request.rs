//! The wide log line: one for each request, with everything that is needed to follow a case and nothing that could harm.

use std::time::Duration;

/// What one request's line says.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Given to the caller in a 5xx, so that both can talk about the same request.
    pub trace_id: &'a str,
    /// Our step of that trace, as those whom we called were told.
    pub span_id: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// The matched route, never the path.
    pub route: &'a str,
    /// HTTP status.
    pub status: u16,
    /// From request to response.
    pub elapsed: Duration,
    /// OAuth client, where one was recognised.
    pub client: Option<&'a str>,
    /// IdP by its configured id.
    pub upstream: Option<&'a str>,
    /// A stable word for what came out.
    pub outcome: Option<&'a str>,
    /// The ceiling that was answered (`full`, `read write`, `none`).
    pub ceiling: Option<&'a str>,
    /// How far the account's tier is in force (`on`, `shadow`, `cohort`).
    pub rollout: Option<&'a str>,
}

impl Line<'_> {
    /// Counts the request and writes its line.
    pub fn emit(&self) {
        metrics::histogram!(
            "reentry_http_seconds",
            "route" => self.route.to_owned(),
            "method" => self.method.to_owned(),
            "status" => self.status.to_string()
        )
        .record(self.elapsed.as_secs_f64());
        tracing::info!(
            trace_id = self.trace_id,
            span_id = self.span_id,
            method = self.method,
            route = self.route,
            status = self.status,
            ms = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            client = self.client,
            upstream = self.upstream,
            outcome = self.outcome,
            recovery_scope = self.ceiling,
            rollout = self.rollout,
            "request"
        );
    }
}
