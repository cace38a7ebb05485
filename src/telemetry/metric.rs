//! Every metric by name, in one place, and the text that Prometheus reads.
//!
//! Labels take their values from closed sets (routes, kinds, outcomes): never an account, an address or a client's
//! input, which would let anybody fill the memory.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::TelemetryError;

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds.
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it says and when to look.
    pub help: &'static str,
}

/// Every metric there is. A test holds this table and the code equal.
pub const METRICS: &[Metric] = &[
    counter(
        "reentry_changes_total",
        "Changes of credentials and contacts that were taken in, by `kind`.",
    ),
    counter(
        "reentry_reports_total",
        "\"This was not me\" reports that were taken in.",
    ),
    counter(
        "reentry_tokens_total",
        "Token responses, by `client` (of the configuration) and `recovery_scope`.",
    ),
    counter(
        "reentry_effects_total",
        "Outbox effects by `kind` (email, phone, webhook, idp, event) and `outcome` (delivered, retried, dead).",
    ),
    gauge(
        "reentry_outbox_now",
        "What is in the outbox, by `kind` and `state` (pending, retrying, dead). Alarm when dead is not nought.",
    ),
    gauge(
        "reentry_outbox_oldest_seconds",
        "How long the oldest effect waits that nobody has tried yet, in seconds. Alarm above 120.",
    ),
    counter(
        "reentry_settings_altered_total",
        "Settings in the store that are not as we wrote them: each counted as missing. Alarm.",
    ),
    counter(
        "reentry_unreadable_total",
        "Decisions on state that could not be read or believed: each was restricted. Alarm.",
    ),
    gauge(
        "reentry_partitions_lost_now",
        "Partitions of the store that cannot be believed now: their accounts are restricted. Alarm above 0.",
    ),
    counter(
        "reentry_partitions_lost_total",
        "Partitions of the store that were found lost. Alarm.",
    ),
    counter(
        "reentry_rebuilds_total",
        "Rebuilds of lost partitions, by `outcome` (done, failed).",
    ),
    counter(
        "reentry_reconciles_total",
        "Comparisons of every account of an identity provider that were finished.",
    ),
    counter(
        "reentry_reconciled_accounts_total",
        "Accounts that were compared with what is known.",
    ),
    counter(
        "reentry_reconcile_findings_total",
        "What comparing found that nothing had told, by `kind` (credential, contact, posture, unknown_hold, defaults, unseen). Look at each.",
    ),
    counter(
        "reentry_tampered_total",
        "Acts of others on what holds accounts at the identity provider: re-applied. Alarm.",
    ),
    counter(
        "reentry_acted_in_hold_total",
        "Acts of held accounts with an administrator's rights: told in their cases. Alarm.",
    ),
    counter(
        "reentry_cannot_hold_total",
        "Accounts that the identity provider would not let us hold. Alarm.",
    ),
    counter(
        "reentry_accounts_unreadable_total",
        "Tries to read an account that an identity provider shows and that could not be read: nothing is allowed to it until it can, and the audit log names it. Alarm when it keeps growing.",
    ),
    counter(
        "reentry_account_panics_total",
        "Panics in the work about one account: faults of ours, each taken as a failure to read that account. Alarm, and please report it.",
    ),
    counter(
        "reentry_log_strange_lines_total",
        "Lines of an identity provider's log that could not be understood and were left out, each with an audit line.",
    ),
    gauge(
        "reentry_log_lag_seconds",
        "How long ago the log of an `upstream` was last read to its end. Alarm when it is longer than some poll intervals.",
    ),
    counter(
        "reentry_log_alarms_total",
        "The identity provider's log was switched off, shrunk or cleared. Alarm.",
    ),
    gauge(
        "reentry_log_alarms_now",
        "Faults of the identity provider's log that stand now, by `upstream` (of the configuration). Alarm.",
    ),
    counter(
        "reentry_hooks_total",
        "Calls of hooks by `kind` (generic, extension, logout) and `outcome` (stored, known, woken, replayed, unproven, malformed, unavailable).",
    ),
    counter(
        "reentry_poll_refusals_total",
        "Polls that the identity provider refused: a role or the secret of our account is gone. Alarm.",
    ),
    gauge(
        "reentry_store_used_bytes",
        "Memory that the fullest Redis node uses, where it has a limit. From 80 % of it on log-ins are refused. Alarm.",
    ),
    gauge(
        "reentry_store_limit_bytes",
        "The limit (`maxmemory`) of that node.",
    ),
    counter(
        "reentry_worker_restarts_total",
        "Workers that panicked or ended, by `worker`: each was started again. Alarm.",
    ),
    counter(
        "reentry_accounts_altered_total",
        "Accounts whose values were altered, taken away or put back in the store behind our back: restricted and made anew. Alarm.",
    ),
    counter(
        "reentry_audit_lost_total",
        "Times that audit lines this process had written were gone from the store. Alarm; run `reentry audit verify`.",
    ),
    counter(
        "reentry_poll_failures_total",
        "Polls of the identity provider that failed; it catches up afterwards.",
    ),
    counter(
        "reentry_login_checks_failed_total",
        "Log-ins after which the identity provider did not answer: their tokens say `none`.",
    ),
    counter(
        "reentry_sessions_withdrawn_total",
        "Sessions that ended because the identity provider ended them, or disabled or deleted their account.",
    ),
    counter(
        "reentry_refresh_reuse_total",
        "Old refresh tokens that were sent again: their families are revoked. A client that loses answers, or a stolen token.",
    ),
    counter(
        "reentry_limited_total",
        "Answers 429, by `kind` (login, callback, token, account, report, hook, state).",
    ),
    counter(
        "reentry_shed_total",
        "Requests that found no place, by `door` (common, introspection, hooks, reports, operations) and what was `full` (places, bodies): answered 503.",
    ),
    counter(
        "reentry_log_lines_dropped_total",
        "Log lines that were left out, because nobody read standard error fast enough.",
    ),
    counter(
        "reentry_connections_evicted_total",
        "Connections that did nothing and were closed to make room.",
    ),
    counter(
        "reentry_connections_shed_total",
        "Connections that found no place, because all others were being answered.",
    ),
    counter(
        "reentry_store_reconnects_total",
        "Connections to Redis that were made anew. Look when it grows: the server or the network is unsteady.",
    ),
    counter(
        "reentry_store_failovers_total",
        "Times that another node became the master of some or all of what is stored in Redis.",
    ),
    histogram(
        "reentry_http_seconds",
        "Time from a request to its response, by `route`, `method` and `status`.",
    ),
];

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        help,
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        help,
    }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram,
        help,
    }
}

