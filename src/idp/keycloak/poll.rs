//! Reading both logs to their end, page by page, and an account's lines at its log-in.
//!
//! An event's time is taken before its transaction commits, and nodes' clocks differ: a line can turn up late with
//! an older time. So every poll goes back behind the newest line it has seen by an overlap. What it has judged
//! there already is remembered in the cursor, so that a quiet realm costs three calls, and a line that turns up
//! late still has its account judged again.
//!
//! Rows are sorted by time alone, and equal times come in any order: paging goes on from the time of the last row,
//! never by offset, except inside one full page of equal times.

mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join3;
use serde::{Deserialize, Serialize};

use self::window::lines;
use super::admin::text::{Rows, Strange};
use super::admin::{AdminEventQuery, Direction, EventQuery};
use super::events::AdminAct;
use super::health::{Kept, config_faults, role_taken};
use super::representations::{AdminEvent, Event, EventsConfig};
use super::story::Rules;
use super::watch::{self, Watched};
use super::{Keycloak, events, idp};
use crate::domain::change::Source;
use crate::domain::session::Withdrawal;
use crate::domain::time::{Now, Span, Timestamp};
use crate::ports::idp::{Cursor, Heard, IdpError, Line, Polled, Unread};

/// Accounts that are judged side by side.
const SIDE_BY_SIDE: usize = 8;
/// How long an account of a page may take to be read: one that hangs holds up the others no longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How far a log-in-time check looks back. The poller is there for the rest; it alarms when it is not.
const LOGIN_CHECK: Span = Span::from_days(7);
/// Most lines that a cursor remembers; a forgotten one is judged again, which changes nothing.
const REMEMBERED: usize = 4_000;
/// A line older than this may have gone by the log's own retention, in milliseconds (7 days).
const EXPIRES: i64 = 7 * 86_400_000;

/// The cursor's text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Place {
    v: u8,
    user: Stream,
    admin: Stream,
    kept: Kept,
    watched: Watched,
}

/// How far one log has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Stream {
    /// Newest time seen, never ahead of the server's clock.
    at: i64,
    /// How far the server's clock was ahead of ours then, in milliseconds.
    #[serde(skip_serializing_if = "is_nought")]
    ahead: i64,
    /// In the middle of a page: go on from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<i64>,
    /// Rows of exactly that time to skip.
    #[serde(skip_serializing_if = "is_zero")]
    skip: u32,
    /// Lines inside the overlap, with their times and what they were judged to be.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    seen: BTreeMap<String, (i64, String)>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_nought(value: &i64) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A row of either log.
struct Row {
    id: String,
    time: i64,
    /// Whom it concerns; nobody when we did it.
    sub: Option<String>,
}

impl Stream {
    /// Where the next page starts.
    fn start(&self, overlap: Span, back: i64) -> i64 {
        self.from.unwrap_or_else(|| {
            if self.at == 0 {
                back
            } else {
                self.at - overlap.millis()
            }
        })
    }

    /// The server's clock was sampled: when it was set back since, so is the mark, or what is written by the new clock
    /// would lie behind it, unseen, until time has caught up. A clock set forward moves nothing.
    fn sampled(&mut self, ahead: i64) {
        let back = (ahead - self.ahead).min(0);
        if self.at != 0 && back < 0 {
            self.at += back;
            self.from = self.from.map(|from| from + back);
            self.skip = 0;
        }
        self.ahead = ahead;
    }

