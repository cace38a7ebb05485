//! Reading both logs to their end, page by page, and an account's lines at its log-in.
//!
//! An event's time is taken before its transaction commits, and nodes' clocks differ: a line can turn up late with
//! an older time. So every poll goes back behind the newest line it has seen by an overlap. What it has judged
//! there already is remembered in the cursor, so that a quiet realm costs three calls, and a line that turns up
//! late still has its account judged again.
//!
//! Rows are sorted by time alone, and equal times come in any order: paging goes on from the time of the last row,
//! never by offset, except inside one full page of equal times.

mod everybody;
mod later;
mod logins;
mod row;
mod stream;
mod whole;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join3;
use serde::{Deserialize, Serialize};

use self::later::{Later, Work};
use self::logins::Logins;
use self::row::{Row, admin_row, strange_row, user_row};
use self::stream::Stream;
use self::window::{At, Judged, observe};
use super::admin::text::Rows;
use super::admin::{AdminEventQuery, Direction, EventQuery};
use super::health::{Kept, config_faults, role_taken};
use super::representations::{AdminEvent, Event, EventsConfig};
use super::story::Rules;
use super::watch::{self, Watched};
use super::{Keycloak, about_one, events, idp};
use crate::domain::change::Source;
use crate::domain::session::Withdrawal;
use crate::domain::time::{Now, Span, Timestamp};
use crate::domain::wording::Wording;
use crate::ports::idp::{Cursor, Heard, IdpError, Line, Look, Polled, Reading, Unread};

/// Accounts that are judged side by side.
const SIDE_BY_SIDE: usize = 8;
/// How long an account of a page may take to be read: one that hangs holds up the others no longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The cursor's text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Place {
    v: u8,
    user: Stream,
    admin: Stream,
    logins: Logins,
    kept: Kept,
    watched: Watched,
    #[serde(skip_serializing_if = "Later::is_empty")]
    later: Later,
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
    let (user_rows, admin_rows) = pages.rows(starts, own.as_deref());
    let strange = place.strange(&pages, starts);
    let mut alarms = place.standing(&pages.config, settings.retention);
    let known = |event: &&AdminEvent| place.admin.seen.contains_key(&events::admin_id(event));
    let fresh: Vec<&AdminEvent> = pages.admin.read.iter().filter(|event| !known(event)).collect();
    alarms.extend(our_rights(keycloak, &fresh, own.as_deref()).await?);
    let (cleared, doubt) = place.cleared(starts, (&user_rows, &admin_rows), max, settings.overlap, clock);
    alarms.extend(cleared);
    let acted = watch::acted(&fresh, own.as_deref(), ahead);
    let watched = &mut place.watched;
    let look = watched.look(keycloak, &pages.config, &fresh, own.as_deref());
    let seen = look.await;
    alarms.extend(seen.alarms);
    let (before, ended): (Verdicts, _) = (place.verdicts(), place.ended(&pages, own.as_deref()));
    let (mut subs, user_more) = place.user.take(&user_rows, max, settings.overlap, clock);
    let (more_subs, admin_more) = place.admin.take(&admin_rows, max, settings.overlap, clock);
    subs.extend(more_subs);
    let logins = place.logins.read(keycloak, clock).await?;
    let code_rows: Vec<Row> = logins.codes.iter().map(user_row).collect();
    subs.extend(code_rows.iter().filter_map(|row| row.sub.clone()));
    let rows = || user_rows.iter().chain(&admin_rows).chain(&code_rows);
    let work = place.later.turn(&subs, rows());
    let (rules, at) = (keycloak.rules(own), At::new(now.latest(), ahead));
    let (mut judged, readings, unread) = judged(keycloak, &work, &rules, at, ended).await?;
    // Behind what the same instant says of an account: it may be held by that.
    judged.extend(acted);
    judged.extend(logins.entered);
    judged.sort_by_key(|(time, ..)| *time);
    let verdicts = verdicts(&judged);
    place.remember(&verdicts);
    let lines = unheard(judged, (&before, &verdicts), &later::waited(&work, rows()));
    Ok(Polled {
        lines,
        readings,
        unread,
        strange,
        next: place.written()?,
        more: user_more || admin_more || !place.later.is_empty(),
        alarms,
        drifted: seen.drifted,
        signed_out: everybody::said(&pages.admin.read, settings, (clock, ahead)),
        doubt: doubt || seen.doubt,
    })
}

