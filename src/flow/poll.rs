//! The poller: reads the IdP's log, line by line into transitions, and moves its cursor only when every line of
//! a page is stored. Lines are read again by design; marks make that harmless.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::audit::Entry;
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Span, Timestamp};
use crate::flow::hook::Wakes;
use crate::flow::ingest::Era;
use crate::flow::reconcile::{self, held};
use crate::flow::unreadable::{self, Failed, MARKS};
use crate::flow::{Flow, FlowError, ingest};
use crate::ports::idp::{Cursor, Heard, IdpError, Line, Look, Unread};
use crate::ports::store::{Loaded, Parts, StoreError, Write};
use crate::ports::trace;

/// How long a poller keeps the log to itself without a word.
const LEASE: Span = Span::from_secs(30);
/// How old the last complete reading by another replica may be to count as caught up.
const FRESH: Span = Span::from_secs(30);

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

/// Shortest pause between two polls, however often we are woken.
const BREATH: Duration = Duration::from_millis(100);
/// The alarm while the IdP refuses us.
const REFUSED: &str = "the identity provider refuses us: changes go unseen until the secret and the roles of our \
    account are right again; `reentry doctor` names what is missing";
/// The alarm while no poll succeeds.
const UNFOLLOWED: &str = "the identity provider's log cannot be followed: changes go unseen until it can be read again; \
    the fault is in the body of `/ready` and in our log";
/// So many polls in a row fail, over as many intervals, before that is an alarm.
const FAILURES: u32 = 10;
/// While an alarm stands, every account's credentials and contacts are compared as often as this.
const COMPARED: Span = Span::from_mins(5);
/// Whose audit lines those about an IdP's log itself are: no account can have this `sub` at an IdP with log-ins.
pub const LOG: &str = "(log)";

/// Polls one IdP every `interval`, and at once when woken, until `stop` says so. `owner` names this process in the
/// lease.
pub async fn run(
    flow: &Flow,
    upstream: &UpstreamId,
    interval: Duration,
    owner: &str,
    (report, wakes): (&Report, &Wakes),
    stop: &tokio_util::sync::CancellationToken,
) {
    flow.watch.every(upstream, interval);
    let mut standing = Standing::default();
    let mut seen = Seen::default();
    let mut followed = Followed::new(interval);
    while !stop.is_cancelled() {
        let named = wakes.named(upstream);
        let turn = trace::scope(flow.trace(), once(flow, upstream, owner, &mut seen));
        let more = match turn.await {
            Ok(Some((more, alarms))) => {
                followed.read(upstream, !more);
                let caught_up = standing.caught_up || !more;
                stand(flow, upstream, &mut standing, caught_up, None, alarms).await;
                more
            }
            // Another replica polls: what it stores, we see, once it has caught up. Who was named to us is looked at
            // here: our word does not reach the other one.
            Ok(None) => {
                look_at(flow, upstream, named).await;
                followed.read(upstream, true);
                standing.caught_up |= another_caught_up(flow, upstream).await;
                standing.fault = None;
                standing.alarms.clear();
                false
            }
            Err(error) => {
                failed(flow, upstream, &mut standing, &error, followed.failed(upstream)).await;
                false
            }
        };
        report(upstream, &standing);
        if !more {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = woken(upstream, wakes, interval) => {}
                () = stop.cancelled() => {}
            }
        }
    }
    // Handed back, so that the next process need not wait for the lease to run out.
    if let Err(error) = flow.store.release(&lease_name(upstream), owner).await {
        tracing::warn!(%upstream, %error, "the lease of the poller ends by itself");
    }
}

/// A wake-up, but never more polls than one a breath.
async fn woken(upstream: &UpstreamId, wakes: &Wakes, interval: Duration) {
    tokio::time::sleep(BREATH.min(interval)).await;
    wakes.woken(upstream).await;
}

/// How well the log is followed.
#[derive(Debug)]
struct Followed {
    interval: Duration,
    /// When it was last read to its end, or the process began.
    at: std::time::Instant,
    /// Since when every poll fails, and how many did.
    failing: Option<(std::time::Instant, u32)>,
}

impl Followed {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            at: std::time::Instant::now(),
            failing: None,
        }
    }

    /// It was read, perhaps to its end.
    fn read(&mut self, upstream: &UpstreamId, whole: bool) {
        self.failing = None;
        if whole {
            self.at = std::time::Instant::now();
        }
        self.measure(upstream);
    }

    /// It could not be read. Says whether that has gone on for too long.
    fn failed(&mut self, upstream: &UpstreamId) -> bool {
        let (since, times) = self.failing.unwrap_or((std::time::Instant::now(), 0));
        self.failing = Some((since, times.saturating_add(1)));
        self.measure(upstream);
        times >= FAILURES && since.elapsed() >= self.interval * FAILURES
    }

    fn measure(&self, upstream: &UpstreamId) {
        let behind = self.at.elapsed().as_secs_f64();
        metrics::gauge!("reentry_log_lag_seconds", "upstream" => upstream.to_string()).set(behind);
    }
}