    /// Takes a page in. Gives the accounts with lines that were not judged before, and whether more is waiting.
    fn take(&mut self, rows: &[Row], max: u32, overlap: Span, clock: i64) -> (BTreeSet<String>, bool) {
        let fresh = rows.iter().filter(|row| !self.seen.contains_key(&row.id));
        let subs = fresh.filter_map(|row| row.sub.clone()).collect();
        for row in rows {
            self.seen
                .entry(row.id.clone())
                .or_insert_with(|| (row.time, String::new()));
        }
        let first = rows.iter().map(|row| row.time).min();
        let last = rows.iter().map(|row| row.time).max();
        let full = rows.len() >= max as usize;
        if let Some(last) = last {
            self.at = self.at.max(last.min(clock));
        }
        if full && first == last {
            self.skip += max;
            self.from = last;
        } else if full {
            self.skip = 0;
            self.from = last;
        } else if self.skip > 0 {
            // The end of one crowded instant: on to the next.
            self.skip = 0;
            self.from = self.from.map(|at| at + 1);
            return (subs, true);
        } else {
            self.from = None;
        }
        let keep = self.from.unwrap_or(self.at).min(self.at) - overlap.millis();
        self.seen.retain(|_, (time, _)| *time >= keep);
        while self.seen.len() > REMEMBERED {
            let oldest = self
                .seen
                .iter()
                .min_by_key(|(_, (time, _))| *time)
                .map(|(id, _)| id.clone());
            oldest.map(|id| self.seen.remove(&id));
        }
        (subs, full)
    }

    /// A judged line that the log should still show and does not: it was cleared, or keeps less than the overlap.
    fn lost(&self, start: i64, rows: &[Row], full: bool, clock: i64) -> bool {
        let young = start.max(clock - EXPIRES);
        let newest = self
            .seen
            .iter()
            .filter(|(_, (time, _))| *time >= young)
            .max_by_key(|(_, (time, _))| *time);
        self.from.is_none()
            && newest.is_some_and(|(id, (time, _))| {
                let shown = rows.iter().any(|row| row.id == *id);
                let further = full && rows.iter().all(|row| row.time <= *time);
                !shown && !further
            })
    }
}

/// Reads the next page of both logs.
pub(super) async fn poll(keycloak: &Keycloak, cursor: &Cursor, now: Now) -> Result<Polled, IdpError> {
    // A cursor that does not read is an empty one: everything is read again, and marks absorb it.
    let mut place: Place = serde_json::from_str(&cursor.0).unwrap_or_default();
    place.v = 1;
    let settings = &keycloak.settings;
    let (ahead, own) = keycloak.own().await?;
    let clock = now.latest().plus(ahead).millis();
    let back = now.earliest().plus(ahead).minus(settings.back_fill).millis();
    let max = settings.page.max(2);
    place.sampled(ahead.millis());
    let starts = (
        place.user.start(settings.overlap, back),
        place.admin.start(settings.overlap, back),
    );
    let pages = read_pages(keycloak, &place, starts, max).await?;
    let mut user_rows: Vec<Row> = pages.user.read.iter().map(user_row).collect();
    user_rows.extend(pages.user.strange.iter().map(|row| strange_row(row, starts.0)));
    let of_admin = pages.admin.read.iter();
    let mut admin_rows: Vec<Row> = of_admin.map(|event| admin_row(event, own.as_deref())).collect();
    admin_rows.extend(pages.admin.strange.iter().map(|row| strange_row(row, starts.1)));
    let strange = place.strange(&pages, starts);
    let mut alarms = place.standing(&pages.config, settings.retention);
    let known = |event: &&AdminEvent| place.admin.seen.contains_key(&events::admin_id(event));
    let fresh: Vec<&AdminEvent> = pages.admin.read.iter().filter(|event| !known(event)).collect();
    if watch::names_us(&fresh, own.as_deref()) {
        // Our token still names the roles of before.
        keycloak.admin.renew().await;
    }
    alarms.extend(role_taken(keycloak).await?);
    let mut doubt = false;
    for (stream, start, rows, name) in [
        (&place.user, starts.0, &user_rows, "user"),
        (&place.admin, starts.1, &admin_rows, "admin"),
    ] {
        if stream.lost(start, rows, rows.len() >= max as usize, clock) {
            doubt = true;
            alarms.push(format!(
                "the log of {name} events lost lines that were just there: somebody cleared it, or its retention is shorter than the overlap of the poller"
            ));
        }
    }
    let acted = watch::acted(&fresh, own.as_deref(), ahead);
    let mut watched = std::mem::take(&mut place.watched);
    let seen = watched
        .look(keycloak, &pages.config, &fresh, own.as_deref())
        .await;
    place.watched = watched;
    alarms.extend(seen.alarms);
    let (before, ended): (Verdicts, _) = (place.verdicts(), place.ended(&pages, own.as_deref()));
    let (mut subs, user_more) = place.user.take(&user_rows, max, settings.overlap, clock);
    let (more_subs, admin_more) = place.admin.take(&admin_rows, max, settings.overlap, clock);
    subs.extend(more_subs);
    let rows = || user_rows.iter().chain(&admin_rows);
    let ids: BTreeSet<&str> = rows().map(|row| row.id.as_str()).collect();
    let since = rows().map(|row| row.time).min().unwrap_or(clock);
    let rules = keycloak.rules(own);
    let at = (now.latest(), ahead, since);
    let (mut judged, unread) = judged(keycloak, &subs, &ids, &rules, at, ended).await?;
    // Behind what the same instant says of an account: it may be held by that.
    judged.extend(acted);
    judged.sort_by_key(|(time, ..)| *time);
    let verdicts = verdicts(&judged);
    place.remember(&verdicts);
    // What was judged the same before has been stored: the cursor only moves when it has.
    let news = |(_, id, line): &(i64, String, Line)| match (before.get(id), &line.heard) {
        (None, _) => true,
        (Some(verdict), Heard::Change(_)) => verdicts.get(id) != Some(verdict),
        (Some(_), _) => false,
    };
    let lines = judged.into_iter().filter(news).map(|(.., line)| line).collect();
    let next = serde_json::to_string(&place).map_err(|error| IdpError::Unexpected(error.to_string()))?;
    Ok(Polled {
        lines,
        unread,
        strange,
        next: Cursor(next),
        more: user_more || admin_more,
        alarms,
        drifted: seen.drifted,
        doubt: doubt || seen.doubt,
    })
}

