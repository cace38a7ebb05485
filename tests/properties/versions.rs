//! Values of a subject that somebody takes away or puts back are no answer (P5), whatever he copied and when.

use proptest::prelude::*;
use reentry::domain::subject::versions::{Anchor, Beside, Values, Versions};

/// What stands in the store of a subject: each value with what it would decide, here the commit that meant it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Standing {
    record: Option<Versions>,
    account: Option<u64>,
    grants: Option<u64>,
    due: bool,
}

/// A commit writes some of the values, and always the record's.
fn commit(standing: &mut Standing, account: bool, grants: bool, due: Option<bool>, seen: u64) -> u64 {
    let number = Versions::next(standing.record, seen, 0);
    let mut versions = standing.record.unwrap_or_default();
    versions.subject = number;
    if account {
        versions.account = number;
        standing.account = Some(number);
    }
    if grants {
        versions.grants = number;
        standing.grants = Some(number);
    }
    standing.record = Some(versions);
    standing.due = due.unwrap_or(standing.due);
    number
}

/// What a reading that asks for these values finds.
fn found(standing: &Standing, account: bool, grants: bool) -> Values {
    let beside = |asked: bool, value: Option<u64>| match (asked, value) {
        (false, _) => Beside::Unasked,
        (true, None) => Beside::Absent,
        (true, Some(number)) => Beside::Of(number),
    };
    Values {
        anchor: standing.record.map_or(Anchor::Absent, Anchor::Of),
        account: beside(account, standing.account),
        grants: beside(grants, standing.grants),
        witnessed: standing.due || (!account && standing.account.is_some()),
    }
}

/// Takes one of the values of a former moment, or of none.
fn put(now: &mut Standing, then: &Standing, which: u8) {
    match which % 4 {
        0 => now.record = then.record,
        1 => now.account = then.account,
        2 => now.grants = then.grants,
        _ => now.due = then.due,
    }
}

/// A commit: whether it writes the snapshot, the grants, and what it makes of the due entry.
type Commit = (bool, bool, Option<bool>);

fn history() -> impl Strategy<Value = Vec<Commit>> {
    proptest::collection::vec((any::<bool>(), any::<bool>(), any::<Option<bool>>()), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    // P5: a process that saw the latest commit believes nothing but what it wrote, whatever mixture of former moments
    // stands there; and believes that.
    #[test]
    fn p5_no_mixture_of_former_values_is_an_answer(
        commits in history(),
        swaps in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        asked in any::<(bool, bool)>(),
    ) {
        let (mut standing, mut moments) = (Standing::default(), vec![Standing::default()]);
        let mut seen = 0;
        for (account, grants, due) in commits {
            seen = commit(&mut standing, account, grants, due, seen);
            moments.push(standing);
        }
        prop_assert_eq!(found(&standing, asked.0, asked.1).stale(seen), None);
        let mut altered = standing;
        for (moment, which) in &swaps {
            put(&mut altered, moment.get(&moments), *which);
        }
        let answer = found(&altered, asked.0, asked.1).stale(seen);
        let same = altered.record == standing.record
            && (!asked.0 || altered.account == standing.account)
            && (!asked.1 || altered.grants.is_none() || altered.grants == standing.grants);
        prop_assert_eq!(answer.is_none(), same, "{:?} instead of {:?}", altered, standing);
    }

    // P5: a process that saw nothing yet finds every old value that stands beside a newer one.
    #[test]
    fn p5_one_old_value_beside_newer_ones_is_found_by_everybody(
        commits in history(),
        moment in any::<prop::sample::Index>(),
        which in 0_u8..3,
    ) {
        let (mut standing, mut moments) = (Standing::default(), vec![Standing::default()]);
        for (account, grants, due) in commits {
            commit(&mut standing, account, grants, due, 0);
            moments.push(standing);
        }
        let mut altered = standing;
        put(&mut altered, moment.get(&moments), which);
        let harmless = altered.record == standing.record
            && altered.account == standing.account
            && (altered.grants.is_none() || altered.grants == standing.grants);
        // A record of before that names the very values that are there says less than it might, and only who saw the
        // later one knows it.
        let whole = altered.record.is_some_and(|v| {
            Some(v.account).filter(|n| *n > 0) == altered.account
                && altered.grants.is_none_or(|n| n == v.grants)
        });
        let alone = altered.record.is_none() && altered.account.is_none() && altered.grants.is_none() && !altered.due;
        let answer = found(&altered, true, true).stale(0);
        prop_assert_eq!(answer.is_none(), harmless || whole || alone, "{:?} instead of {:?}", altered, standing);
    }

    // P5: what is stored after a loss is above everything that anybody saw of before.
    #[test]
    fn p5_the_next_commit_is_above_all_that_was_seen(before in any::<Option<u64>>(), seen: u64, millis: u64) {
        let versions = before.map(|subject| Versions { subject, ..Versions::default() });
        let next = Versions::next(versions, seen, millis);
        prop_assert!(next >= millis);
        prop_assert!(next > seen || seen == u64::MAX);
        prop_assert!(next > before.unwrap_or(0) || before == Some(u64::MAX));
    }
}