/// What was taken from our own rights.
async fn our_rights(
    keycloak: &Keycloak,
    fresh: &[&AdminEvent],
    own: Option<&str>,
) -> Result<Vec<String>, IdpError> {
    if watch::names_us(fresh, own) {
        // Our token still names the roles of before.
        keycloak.admin.renew().await;
    }
    Ok(role_taken(keycloak).await?.into_iter().collect())
}

/// The lines that have to be stored. What was judged the same before has been: the cursor only moves when it has. Lines
/// that have `waited` were not judged before.
fn unheard(
    judged: Vec<(i64, String, Line)>,
    (before, now): (&Verdicts, &Verdicts),
    waited: &BTreeSet<&String>,
) -> Vec<Line> {
    let news = |(_, id, line): &(i64, String, Line)| match (before.get(id), &line.heard) {
        (None, _) => true,
        (Some(_), _) if waited.contains(id) => true,
        (Some(verdict), Heard::Change(_)) => now.get(id) != Some(verdict),
        (Some(_), _) => false,
    };
    judged.into_iter().filter(news).map(|(.., line)| line).collect()
}

/// What each event was judged to be, by its id.
type Verdicts = BTreeMap<String, String>;

impl Place {
    /// As a cursor.
    fn written(&self) -> Result<Cursor, IdpError> {
        let text = serde_json::to_string(self).map_err(|error| IdpError::Unexpected(error.to_string()))?;
        Ok(Cursor(text))
    }