/// What each event was judged to be, by its id.
type Verdicts = BTreeMap<String, String>;

impl Place {
    /// See [`Stream::sampled`].
    fn sampled(&mut self, ahead: i64) {
        self.user.sampled(ahead);
        self.admin.sampled(ahead);
    }

    /// What is wrong with what the realm records, now and against what it did before.
    fn standing(&mut self, config: &EventsConfig, retention: Span) -> Vec<String> {
        let mut faults = config_faults(config, retention);
        faults.extend(self.kept.shrunk(config));
        faults
    }

    /// Lines that cannot be understood and were not there before, for people. An account that one of them names cannot
    /// be read; its line is said with that.
    fn strange(&self, pages: &Pages, starts: (i64, i64)) -> Vec<String> {
        let (user, admin) = (&pages.user.strange, &pages.admin.strange);
        let of_user = user.iter().map(|row| (&self.user, row, starts.0, "user"));
        let of_admin = admin.iter().map(|row| (&self.admin, row, starts.1, "admin"));
        let each = of_user
            .chain(of_admin)
            .filter_map(|(stream, strange, start, log)| {
                let row = strange_row(strange, start);
                let fresh = !stream.seen.contains_key(&row.id);
                let whose = row.sub.as_deref().unwrap_or("nobody we could name");
                fresh.then(|| {
                    let (id, why) = (&row.id, &strange.why);
                    format!(
                        "line {id} of the log of {log} events, about {whose}, cannot be understood: {why}"
                    )
                })
            });
        each.collect()
    }

    /// What these pages say that Keycloak has ended, of lines that were not there before; what we ended ourselves has ended
    /// here already.
    fn ended(&self, pages: &Pages, own: Option<&str>) -> Vec<(i64, String, Line)> {
        let line = |time: i64, id: String, (sub, what): (&str, Withdrawal)| {
            let sub = sub.to_owned();
            let heard = Heard::Withdrawn { id: id.clone(), what };
            (time, id, Line { sub, heard })
        };
        let user = pages.user.read.iter().filter_map(|event| {
            let id = Some(events::id(event)).filter(|id| !self.user.seen.contains_key(id))?;
            Some(line(event.time, id, events::ended(event)?))
        });
        let foreign = |event: &&AdminEvent| {
            events::admin_act(event).is_some_and(|(_, act)| !events::is_own(event, &act, own))
        };
        let admin = pages.admin.read.iter().filter(foreign).filter_map(|event| {
            let id = Some(events::admin_id(event)).filter(|id| !self.admin.seen.contains_key(id))?;
            Some(line(event.time, id, events::ended_by_admin(event)?))
        });
        user.chain(admin).collect()
    }

