//! The poller: reads the IdP's log, line by line into transitions, and moves its cursor only when every line of
//! a page is stored. Lines are read again by design; marks make that harmless.

mod standing;
mod unread;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Span, Timestamp};
use crate::flow::hook::Wakes;
use crate::flow::ingest::Era;
use crate::flow::reconcile::held;
use crate::flow::{Flow, FlowError, ingest, signed_out};
use crate::ports::idp::{Cursor, Heard, IdpError, Line, Polled, Reading};
use crate::ports::store::{Parts, StoreError};
use crate::ports::trace;

pub(super) use standing::write_down;
use standing::{Followed, failed, stand};
pub use standing::{LOG, Report, Standing};
use unread::{nameless, unread};

/// How long a poller keeps the log to itself without a word.
const LEASE: Span = Span::from_secs(30);
/// How old the last complete reading by another replica may be to count as caught up.
const FRESH: Span = Span::from_secs(30);

/// Shortest pause between two polls, however often we are woken.
const BREATH: Duration = Duration::from_millis(100);
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
        let more = match followed.while_at(upstream, Box::pin(turn)).await {
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
                let age = another_caught_up(flow, upstream).await;
                let caught_up = standing.caught_up || age.is_some_and(|age| age < FRESH);
                let (fault, alarms) = followed.by_another(upstream, age);
                stand(flow, upstream, &mut standing, caught_up, fault, alarms).await;
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

/// Asks the IdP about accounts that were named to this process while another one polls.
async fn look_at(flow: &Flow, upstream: &UpstreamId, named: std::collections::BTreeSet<String>) {
    for sub in named {
        let Some(subject) = Subject::new(upstream.clone(), &sub) else {
            continue;
        };
        match Box::pin(ingest::login_check(flow, &subject)).await {
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
        Heard::Entered { id } => format!("{}:entered:{id}", line.sub),
    }
}

fn lease_name(upstream: &UpstreamId) -> String {
    format!("poll:{upstream}")
}

fn stamp_name(upstream: &UpstreamId) -> String {
    format!("polled:{upstream}")
}

/// Stores a line; `false` when its partition of the store is lost, and it has to come again.
async fn take(
    flow: &Flow,
    upstream: &UpstreamId,
    line: &Line,
    era: Era,
    reading: &mut Option<Reading>,
) -> Result<bool, FlowError> {
    let Some(subject) = Subject::new(upstream.clone(), &line.sub) else {
        nameless(flow, upstream, &line.sub).await;
        return Ok(true);
    };
    let parts = match line.heard {
        Heard::Change(_) => Parts::RECORD.while_rebuilding(),
        Heard::Withdrawn { .. }
        | Heard::Touched { .. }
        | Heard::Tampered { .. }
        | Heard::Acted { .. }
        | Heard::Entered { .. } => Parts::RECORD,
    };
    // Asked first, so that a line that has to wait costs the IdP nothing.
    if let Err(StoreError::Lost { .. }) = flow.store.read(&flow.key(&subject), parts).await {
        return Ok(false);
    }
    match ingest::take(flow, &subject, &line.heard, reading, era).await {
        Err(FlowError::Store(StoreError::Lost { .. })) => Ok(false),
        // It is read from the IdP again and made to agree with it when it is made anew: no line has to wait for that.
        Err(FlowError::Store(StoreError::Altered(_))) => Ok(true),
        other => other.map(|_| true),
    }
}

/// Says what a page has beside its lines: those that cannot be understood, and what was done to what holds rest on.
async fn tell(flow: &Flow, upstream: &UpstreamId, polled: &Polled) -> Result<(), FlowError> {
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
    Ok(())
}

/// Stores these lines, after those that were held back before.
async fn take_all(
    flow: &Flow,
    upstream: &UpstreamId,
    (lines, read): (Vec<Line>, BTreeMap<String, Reading>),
    era: Era,
    seen: &mut Seen,
) -> Result<(), FlowError> {
    // An account is read once for all of its lines: they were there before.
    let mut readings: HashMap<String, Option<Reading>> = HashMap::new();
    for (sub, reading) in read {
        if let Some(subject) = Subject::new(upstream.clone(), &sub) {
            readings.insert(sub, Some(flow.taken_in(&subject, reading).await));
        }
    }
    let lines = lines.into_iter().map(|line| (line, era));
    let held = std::mem::take(&mut seen.held);
    for (line, era) in held.into_iter().chain(lines) {
        if !seen.has(&line) {
            let reading = readings.entry(line.sub.clone()).or_default();
            if take(flow, upstream, &line, era, reading).await? {
                seen.add(&line);
            } else {
                seen.held.push((line, era));
            }
        }
    }
    Ok(())
}

/// When this log was last read to its end, by whoever has the lease.
pub(super) async fn caught_up_at(flow: &Flow, upstream: &UpstreamId) -> Option<Timestamp> {
    let stamp = flow.store.setting(&stamp_name(upstream)).await.ok().flatten();
    stamp.and_then(|s| s.parse().ok()).map(Timestamp::from_millis)
}

/// How long ago the process that has the lease read the log to its end. `None` when that is not known.
async fn another_caught_up(flow: &Flow, upstream: &UpstreamId) -> Option<Span> {
    let at = caught_up_at(flow, upstream).await?;
    // Behind that: all that was stored before it is read.
    if let Err(error) = signed_out::read(flow, upstream).await {
        tracing::warn!(%upstream, %error, "whether everybody was signed out is not known");
        return None;
    }
    let now = flow.clock.now();
    let age = now.since(at).abs();
    if age < FRESH {
        flow.watch.read_until(upstream, at.min(now));
    }
    Some(age)
}

/// Gives the lease back to a process that may be able to reach the IdP. Gives why this one could not.
async fn handed_over(
    flow: &Flow,
    upstream: &UpstreamId,
    owner: &str,
    error: IdpError,
) -> Result<FlowError, FlowError> {
    flow.store.release(&lease_name(upstream), owner).await?;
    Ok(error.into())
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
    let polled = match flow.idp(upstream)?.poll(&cursor, flow.now(None)).await {
        Ok(polled) => polled,
        Err(error) => return Err(handed_over(flow, upstream, owner, error).await?),
    };
    let era = if cursor.0.is_empty() {
        Era::Before
    } else {
        Era::Ours
    };
    tell(flow, upstream, &polled).await?;
    signed_out::heard(flow, upstream, polled.signed_out, &lease).await?;
    let found = (polled.lines, polled.readings);
    let taken = async {
        take_all(flow, upstream, found, era, seen).await?;
        unread(flow, upstream, &polled.unread, era).await
    };
    let left = match taken.await {
        Ok(left) => left,
        Err(error) => {
            // From the stored cursor on again: nothing that was held back is forgotten.
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