    /// See [`Stream::sampled`].
    fn sampled(&mut self, ahead: i64) {
        self.user.sampled(ahead);
        self.admin.sampled(ahead);
        self.logins.sampled(ahead);
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

    /// What was cleared from either log, for as long as the overlap reaches, and whether any of it just now.
    fn cleared(
        &mut self,
        starts: (i64, i64),
        rows: (&[Row], &[Row]),
        max: u32,
        overlap: Span,
        clock: i64,
    ) -> (Vec<String>, bool) {
        let (mut alarms, mut now) = (Vec::new(), false);
        for (stream, start, rows, name) in [
            (&mut self.user, starts.0, rows.0, "user"),
            (&mut self.admin, starts.1, rows.1, "admin"),
        ] {
            now |= stream.forgets(start, rows, rows.len() >= max as usize, clock);
            stream.cleared = stream
                .cleared
                .filter(|at| clock.saturating_sub(*at) < overlap.millis());
            alarms.extend(stream.cleared.map(|at| {
                let at = Wording::machine(Timestamp::from_millis(at));
                format!(
                    "the log of {name} events lost lines that were just there (noticed at {at}): somebody cleared it, or its retention is shorter than the overlap of the poller"
                )
            }));
        }
        (alarms, now)
    }

    fn verdicts(&self) -> Verdicts {
        let seen = self.user.seen.iter().chain(&self.admin.seen);
        let all = seen.map(|(id, (_, verdict))| (id.clone(), verdict.clone()));
        all.chain(self.logins.verdicts()).collect()
    }

    fn remember(&mut self, verdicts: &Verdicts) {
        for (id, verdict) in verdicts {
            for stream in [&mut self.user, &mut self.admin, self.logins.remembered()] {
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

impl Pages {
    /// Their rows, those that cannot be understood too.
    fn rows(&self, starts: (i64, i64), own: Option<&str>) -> (Vec<Row>, Vec<Row>) {
        let user = self.user.read.iter().map(user_row);
        let user = user.chain(self.user.strange.iter().map(|row| strange_row(row, starts.0)));
        let admin = self.admin.read.iter().map(|event| admin_row(event, own));
        let admin = admin.chain(self.admin.strange.iter().map(|row| strange_row(row, starts.1)));
        (user.collect(), admin.collect())
    }
}

async fn read_pages(
    keycloak: &Keycloak,
    place: &Place,
    (user_from, admin_from): (i64, i64),
    max: u32,
) -> Result<Pages, IdpError> {
    let types: Vec<&str> = events::TELLING.into_iter().chain(events::ENDING).collect();
    let user_query = EventQuery {
        types: keycloak.known(&types).await.map_err(idp)?,
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

/// What came of reading the accounts of a page: lines, readings, and those that could not be read.
type Found = (Judged, BTreeMap<String, Reading>, Vec<Unread>);

/// Judges these accounts and gives their lines, and what no line of any log tells of, with those `found` already, in the
/// order of the log; then the readings that were made for it, and those that could not be read.
async fn judged(
    keycloak: &Keycloak,
    work: &BTreeMap<String, Work>,
    rules: &Rules,
    at: At,
    mut found: Judged,
) -> Result<Found, IdpError> {
    let each = work.clone().into_iter().map(|(sub, work)| async move {
        let since = Timestamp::from_millis(work.since);
        let observed = about_one(observe(keycloak, &sub, rules, at, since));
        let observed = tokio::time::timeout(PATIENCE, observed).await;
        let observed = observed.unwrap_or_else(|_| Err(IdpError::Unreachable("not in time".to_owned())));
        (sub, work, observed)
    });
    let mut stories = futures_util::stream::iter(each).buffer_unordered(SIDE_BY_SIDE);
    let (mut unread, mut read, mut refused) = (Vec::new(), 0, None);
    let mut readings = BTreeMap::new();
    while let Some((sub, work, story)) = stories.next().await {
        match story {
            Ok((told, reading)) => {
                read += 1;
                let wanted =
                    |(_, event, line): &(i64, String, Line)| work.ids.contains(event) || is_unlogged(line);
                found.extend(told.into_iter().filter(wanted));
                readings.extend(reading.ok().map(|reading| (sub, reading)));
            }
            Err(error) => {
                tracing::warn!(sub, %error, "an account of which the log has something new cannot be read");
                let since = Timestamp::from_millis(work.since).minus(at.ahead);
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
    Ok((found, readings, unread))
}

fn is_unlogged(line: &Line) -> bool {
    matches!(&line.heard, Heard::Change(change) if change.source == Source::Reconcile)
}

/// Every line about one account since an instant by our clock, and the account.
pub(super) async fn since(
    keycloak: &Keycloak,
    sub: &str,
    look: Look,
) -> Result<(Vec<Line>, Result<Reading, IdpError>), IdpError> {
    let (ahead, own) = keycloak.own().await?;
    let since = look.since.plus(ahead);
    let rules = keycloak.rules(own);
    let at = At::new(look.now.latest(), ahead);
    let (lines, reading) = observe(keycloak, sub, &rules, at, since).await?;
    let recent = lines.into_iter().filter(|(time, ..)| *time >= since.millis());
    Ok((recent.map(|(.., line)| line).collect(), reading))
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
            pressing: true,
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
                    pressing: true,
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
        let mut again = stream.clone();
        assert!(again.forgets(start, &[], false, 1_060_000));
        assert!(!again.forgets(start, &[], false, 1_060_100), "once");
        let fresh = log(&[("c", 1_060_200)]);
        again.take(&fresh, 10, OVERLAP, 1_060_300);
        assert!(again.forgets(start, &[], false, 1_060_400), "cleared again");
        assert!(!stream.lost(start, &[], false, LATER), "gone by its retention");
        assert!(
            !Stream::default().lost(0, &[], false, LATER),
            "nothing was ever there"
        );
    }
}