/// The poll failed: the cursor stays. A refusal does not mend itself, so it is an alarm; whatever else goes on for many
/// intervals is one, too.
async fn failed(flow: &Flow, upstream: &UpstreamId, standing: &mut Standing, error: &FlowError, long: bool) {
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
async fn stand(
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
async fn write_down(flow: &Flow, upstream: &UpstreamId, action: &str, what: &str) {
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

/// Asks the IdP about accounts that were named to this process while another one polls.
async fn look_at(flow: &Flow, upstream: &UpstreamId, named: std::collections::BTreeSet<String>) {
    for sub in named {
        let Some(subject) = Subject::new(upstream.clone(), &sub) else {
            continue;
        };
        match ingest::login_check(flow, &subject).await {
            Ok(_) | Err(FlowError::Idp(IdpError::UnknownSubject)) => {}
            Err(error) => {
                tracing::warn!(%upstream, %error, "an account that was named could not be looked at; the poller will");
            }
        }
    }
}

/// Lines this process has stored already. The log is read with an overlap by design; the marks in the store make
/// that harmless, this makes it cheap.
#[derive(Debug, Default)]
pub struct Seen {
    now: HashSet<String>,
    before: HashSet<String>,
    /// Lines whose partition of the store is lost: stored as soon as it takes them. Until then the cursor stays.
    held: Vec<(Line, Era)>,
    /// The cursor as it is stored, and how far this process has read beyond it meanwhile: one lost partition holds up
    /// nobody else.
    ahead: Option<(Cursor, Cursor)>,
}

impl Seen {
    const MOST: usize = 10_000;

    /// Where to read on.
    fn from(&mut self, stored: &Cursor) -> Cursor {
        match &self.ahead {
            Some((base, ahead)) if base == stored => ahead.clone(),
            _ => stored.clone(),
        }
    }

    fn has(&self, line: &Line) -> bool {
        let name = name(line);
        self.now.contains(&name) || self.before.contains(&name)
    }

    fn add(&mut self, line: &Line) {
        if self.now.len() >= Self::MOST {
            self.before = std::mem::take(&mut self.now);
        }
        self.now.insert(name(line));
    }
}

/// What makes two readings of a line the same: a change that is judged anew is another.
fn name(line: &Line) -> String {
    match &line.heard {
        Heard::Change(c) => {
            format!(
                "{}:{}:{}:{:?}:{}",
                line.sub,
                c.source.as_str(),
                c.id,
                c.kind,
                c.row().as_str()
            )
        }
        Heard::Touched { id } => format!("{}:touched:{id}", line.sub),
        Heard::Withdrawn { id, .. } => format!("{}:withdrawn:{id}", line.sub),
        Heard::Tampered { id, .. } => format!("{}:tampered:{id}", line.sub),
        Heard::Acted { id, .. } => format!("{}:acted:{id}", line.sub),
    }
}

fn lease_name(upstream: &UpstreamId) -> String {
    format!("poll:{upstream}")
}

fn stamp_name(upstream: &UpstreamId) -> String {
    format!("polled:{upstream}")
}

/// Stores a line; `false` when its partition of the store is lost, and it has to come again.
async fn take(flow: &Flow, upstream: &UpstreamId, line: &Line, era: Era) -> Result<bool, FlowError> {
    let parts = match line.heard {
        Heard::Change(_) => Parts::RECORD.while_rebuilding(),
        Heard::Withdrawn { .. } | Heard::Touched { .. } | Heard::Tampered { .. } | Heard::Acted { .. } => {
            Parts::RECORD
        }
    };
    // Asked first, so that a line that has to wait costs the IdP nothing.
    if let Some(subject) = Subject::new(upstream.clone(), &line.sub)
        && let Err(StoreError::Lost { .. }) = flow.store.read(&flow.key(&subject), parts).await
    {
        return Ok(false);
    }
    match ingest::line(flow, upstream, line, era).await {
        Err(FlowError::Store(StoreError::Lost { .. })) => Ok(false),
        other => other.map(|_| true),
    }
}

/// Takes the lines of accounts that could not be read with the others in hand: a second try, or a mark. Says whether
/// there are more of them than are marked at once.
async fn unread(
    flow: &Flow,
    upstream: &UpstreamId,
    accounts: &[Unread],
    era: Era,
) -> Result<bool, FlowError> {
    let mut failed = Vec::new();
    for account in accounts {
        let Some(subject) = Subject::new(upstream.clone(), &account.sub) else {
            nameless(flow, upstream, &account.sub).await;
            continue;
        };
        let parts = Parts::RECORD.while_rebuilding();
        let record = match flow.store.read(&flow.key(&subject), parts).await {
            // Its rebuild reads the whole log of everybody in it.
            Err(StoreError::Lost { .. }) => continue,
            other => other?.record,
        };
        if record.is_some_and(|record| record.unreadable.is_some()) {
            unreadable::waits(flow, &subject, account.since).await?;
            continue;
        }
        failed.push(Failed {
            subject,
            error: IdpError::Unreachable("the account could not be read".to_owned()),
            from: account.since,
            lost: false,
        });
    }
    let left = failed.len() > MARKS;
    let since = failed.iter().map(|one| one.from).min().unwrap_or_default();
    failed.truncate(MARKS);
    let again = |subject: Subject| async move {
        let now = flow.now(None);
        let observation = flow.observe(&subject, Look { since, now }).await?;
        ingest::observed(flow, &subject, &observation, None, era).await
    };
    unreadable::settle(flow, upstream, failed, again).await?;
    Ok(left)
}

/// An id that no account can have here: said, and left out.
async fn nameless(flow: &Flow, upstream: &UpstreamId, sub: &str) {
    let what = format!(
        "the account {sub:?} cannot be named here (longer than {} octets, or with control characters): it is not held in the identity provider's own tokens",
        Subject::MAX
    );
    tracing::error!(%upstream, what, "an account cannot be held");
    write_down(flow, upstream, "log_alarm", &what).await;
}

/// When this log was last read to its end, by whoever has the lease.
pub(super) async fn caught_up_at(flow: &Flow, upstream: &UpstreamId) -> Option<Timestamp> {
    let stamp = flow.store.setting(&stamp_name(upstream)).await.ok().flatten();
    stamp.and_then(|s| s.parse().ok()).map(Timestamp::from_millis)
}

/// Whether the process that has the lease read the log to its end a short while ago.
async fn another_caught_up(flow: &Flow, upstream: &UpstreamId) -> bool {
    let (at, now) = (caught_up_at(flow, upstream).await, flow.clock.now());
    let at = at.filter(|at| now.since(*at).abs() < FRESH);
    if let Some(at) = at {
        flow.watch.read_until(upstream, at.min(now));
    }
    at.is_some()
}

/// Polls once. `None` when another process has the lease; otherwise whether more is waiting, and alarms.
///
/// # Errors
/// [`FlowError`]: the cursor stays where it was, nothing is missed.
pub async fn once(
    flow: &Flow,
    upstream: &UpstreamId,
    owner: &str,
    seen: &mut Seen,
) -> Result<Option<(bool, Vec<String>)>, FlowError> {
    let Some(lease) = flow.store.lease(&lease_name(upstream), owner, LEASE).await? else {
        return Ok(None);
    };
    let began = flow.clock.now();
    let setting = format!("cursor:{upstream}");
    let stored = Cursor(flow.store.setting(&setting).await?.unwrap_or_default());
    let cursor = seen.from(&stored);
    let polled = flow.idp(upstream)?.poll(&cursor, flow.now(None)).await?;
    let era = if cursor.0.is_empty() {
        Era::Before
    } else {
        Era::Ours
    };
    for what in &polled.strange {
        metrics::counter!("reentry_log_strange_lines_total").increment(1);
        tracing::error!(%upstream, what, "a line of the identity provider's log cannot be understood");
        write_down(flow, upstream, "log_alarm", what).await;
    }
    for what in &polled.drifted {
        metrics::counter!("reentry_log_alarms_total").increment(1);
        tracing::error!(%upstream, what, "what holds rest on was changed at the identity provider");
        write_down(flow, upstream, "log_alarm", what).await;
    }
    if polled.doubt {
        held::ask(flow, upstream).await?;
    }
    let held = std::mem::take(&mut seen.held);
    let lines = polled.lines.into_iter().map(|line| (line, era));
    for (line, era) in held.into_iter().chain(lines) {
        if Subject::new(upstream.clone(), &line.sub).is_none() {
            if !seen.has(&line) {
                nameless(flow, upstream, &line.sub).await;
                seen.add(&line);
            }
        } else if !seen.has(&line) {
            match take(flow, upstream, &line, era).await {
                Ok(true) => seen.add(&line),
                Ok(false) => seen.held.push((line, era)),
                Err(error) => {
                    // From the stored cursor on again: nothing that was held back is forgotten.
                    seen.held.clear();
                    seen.ahead = None;
                    return Err(error);
                }
            }
        }
    }
    let left = match unread(flow, upstream, &polled.unread, era).await {
        Ok(left) => left,
        Err(error) => {
            seen.held.clear();
            seen.ahead = None;
            return Err(error);
        }
    };
    if left {
        // The same page once more: those who are marked by then wait for nobody.
        return Ok(Some((true, polled.alarms)));
    }
    if seen.held.is_empty() {
        seen.ahead = None;
        if polled.next != stored {
            flow.store
                .set_setting(&setting, &polled.next.0, Some(&lease))
                .await?;
        }
    } else if seen.held.len() < Seen::MOST {
        // Too many: read no further until they are stored.
        seen.ahead = Some((stored, polled.next));
    }
    if !polled.more {
        let stamp = began.millis().to_string();
        flow.store
            .set_setting(&stamp_name(upstream), &stamp, Some(&lease))
            .await?;
        flow.watch.read_until(upstream, began);
    }
    Ok(Some((polled.more, polled.alarms)))
}
