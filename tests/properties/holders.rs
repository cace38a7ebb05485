//! P11, P14: a role that may end a freeze counts after the probation since we first saw it, whatever happens between.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use reentry::domain::holders::{Holders, Weight};
use reentry::domain::time::{Span, Timestamp};

use crate::world::{at, hour, words};

/// What happens to one of three accounts: a reading that shows these roles, so many hours after the one before.
#[derive(Clone, Debug)]
struct Reading {
    sub: &'static str,
    held: BTreeSet<String>,
    after: i64,
}

fn reading() -> impl Strategy<Value = Reading> {
    let held = prop::sample::subsequence(vec!["admin", "chief"], 0..=2).prop_map(|w| words(&w));
    (prop::sample::select(vec!["a", "b", "c"]), held, 0..100_i64).prop_map(|(sub, held, after)| Reading {
        sub,
        held,
        after,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Nobody counts before the probation is over since the reading that first showed the role they still have, but
    /// those of the beginning; and who has held it for so long always counts.
    #[test]
    fn p11_a_role_counts_after_its_probation_and_not_before(
        beginning in prop::collection::vec(reading(), 0..4),
        later in prop::collection::vec(reading(), 0..12),
        probation in 1..200_i64,
        asked in 0..400_i64,
    ) {
        let mut holders = Holders::founding();
        let mut since: BTreeMap<(&str, String), Timestamp> = BTreeMap::new();
        let mut now = 0;
        let last = beginning.len();
        for (n, reading) in beginning.iter().chain(&later).enumerate() {
            if n == last {
                holders = holders.founded().unwrap();
                prop_assert_eq!(holders.founded(), None, "once");
            }
            now += reading.after;
            let seen = holders.seen(reading.sub, &reading.held, hour(now));
            let first = |role: &String| !since.contains_key(&(reading.sub, role.clone()));
            let new: Vec<String> = reading.held.iter().filter(|r| first(r)).cloned().collect();
            if let Some(sighting) = seen {
                let told = if n < last { Vec::new() } else { new.clone() };
                prop_assert_eq!(&sighting.gained, &told, "what is new is told, but for the beginning");
                holders = sighting.holders;
            } else {
                prop_assert!(new.is_empty());
            }
            since.retain(|(sub, role), _| *sub != reading.sub || reading.held.contains(role));
            for role in new {
                let from = if n < last { Timestamp::from_millis(0) } else { hour(now) };
                since.insert((reading.sub, role), from);
            }
        }
        let asked = hour(now + asked);
        for sub in ["a", "b", "c"] {
            let held: BTreeSet<String> = since.keys().filter(|(s, _)| *s == sub).map(|(_, r)| r.clone()).collect();
            let oldest = since.iter().filter(|((s, _), _)| *s == sub).map(|(_, at)| *at).min();
            let from = oldest.map(|at| at.plus(Span::from_hours(probation)));
            let weight = holders.weight(sub, &held, Span::from_hours(probation), at(asked));
            let expected = match from {
                None => Weight::Nothing,
                Some(from) if from <= asked => Weight::Counts,
                Some(from) => Weight::From(from),
            };
            prop_assert_eq!(weight, expected);
            prop_assert_eq!(
                holders.weight(sub, &BTreeSet::new(), Span::ZERO, at(asked)),
                Weight::Nothing,
                "a role that the live reading does not show counts for nothing"
            );
        }
    }

    /// A store that forgot makes nobody older.
    #[test]
    fn p14_after_a_loss_everybody_begins_anew(held_for in 0..10_000_i64, probation in 1..200_i64) {
        let admin = words(&["admin"]);
        let lost = Holders::default();
        let seen = lost.seen("a", &admin, hour(held_for)).unwrap();
        let weight = seen.holders.weight("a", &admin, Span::from_hours(probation), at(hour(held_for)));
        prop_assert_eq!(weight, Weight::From(hour(held_for + probation)));
    }
}