    fn verdicts(&self) -> Verdicts {
        let seen = self.user.seen.iter().chain(&self.admin.seen);
        seen.map(|(id, (_, verdict))| (id.clone(), verdict.clone()))
            .collect()
    }

    fn remember(&mut self, verdicts: &Verdicts) {
        for (id, verdict) in verdicts {
            for stream in [&mut self.user, &mut self.admin] {
                if let Some((_, remembered)) = stream.seen.get_mut(id) {
                    remembered.clone_from(verdict);
                }
            }
        }
    }
}

/// One page of each log, and what the realm records.
struct Pages {
    config: EventsConfig,
    user: Rows<Event>,
    admin: Rows<AdminEvent>,
}

async fn read_pages(
    keycloak: &Keycloak,
    place: &Place,
    (user_from, admin_from): (i64, i64),
    max: u32,
) -> Result<Pages, IdpError> {
    let types: Vec<&str> = events::TELLING.into_iter().chain(events::ENDING).collect();
    let user_query = EventQuery {
        types: keycloak.known(&types).await?,
        from_ms: Some(user_from),
        direction: Direction::Ascending,
        first: place.user.skip,
        max,
        ..EventQuery::default()
    };
    let admin_query = AdminEventQuery {
        from_ms: Some(admin_from),
        direction: Direction::Ascending,
        first: place.admin.skip,
        max,
        ..AdminEventQuery::default()
    };
    let admin = &keycloak.admin;
    let (config, user, admin) = try_join3(
        admin.events_config(),
        admin.events_page(&user_query),
        admin.admin_events_page(&admin_query),
    )
    .await
    .map_err(idp)?;
    Ok(Pages { config, user, admin })
}

/// What each event was judged to be, all its changes in one word.
fn verdicts(judged: &[(i64, String, Line)]) -> Verdicts {
    let mut verdicts = Verdicts::new();
    for (_, id, line) in judged {
        if let Heard::Change(change) = &line.heard {
            let verdict = verdicts.entry(id.clone()).or_default();
            // Writing to a String cannot fail.
            let _ = write!(verdict, "{:?}/{} ", change.kind, change.row().as_str());
        }
    }
    verdicts
}

fn user_row(event: &Event) -> Row {
    Row {
        id: events::id(event),
        time: event.time,
        sub: event.user_id.clone().filter(|_| !is_ending(event)),
    }
}

/// Whether it says only that something has ended: the account need not be read for that.
fn is_ending(event: &Event) -> bool {
    events::ENDING.contains(&event.kind.as_str())
}

fn admin_row(event: &AdminEvent, own: Option<&str>) -> Row {
    let act = events::admin_act(event).filter(|(_, act)| !events::is_own(event, act, own));
    let act = act.filter(|(_, act)| !matches!(act, AdminAct::Deleted | AdminAct::SignedOut));
    Row {
        id: events::admin_id(event),
        time: event.time,
        sub: act.map(|(sub, _)| sub.to_owned()),
    }
}

/// A line that cannot be understood: whatever of it can be.
fn strange_row(strange: &Strange, start: i64) -> Row {
    let text = |name: &str| strange.row.get(name).and_then(serde_json::Value::as_str);
    let time = strange.row.get("time").and_then(serde_json::Value::as_i64);
    let of_admin = || Some(events::account_of(text("resourcePath")?)?.0);
    Row {
        id: text("id").map_or_else(|| format!("strange:{:?}", strange.row), str::to_owned),
        time: time.unwrap_or(start),
        sub: text("userId").or_else(of_admin).map(str::to_owned),
    }
}

