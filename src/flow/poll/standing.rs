//! How a poller stands: faults, alarms and their end, and how far it is behind.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::audit::Entry;
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::Span;
use crate::flow::{Flow, FlowError, reconcile};
use crate::ports::idp::IdpError;
use crate::ports::store::{Loaded, Parts, Write};

/// How a poller stands, for readiness and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The log was read to its end at least once since the start.
    pub caught_up: bool,
    /// The last fault, until a poll succeeds.
    pub fault: Option<String>,
    /// Alarms of the last poll: the log is switched off, was shrunk, or does not record what we need.
    pub alarms: Vec<String>,
}

/// Where pollers report their standing.
pub type Report = Arc<dyn Fn(&UpstreamId, &Standing) + Send + Sync>;

/// The alarm while the IdP refuses us.
const REFUSED: &str = "the identity provider refuses us: changes go unseen until the secret and the roles of our \
    account are right again; `reentry doctor` names what is missing";
/// The alarm while no poll succeeds.
const UNFOLLOWED: &str = "the identity provider's log cannot be followed: changes go unseen until it can be read again; \
    the fault is in the body of `/ready` and in our log";
/// So many polls in a row fail, over as many intervals, before that is an alarm.
const FAILURES: u32 = 10;
/// How long it may take until the lease of a process that died is another's.
const LEASES: Duration = Duration::from_mins(1);
/// While an alarm stands, every account's credentials and contacts are compared as often as this.
const COMPARED: Span = Span::from_mins(5);
/// Whose audit lines those about an IdP's log itself are: no account can have this `sub` at an IdP with log-ins.
pub const LOG: &str = "(log)";

/// How well the log is followed.
#[derive(Debug)]
pub(super) struct Followed {
    interval: Duration,
    /// When it was last read to its end, or the process began.
    at: std::time::Instant,
    /// Since when every poll fails, and how many did.
    failing: Option<(std::time::Instant, u32)>,
}

impl Followed {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            at: std::time::Instant::now(),
            failing: None,
        }
    }

    /// It was read, perhaps to its end.
    pub(super) fn read(&mut self, upstream: &UpstreamId, whole: bool) {
        self.failing = None;
        if whole {
            self.at = std::time::Instant::now();
        }
        self.measure(upstream);
    }

    /// It could not be read. Says whether that has gone on for too long.
    pub(super) fn failed(&mut self, upstream: &UpstreamId) -> bool {
        let (since, times) = self.failing.unwrap_or((std::time::Instant::now(), 0));
        self.failing = Some((since, times.saturating_add(1)));
        self.measure(upstream);
        times >= FAILURES && since.elapsed() >= self.interval * FAILURES
    }

    /// Another process has the lease, and said that long ago that it had read the log to its end. What is wrong, when that
    /// is too long ago: it may hang, or somebody keeps its lease who is no process of ours.
    pub(super) fn by_another(
        &mut self,
        upstream: &UpstreamId,
        ago: Option<Span>,
    ) -> (Option<String>, Vec<String>) {
        self.failing = None;
        let ago = ago.and_then(|ago| u64::try_from(ago.millis()).ok());
        let at = ago.and_then(|ago| std::time::Instant::now().checked_sub(Duration::from_millis(ago)));
        self.at = at.map_or(self.at, |at| at.max(self.at));
        self.measure(upstream);
        if self.at.elapsed() < self.interval * FAILURES + LEASES {
            return (None, Vec::new());
        }
        let fault = "another process has the lease of the poller, and does not read the log to its end";
        (Some(fault.to_owned()), vec![UNFOLLOWED.to_owned()])
    }

    /// Does the work; that it takes long shows meanwhile.
    pub(super) async fn while_at<T>(&self, upstream: &UpstreamId, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Duration::from_secs(1)) => self.measure(upstream),
            }
        }
    }

    fn measure(&self, upstream: &UpstreamId) {
        let behind = self.at.elapsed().as_secs_f64();
        metrics::gauge!("reentry_log_lag_seconds", "upstream" => upstream.to_string()).set(behind);
    }
}

