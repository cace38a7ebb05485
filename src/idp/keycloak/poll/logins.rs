//! Log-ins with a recovery code, of which only the line of the log-in tells, and those by way of another provider, whose
//! mappers may give a held account anything.
//!
//! There are many more log-ins than changes. So they are read in a stream of their own, which no change waits for and which
//! is read less often, and of its lines only those that name such a code are remembered and judged. One by way of another
//! provider costs nothing but a look at our own record: the account is read when it is held.

use serde::{Deserialize, Serialize};

use super::{Judged, Row, Stream, Verdicts};
use crate::domain::time::Span;
use crate::idp::keycloak::admin::{Direction, EventQuery};
use crate::idp::keycloak::representations::Event;
use crate::idp::keycloak::{Keycloak, events, idp};
use crate::ports::idp::{Heard, IdpError, Line};

/// Log-ins are read so often, in milliseconds.
const PACE: i64 = 10_000;
/// How far the first reading goes back, at most.
const BACK: Span = Span::from_days(3);
/// Pages that one poll reads at most.
const PAGES: u32 = 5;

/// How far log-ins have been read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Logins {
    stream: Stream,
    /// When they were last read to their end, by the server's clock.
    read: i64,
}

/// What log-ins tell.
#[derive(Default)]
pub(super) struct Told {
    /// Those with a recovery code that were not judged before.
    pub(super) codes: Vec<Event>,
    /// Who came by way of another provider. Lines of before are among them: the caller knows which it had.
    pub(super) entered: Judged,
}

impl Logins {
    /// See [`Stream::sampled`].
    pub(super) fn sampled(&mut self, ahead: i64) {
        let before = self.stream.ahead;
        self.stream.sampled(ahead);
        self.read += (ahead - before).min(0);
    }

    /// What log-ins tell that were written since the last time; `clock` is now by the server's clock.
    pub(super) async fn read(&mut self, keycloak: &Keycloak, clock: i64) -> Result<Told, IdpError> {
        let mut found = Told::default();
        if self.stream.from.is_none() && clock < self.read + PACE {
            return Ok(found);
        }
        let settings = &keycloak.settings;
        let (max, overlap) = (settings.page.max(2), settings.overlap);
        let back = clock - settings.back_fill.min(BACK).millis();
        let types = keycloak.known(&events::ENTERING).await.map_err(idp)?;
        for _ in 0..PAGES {
            let query = EventQuery {
                types: types.clone(),
                from_ms: Some(self.stream.start(overlap, back)),
                direction: Direction::Ascending,
                first: self.stream.skip,
                max,
                ..EventQuery::default()
            };
            let page = keycloak.admin.events_page(&query).await.map_err(idp)?;
            let judged = |event: &Event| self.stream.seen.contains_key(&events::id(event));
            let used = page.read.iter().filter(|event| events::used_recovery_code(event));
            found.codes.extend(used.filter(|event| !judged(event)).cloned());
            found.entered.extend(page.read.iter().filter_map(entered));
            let mut rows: Vec<Row> = page.read.iter().map(row).collect();
            // One that cannot be read is found by the number that is left; the page is as long with it.
            let last = rows.last().map(|row| row.time).unwrap_or_default();
            rows.extend(page.strange.iter().map(|_| other(last)));
            let (_, more) = self.stream.take(&rows, max, overlap, clock);
            if !more {
                self.read = clock;
                break;
            }
        }
        Ok(found)
    }

    /// What the lines that were seen were judged to be.
    pub(super) fn verdicts(&self) -> Verdicts {
        let seen = self.stream.seen.iter().filter(|(id, _)| !id.is_empty());
        seen.map(|(id, (_, verdict))| (id.clone(), verdict.clone()))
            .collect()
    }

    /// Where a verdict is remembered.
    pub(super) fn remembered(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// The line that a log-in by way of another provider is.
fn entered(event: &Event) -> Option<(i64, String, Line)> {
    let sub = events::came_by_provider(event)?.to_owned();
    let id = events::id(event);
    let heard = Heard::Entered { id: id.clone() };
    Some((event.time, id, Line { sub, heard }))
}

fn row(event: &Event) -> Row {
    if events::used_recovery_code(event) {
        Row {
            id: events::id(event),
            time: event.time,
            sub: None,
            pressing: true,
        }
    } else {
        other(event.time)
    }
}

/// Another log-in's row. They have no name: one entry stands for all of them.
const fn other(time: i64) -> Row {
    Row {
        id: String::new(),
        time,
        sub: None,
        pressing: true,
    }
}