/// Judges every account in `subs` and gives the lines that `ids` name, and what no line of any log tells of, with those
/// `found` already, in the order of the log; then those that could not be read. The instants: receipt, how far the
/// server's clock is ahead, and the page's oldest line.
async fn judged(
    keycloak: &Keycloak,
    subs: &BTreeSet<String>,
    ids: &BTreeSet<&str>,
    rules: &Rules,
    (received, ahead, since): (Timestamp, Span, i64),
    mut found: Vec<(i64, String, Line)>,
) -> Result<(Vec<(i64, String, Line)>, Vec<Unread>), IdpError> {
    let since = Timestamp::from_millis(since);
    let each = subs.iter().cloned().map(|sub| async move {
        let lines = lines(keycloak, &sub, rules, received, ahead, since);
        let lines = tokio::time::timeout(PATIENCE, lines).await;
        (
            sub,
            lines.unwrap_or_else(|_| Err(IdpError::Unreachable("not in time".to_owned()))),
        )
    });
    let mut stories = futures_util::stream::iter(each).buffer_unordered(SIDE_BY_SIDE);
    let wanted = |(_, event, line): &(i64, String, Line)| ids.contains(event.as_str()) || is_unlogged(line);
    let (mut unread, mut read, mut refused) = (Vec::new(), 0, None);
    while let Some((sub, story)) = stories.next().await {
        match story {
            Ok(told) => {
                read += 1;
                found.extend(told.into_iter().filter(wanted));
            }
            Err(error) => {
                tracing::warn!(sub, %error, "an account of which the log has something new cannot be read");
                let since = since.minus(ahead);
                unread.push(Unread { sub, since });
                refused = Some(error)
                    .filter(|e| matches!(e, IdpError::Refused(_)))
                    .or(refused);
            }
        }
    }
    // Our rights are for all accounts alike: they were taken from us, unless somebody can be read.
    if let Some(refused) = refused.filter(|_| read == 0) {
        return Err(refused);
    }
    found.sort_by_key(|(time, ..)| *time);
    Ok((found, unread))
}

fn is_unlogged(line: &Line) -> bool {
    matches!(&line.heard, Heard::Change(change) if change.source == Source::Reconcile)
}

/// Every line about one account since an instant by our clock.
pub(super) async fn story(
    keycloak: &Keycloak,
    sub: &str,
    since: Timestamp,
    now: Now,
) -> Result<Vec<Line>, IdpError> {
    let (ahead, own) = keycloak.own().await?;
    let (received, since) = (now.latest(), since.plus(ahead));
    let rules = keycloak.rules(own);
    let lines = lines(keycloak, sub, &rules, received, ahead, since).await?;
    let recent = lines.into_iter().filter(|(time, ..)| *time >= since.millis());
    Ok(recent.map(|(.., line)| line).collect())
}