/// Upper bounds of the histogram's buckets in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Whether measurements are counted in this process: from then on handles may be kept.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Whether measurements are counted in this process.
pub(crate) fn is_installed() -> bool {
    INSTALLED.load(Ordering::Acquire)
}

/// The text that `/metrics` answers with.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Starts counting, once in a process.
    ///
    /// # Errors
    /// [`TelemetryError::Twice`].
    pub fn install() -> Result<Self, TelemetryError> {
        let twice = |e: metrics_exporter_prometheus::BuildError| TelemetryError::Twice(e.to_string());
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
            .map_err(twice)?;
        let handle = builder.install_recorder().map_err(twice)?;
        for metric in METRICS {
            match metric.kind {
                Kind::Counter => {
                    metrics::describe_counter!(metric.name, metric.help);
                    // An alarm must be able to see the first one: what has no labels begins at nought.
                    if !metric.help.contains("by `") {
                        metrics::counter!(metric.name).absolute(0);
                    }
                }
                Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                Kind::Histogram => metrics::describe_histogram!(metric.name, Unit::Seconds, metric.help),
            }
        }
        INSTALLED.store(true, Ordering::Release);
        Ok(Self(handle))
    }

    /// Puts what was measured into buckets. Until then each single measurement is kept, so without a collector somebody
    /// has to ask for this now and then.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// Everything counted so far in Prometheus' text format (version 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every `reentry_...` in quotes in a folder, this file left out.
    fn named(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                named(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("telemetry/metric.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for part in text.split("\"reentry_").skip(1) {
                    let name = part.split('"').next().unwrap_or_default();
                    let ends = ["_total", "_seconds", "_now", "_bytes"];
                    if ends.iter().any(|end| name.ends_with(end)) {
                        found.insert(format!("reentry_{name}"));
                    }
                }
            }
        }
    }

    #[test]
    fn the_table_names_every_metric_of_the_program_and_no_other() {
        let mut used = BTreeSet::new();
        named(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut used);
        let listed: BTreeSet<String> = METRICS.iter().map(|m| m.name.to_owned()).collect();
        assert_eq!(used, listed);
    }

    #[test]
    fn metrics_are_rendered_with_their_help() {
        let metrics = Metrics::install().unwrap();
        metrics::counter!("reentry_reports_total").increment(2);
        let text = metrics.render();
        assert!(text.contains("# HELP reentry_reports_total"), "{text}");
        assert!(text.contains("reentry_reports_total 2"), "{text}");
        assert!(text.contains("reentry_unreadable_total 0"), "{text}");
        assert!(Metrics::install().is_err());
    }
}
