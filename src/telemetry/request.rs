//! The wide log line: one for each request, with everything that is needed to follow a case and nothing that could harm.

use std::cell::RefCell;
use std::collections::HashMap;
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
        self.measure();
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

    /// The handle of the histogram is kept for each thread: looking it up by its labels would cost more than recording.
    fn measure(&self) {
        thread_local! {
            static SECONDS: RefCell<HashMap<String, Vec<Kept>>> = RefCell::default();
        }
        let (method, seconds) = (method(self.method), self.elapsed.as_secs_f64());
        if !super::metric::is_installed() {
            return;
        }
        SECONDS.with_borrow_mut(|all| {
            if !all.contains_key(self.route) {
                all.insert(self.route.to_owned(), Vec::new());
            }
            let Some(kept) = all.get_mut(self.route) else {
                return;
            };
            let known = kept
                .iter()
                .find(|k| k.status == self.status && k.method == method);
            if let Some(known) = known {
                known.histogram.record(seconds);
                return;
            }
            let histogram = metrics::histogram!(
                "reentry_http_seconds",
                "route" => self.route.to_owned(),
                "method" => method,
                "status" => self.status.to_string()
            );
            histogram.record(seconds);
            kept.push(Kept {
                method,
                status: self.status,
                histogram,
            });
        });
    }
}

struct Kept {
    method: &'static str,
    status: u16,
    histogram: metrics::Histogram,
}

/// The method as a label: a client may send any word, and each new one would be kept for ever.
fn method(sent: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == sent).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_word_that_is_no_method_makes_no_label_of_its_own() {
        assert_eq!(super::method("POST"), "POST");
        assert_eq!(super::method("BREW"), "other");
        assert_eq!(super::method("post"), "other");
    }
}