/// The log-in-time check: every recent change of one account.
pub(super) async fn latest(keycloak: &Keycloak, sub: &str, now: Now) -> Result<Vec<Line>, IdpError> {
    let (ahead, own) = keycloak.own().await?;
    let received = now.latest();
    let reach = keycloak.settings.back_fill.min(LOGIN_CHECK);
    let since = received.plus(ahead).minus(reach);
    let rules = keycloak.rules(own);
    let lines = lines(keycloak, sub, &rules, received, ahead, since).await?;
    let recent = lines.into_iter().filter(|(time, ..)| *time >= since.millis());
    // Only changes matter to the token that is about to be issued; the rest is the poller's.
    let changes = recent
        .map(|(.., line)| line)
        .filter(|line| matches!(line.heard, Heard::Change(_)));
    Ok(changes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAP: Span = Span::from_secs(120);
    /// Much later than every line.
    const LATER: i64 = 10_000_000_000;

    /// A log: its rows as the server would page them, oldest first, ties in the order given.
    fn log(rows: &[(&str, i64)]) -> Vec<Row> {
        let row = |(id, time): &(&str, i64)| Row {
            id: (*id).to_owned(),
            time: *time,
            sub: Some(format!("sub-{id}")),
        };
        let mut rows: Vec<Row> = rows.iter().map(row).collect();
        rows.sort_by_key(|row| row.time);
        rows
    }

    /// Reads to the end of the log; gives every account in the order in which it came up.
    fn read(stream: &mut Stream, log: &[Row], max: u32) -> Vec<String> {
        let mut found = Vec::new();
        for _ in 0..100 {
            let start = stream.start(OVERLAP, 0);
            let rest = log.iter().filter(|row| row.time >= start);
            let page: Vec<Row> = rest
                .skip(stream.skip as usize)
                .take(max as usize)
                .map(|row| Row {
                    id: row.id.clone(),
                    time: row.time,
                    sub: row.sub.clone(),
                })
                .collect();
            let (subs, more) = stream.take(&page, max, OVERLAP, LATER);
            found.extend(subs);
            if !more {
                return found;
            }
        }
        panic!("the end of the log was never reached");
    }

    // P10: nothing is missed, whatever the page size, also when a whole page has one instant.
    #[test]
    fn a_log_is_read_to_its_end() {
        let crowded = log(&[
            ("a", 1_000),
            ("b", 2_000),
            ("c", 2_000),
            ("d", 2_000),
            ("e", 2_000),
            ("f", 2_000),
            ("g", 2_001),
            ("h", 500_000),
            ("i", 500_000),
        ]);
        for max in 2..12 {
            let mut stream = Stream::default();
            let mut found = read(&mut stream, &crowded, max);
            found.sort();
            let expected = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(|id| format!("sub-{id}"));
            assert_eq!(found, expected, "pages of {max}");
            assert_eq!(read(&mut stream, &crowded, max), Vec::<String>::new(), "and once");
            assert_eq!(stream.at, 500_000);
        }
    }

    // P10: a line that becomes visible late, with an older time, is still found.
    #[test]
    fn a_line_that_turns_up_late_is_found_within_the_overlap() {
        let mut stream = Stream::default();
        read(&mut stream, &log(&[("a", 1_000_000), ("b", 1_050_000)]), 10);
        let late = log(&[("a", 1_000_000), ("late", 940_000), ("b", 1_050_000)]);
        assert_eq!(read(&mut stream, &late, 10), ["sub-late"]);
        assert_eq!(read(&mut stream, &late, 10), Vec::<String>::new());
    }

    // P6: a line from a clock that is ahead does not move the mark past what is still to come.
    #[test]
    fn the_mark_is_never_ahead_of_the_servers_clock() {
        let mut stream = Stream::default();
        let page = log(&[("a", 1_000_000), ("fast", 9_000_000)]);
        stream.take(&page, 10, OVERLAP, 1_000_500);
        assert_eq!(stream.at, 1_000_500);
        assert!(stream.start(OVERLAP, 0) < 1_000_000);
    }

    // P6, P10: what a clock that was ahead has written does not hide what comes after it was set right.
    #[test]
    fn a_clock_that_was_set_back_hides_nothing() {
        let mut stream = Stream::default();
        stream.sampled(600_000);
        stream.take(&log(&[("fast", 10_000_000)]), 10, OVERLAP, 10_001_000);
        assert_eq!(stream.at, 10_000_000);
        stream.sampled(0);
        let after = log(&[("fast", 10_000_000), ("right", 9_405_000)]);
        let (found, _) = stream.take(&after, 10, OVERLAP, 9_406_000);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["sub-right"]);
        stream.sampled(600_000);
        let start = stream.start(OVERLAP, 0);
        assert!(start < 9_405_000, "set forward again, nothing is skipped");
    }

    #[test]
    fn a_cleared_log_is_noticed_and_a_quiet_one_is_not() {
        let mut stream = Stream::default();
        let full = log(&[("a", 1_000_000), ("b", 1_050_000)]);
        read(&mut stream, &full, 10);
        let start = stream.start(OVERLAP, 0);
        assert!(!stream.lost(start, &full, false, 1_060_000));
        assert!(stream.lost(start, &[], false, 1_060_000), "cleared");
        assert!(!stream.lost(start, &[], false, LATER), "gone by its retention");
        assert!(
            !Stream::default().lost(0, &[], false, LATER),
            "nothing was ever there"
        );
    }
}