/// The poll failed: the cursor stays. A refusal does not mend itself, so it is an alarm; whatever else goes on for many
/// intervals is one, too.
pub(super) async fn failed(
    flow: &Flow,
    upstream: &UpstreamId,
    standing: &mut Standing,
    error: &FlowError,
    long: bool,
) {
    metrics::counter!("reentry_poll_failures_total").increment(1);
    tracing::warn!(%upstream, %error, "the identity provider could not be polled");
    let mut alarms = standing.alarms.clone();
    if let FlowError::Idp(IdpError::Refused(_)) = error {
        metrics::counter!("reentry_poll_refusals_total").increment(1);
        if !alarms.iter().any(|alarm| alarm == REFUSED) {
            alarms.push(REFUSED.to_owned());
        }
    }
    if long && !alarms.iter().any(|alarm| alarm == UNFOLLOWED) {
        alarms.push(UNFOLLOWED.to_owned());
    }
    let caught_up = standing.caught_up;
    stand(
        flow,
        upstream,
        standing,
        caught_up,
        Some(error.to_string()),
        alarms,
    )
    .await;
}

/// Notes how the poller stands now. Every alarm that was not there before is logged, counted and written down, and
/// so is the end of all of them.
pub(super) async fn stand(
    flow: &Flow,
    upstream: &UpstreamId,
    standing: &mut Standing,
    caught_up: bool,
    fault: Option<String>,
    alarms: Vec<String>,
) {
    let fresh: Vec<&String> = alarms.iter().filter(|a| !standing.alarms.contains(a)).collect();
    for alarm in &fresh {
        metrics::counter!("reentry_log_alarms_total").increment(1);
        tracing::error!(%upstream, alarm = %alarm, "the identity provider's log cannot be relied on");
        write_down(flow, upstream, "log_alarm", alarm).await;
    }
    // What the log no longer tells, the accounts themselves show.
    let compared = match (fresh.is_empty(), alarms.is_empty()) {
        (false, _) => reconcile::ask(flow, upstream).await,
        (true, false) => reconcile::ask_after(flow, upstream, COMPARED).await,
        (true, true) => Ok(()),
    };
    if let Err(error) = compared {
        tracing::warn!(%upstream, %error, "accounts are not compared sooner than usual");
    }
    if fault.is_none() && standing.fault.is_some() {
        tracing::info!(%upstream, "the identity provider is polled again");
    }
    if fault.is_none() && alarms.is_empty() && !standing.alarms.is_empty() {
        tracing::info!(%upstream, "the identity provider's log can be relied on again");
        write_down(flow, upstream, "log_alarm_over", &standing.alarms.join("; ")).await;
    }
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    metrics::gauge!("reentry_log_alarms_now", "upstream" => upstream.to_string()).set(alarms.len() as f64);
    *standing = Standing {
        caught_up,
        fault,
        alarms,
    };
}

/// An audit line about the log itself, announced when it is an alarm. When it cannot be written, the log line and the metric stand.
pub(in crate::flow) async fn write_down(flow: &Flow, upstream: &UpstreamId, action: &str, what: &str) {
    let Some(subject) = Subject::new(upstream.clone(), LOG) else {
        return;
    };
    let at = flow.clock.now();
    let id = format!("{action}:{upstream}:{}:{}", at.millis(), flow.random::<6>());
    let mut entry = Entry::system(id, at, action, None).with("what", what);
    if action == "log_alarm" {
        entry = entry.alarming();
    }
    let said = |_: &Loaded| Some(Write::saying(&subject, entry.clone()));
    let key = flow.key(&subject);
    let written = flow.store.update(&key, Parts::RECORD, None, &said);
    if let Err(error) = written.await {
        tracing::warn!(%upstream, %error, "an alarm could not be written to the audit log");
    }
}
