//! P14: a policy that became looser waits; what is stricter holds at once.

use std::collections::BTreeSet;

use proptest::prelude::*;
use reentry::domain::change::Row;
use reentry::domain::policy::inforce::{Guards, InForce};
use reentry::domain::policy::{AtEnd, Policy, Response, Rollout};
use reentry::domain::time::Span;

use crate::world::{at, ceiling, class, hour, policy, words};

/// A policy that differs from the usual one in what an operator may write.
fn any_policy() -> impl Strategy<Value = Policy> {
    let clocks = (1..40_i64, 1..20_i64, 1..60_i64, 1..30_i64);
    let roles = prop::sample::subsequence(vec!["reentry-admin", "chief", "boss"], 1..=3);
    let hold = prop_oneof![
        1 => Just(None),
        4 => (1..100_i64, prop::sample::select(vec!["none", "read", "read write", "read export"])).prop_map(Some),
    ];
    let rows = prop::collection::vec(
        (prop::sample::select(Row::TABLE.to_vec()), 0..4_usize, hold),
        0..6,
    );
    let enforce = prop::sample::select(vec![Rollout::On, Rollout::Shadow, Rollout::Cohort(100)]);
    let at_end = prop::sample::select(vec![AtEnd::Auto, AtEnd::FreshLogin]);
    let scopes = prop::collection::vec(
        (
            prop::sample::select(vec!["read", "write", "pay"]),
            prop::sample::select(vec!["accounts:read", "payees:write", "transfers:write", "shared"]),
        ),
        0..5,
    );
    (clocks, roles, rows, enforce, at_end, scopes, any::<bool>()).prop_map(
        |((thaw, probation, window, loosening), roles, rows, enforce, at_end, scopes, rolling)| {
            let mut policy = policy();
            policy.thaw_wait = Span::from_hours(thaw);
            policy.probation = Span::from_days(probation);
            policy.report_window = Span::from_days(window);
            policy.loosening_wait = Span::from_hours(loosening);
            policy.admin_roles = words(&roles);
            policy.rolling = rolling;
            for (row, tier, hold) in rows {
                let answer = hold.map_or(Response::Notice, |(hours, allow)| Response::Hold {
                    length: Span::from_hours(hours),
                    allow: ceiling(allow),
                });
                policy.tiers[tier].holds.insert(row, answer);
            }
            policy.tiers[0].enforce = enforce;
            policy.tiers[1].at_end = at_end;
            policy.scopes.clear();
            for (name, word) in scopes {
                policy
                    .scopes
                    .entry(class(name))
                    .or_default()
                    .insert(word.to_owned());
            }
            policy
        },
    )
}

/// Whether one answer to a row is nowhere looser than another.
fn as_strict(one: &Response, other: &Response) -> bool {
    match (one, other) {
        (_, Response::Notice) => true,
        (Response::Notice, Response::Hold { .. }) => false,
        (
            Response::Hold { length, allow },
            Response::Hold {
                length: least,
                allow: most,
            },
        ) => length >= least && allow.within(most),
    }
}

/// Whether a policy is nowhere looser than another of the same tiers.
fn guards_as_well(one: &Policy, other: &Policy) -> bool {
    let clocks = one.thaw_wait >= other.thaw_wait
        && one.probation >= other.probation
        && one.report_window >= other.report_window
        && one.loosening_wait >= other.loosening_wait;
    let tiers = one.tiers.iter().zip(&other.tiers).all(|(a, b)| {
        Row::TABLE
            .into_iter()
            .all(|row| as_strict(&a.response(row), &b.response(row)))
            && a.at_end >= b.at_end
            && (0..100).all(|n| a.enforce.enforces(n * 100) || !b.enforce.enforces(n * 100))
    });
    let all = words(&[
        "accounts:read",
        "payees:write",
        "transfers:write",
        "shared",
        "other",
    ]);
    let scopes = ["none", "read", "read write", "read pay", "write pay"]
        .into_iter()
        .all(|held| {
            let left: BTreeSet<String> = one.reduce_scopes(&all, &ceiling(held));
            left.is_subset(&other.reduce_scopes(&all, &ceiling(held)))
        });
    clocks && tiers && scopes && one.admin_roles.is_subset(&other.admin_roles) && one.rolling >= other.rolling
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever was in force and whatever the operator writes: until the wait is over nothing is looser than either, from
    /// then on today's policy is in force as it is; what is only stricter needs no wait.
    #[test]
    fn p14_what_is_looser_waits_and_is_told(before in any_policy(), today in any_policy(), passed in 0..60_i64) {
        let first = InForce::settle(None, &before, at(hour(0)));
        prop_assert_eq!(first.until, None, "a new installation");
        prop_assert!(first.loosened.is_empty());
        let kept = first.keep.unwrap();
        let settled = InForce::settle(Some(&kept), &today, at(hour(1)));
        prop_assert!(guards_as_well(&settled.policy, &today) || settled.until.is_none());
        prop_assert!(guards_as_well(&settled.policy, &before) || settled.until.is_none());
        if guards_as_well(&today, &before) {
            prop_assert_eq!(settled.until, None, "stricter is in force at once");
        } else {
            prop_assert!(settled.until.is_some() && !settled.loosened.is_empty(), "looser waits and is told");
        }
        let Some(until) = settled.until else {
            prop_assert_eq!(Guards::of(&settled.policy), Guards::of(&today));
            return Ok(());
        };
        let wait = before.loosening_wait.max(today.loosening_wait);
        prop_assert_eq!(until, hour(1).plus(wait));
        // A restart, and another replica, in the meantime and later.
        let kept = settled.keep.unwrap();
        let now = hour(1 + passed);
        let again = InForce::settle(Some(&kept), &today, at(now));
        prop_assert!(again.loosened.is_empty(), "told once");
        if now < until {
            prop_assert_eq!(again.until, Some(until), "a restart neither shortens nor lengthens the wait");
            prop_assert!(guards_as_well(&again.policy, &before) && guards_as_well(&again.policy, &today));
            // Another policy meanwhile begins its own wait from what is in force, never from what only waits.
            let back = InForce::settle(again.keep.as_ref().or(Some(&kept)), &before, at(now));
            prop_assert!(guards_as_well(&back.policy, &before));
        } else {
            prop_assert_eq!(again.until, None);
            prop_assert_eq!(Guards::of(&again.policy), Guards::of(&today));
        }
    }
}
