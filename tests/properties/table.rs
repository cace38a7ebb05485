//! The hold table row by row, the start, the end, lateness, bounds, roll-out: the numbers of the domain.

use proptest::prelude::*;
use reentry::domain::ceiling::Ceiling;
use reentry::domain::change::{Change, ChangeKind, Proof, Row};
use reentry::domain::hold::apply::sweep;
use reentry::domain::hold::{Posture, Told};
use reentry::domain::policy::{Response, Rollout};
use reentry::domain::subject::account::{Account, FactorClass, Facts};
use reentry::domain::tier::{Expression, TierName};
use reentry::domain::time::{Now, Span};

use crate::world::{
    World, account, ask, at, ceiling, change, channel, contact, factor, hour, minute, notices, policy,
};

/// The table of the domain, read off it by hand: row, then consumer, b2b user, b2b admin, high assurance.
/// `-` is a notice; otherwise hours and what stays allowed.
const TABLE: [(Row, [&str; 4]); 10] = [
    (
        Row::PasswordReset,
        ["24 read write", "24 read write", "72 read", "72 read"],
    ),
    (
        Row::PasswordResetProven,
        ["-", "1 read write", "24 read", "24 read"],
    ),
    (Row::PasswordChanged, ["-", "-", "24 read write", "24 read write"]),
    (
        Row::FactorLost,
        ["24 read write", "24 read write", "72 read", "72 read"],
    ),
    (
        Row::FactorAddedProven,
        ["-", "6 read write", "24 read", "24 read"],
    ),
    (
        Row::FactorAddedUnproven,
        ["24 read write", "24 read write", "72 read", "72 read"],
    ),
    (
        Row::ContactChanged,
        ["72 read write", "72 read", "72 read", "168 read"],
    ),
    (Row::AllReplaced, ["720 read", "720 read", "720 read", "720 none"]),
    (Row::IntermediaryChanged, ["-", "-", "-", "-"]),
    (Row::Initialised, ["-", "-", "-", "-"]),
];

/// A change that falls in a row, as the row's words say; several ways where there are several.
fn ways(row: Row) -> Vec<Change> {
    use ChangeKind as K;
    let made = |kind, proof, mediated| Change {
        proof,
        mediated,
        ..change("e", kind, hour(0))
    };
    match row {
        Row::PasswordReset => vec![
            made(K::PasswordReset, Proof::Unproven, false),
            made(K::PasswordReset, Proof::Message, true),
            made(K::PasswordReset, Proof::EligibleFactor, false),
            made(K::PasswordSetByAdmin, Proof::Administrator, false),
            made(K::PasswordChanged, Proof::Unproven, false),
            made(K::PasswordChanged, Proof::Message, false),
        ],
        Row::PasswordResetProven => vec![made(K::PasswordReset, Proof::EligibleFactor, true)],
        Row::PasswordChanged => vec![made(K::PasswordChanged, Proof::RecentLogin, false)],
        Row::FactorLost => vec![
            made(K::FactorRemoved, Proof::RecentLogin, false),
            made(K::RecoveryCodesReset, Proof::Unproven, false),
            made(K::RecoveryCodeUsed, Proof::Unproven, false),
        ],
        Row::FactorAddedProven => vec![
            made(K::FactorAdded, Proof::EligibleFactor, false),
            made(K::FederatedLinkChanged, Proof::EligibleFactor, false),
        ],
        Row::FactorAddedUnproven => vec![
            made(K::FactorAdded, Proof::Unproven, false),
            made(K::FactorAdded, Proof::RecentLogin, false),
            made(K::FederatedLinkChanged, Proof::Unproven, false),
        ],
        Row::ContactChanged => {
            vec![
                made(K::EmailChanged, Proof::EligibleFactor, true),
                made(K::PhoneChanged, Proof::Unproven, false),
            ]
        }
        Row::AllReplaced => vec![made(K::AllFactorsReplaced, Proof::Unproven, false)],
        Row::IntermediaryChanged => vec![made(K::IntermediaryChanged, Proof::Unproven, false)],
        Row::Initialised => vec![made(K::CredentialInitialised, Proof::Unproven, false)],
        Row::AfterContest => Vec::new(),
    }
}

// rows K1 to K4: each row in each tier, on the function that ships: what is allowed, until when, and that it is told.
#[test]
fn every_row_of_the_table_holds_as_long_as_it_says_and_tells_everyone() {
    let mut seen = 0;
    for (row, cells) in TABLE {
        for (tier, cell) in cells.into_iter().enumerate() {
            for way in ways(row) {
                assert_eq!(way.row(), row, "{way:?}");
                let mut world = World::new(tier);
                let t = world.hear(&way, None, at(hour(0))).unwrap();
                assert_eq!(notices(&t.effects).len(), 2, "{row:?}");
                assert!(world.accept("case0", at(hour(0))));
                let cause = &world.record().causes[0];
                seen += 1;
                let Some((hours, allow)) = cell.split_once(' ') else {
                    assert!(
                        !cause.holds() && world.allowed(at(hour(0))).is_full(),
                        "{row:?} {tier}"
                    );
                    assert_eq!(world.record().epoch, 0);
                    continue;
                };
                let end = hour(hours.parse().unwrap());
                let last = end.minus(Span::from_millis(1));
                assert_eq!(world.allowed(at(last)), ceiling(allow), "{row:?} {tier}");
                let auth = Some(end);
                assert!(
                    ask(world.record.as_ref(), &world.policy, at(end), auth)
                        .recovery_scope
                        .is_full()
                );
                // ISS-7: consumers and business users become whole by themselves, the others at a fresh log-in.
                assert_eq!(world.allowed(at(end)).is_full(), tier < 2, "{row:?} {tier}");
            }
        }
    }
    assert_eq!(seen, 21 * 4);
}

// The default policy is the same table: nothing in it is left over.
#[test]
fn the_standard_policy_is_the_table() {
    let policy = policy();
    let names: Vec<&str> = policy.tiers.iter().map(|t| t.name.0.as_str()).collect();
    assert_eq!(names, ["consumer", "b2b_user", "b2b_admin", "high_assurance"]);
    for (row, cells) in TABLE {
        for (tier, cell) in policy.tiers.iter().zip(cells) {
            let expected = cell
                .split_once(' ')
                .map_or(Response::Notice, |(hours, allow)| Response::Hold {
                    length: Span::from_hours(hours.parse().unwrap()),
                    allow: ceiling(allow),
                });
            assert_eq!(tier.response(row), expected, "{row:?} {}", tier.name.0);
            assert_eq!(tier.enforce, Rollout::On);
        }
    }
    assert_eq!(policy.longest_hold(), Span::from_days(30));
    let mut missing = policy.tiers[0].clone();
    missing.holds.clear();
    let strict = Response::Hold {
        length: Span::from_days(30),
        allow: Ceiling::none(),
    };
    assert_eq!(missing.response(Row::PasswordReset), strict);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    // "Start": min(the IdP's time corrected by its offset, our receipt); an offset over 60 s is not believed.
    #[test]
    fn the_clock_starts_at_the_earlier_of_event_and_receipt(happened in -600..600_i64, offset in -120_000..120_000_i64, received in -600..600_i64) {
        let mut c = change("e", ChangeKind::PasswordReset, minute(happened));
        c.offset = Span::from_millis(offset);
        c.received = minute(received);
        let corrected = minute(happened).minus(Span::from_millis(offset));
        let expected = if offset.abs() > 60_000 { minute(received) } else { corrected.min(minute(received)) };
        prop_assert_eq!(c.start(), expected);
    }

    // "End": twice the length until told; then max(start + length, acceptance + min(6 h, a quarter of the length)).
    #[test]
    fn the_end_is_set_by_the_first_acceptance(tier in 0..4_usize, row in 0..10_usize, accepted in 0..9000_i64) {
        let (row, cells) = TABLE[row];
        let Some((hours, _)) = cells[tier].split_once(' ') else { return Ok(()) };
        let length: i64 = hours.parse::<i64>().unwrap() * 60;
        let mut world = World::new(tier);
        world.hear(&ways(row)[0], None, at(hour(0)));
        let end = |w: &World| w.record().causes[0].end();
        prop_assert_eq!(end(&world), minute(2 * length));
        let taken = world.accept("case0", at(minute(accepted)));
        prop_assert_eq!(taken, accepted < 2 * length);
        if taken {
            let told_min = (length / 4).min(360);
            prop_assert_eq!(end(&world), minute(length.max(accepted + told_min)));
            prop_assert!(!world.accept("case0", at(minute(accepted))), "told twice");
        }
    }
}

// An account without any channel: the nominal length, and an alarm.
#[test]
fn an_account_nobody_can_be_told_about_is_held_for_the_length_with_an_alarm() {
    let mut world = World::new(0);
    world.account.as_mut().unwrap().contacts.clear();
    let t = world
        .hear(
            &change("e", ChangeKind::PasswordReset, hour(0)),
            None,
            at(hour(0)),
        )
        .unwrap();
    assert_eq!(t.record.causes[0].end(), hour(24));
    assert!(t.audit[0].alarm && notices(&t.effects).is_empty());
    assert!(!world.accept("case0", at(hour(1))));
}

// So late that it would be over even untold: it only tells. A minute earlier it still holds.
#[test]
fn a_late_change_only_tells() {
    for (late, held) in [(48 * 60 - 1, true), (48 * 60, true), (48 * 60 + 1, false)] {
        let mut world = World::new(0);
        let mut c = change("e", ChangeKind::PasswordReset, hour(0));
        c.received = minute(late);
        let t = world.hear(&c, None, at(minute(late))).unwrap();
        assert_eq!(t.record.causes[0].holds(), held, "{late}");
        assert_eq!(notices(&t.effects).len(), 2);
        assert_eq!(t.record.cuts.len(), usize::from(held));
    }
}

// ... unless the case it belongs to still runs: then it counts as if it had come in time (P10).
#[test]
fn a_late_change_that_belongs_to_a_running_case_still_counts() {
    let mut world = World::new(2);
    let mut voluntary = change("c2", ChangeKind::PasswordChanged, hour(20));
    voluntary.proof = Proof::RecentLogin;
    world.hear(&voluntary, None, at(hour(20)));
    assert_eq!(world.allowed(at(hour(55))), ceiling("read write"));
    let mut added = change("c1", ChangeKind::FactorAdded, hour(0));
    added.proof = Proof::EligibleFactor;
    added.received = hour(50);
    world.hear(&added, None, at(hour(50)));
    assert_eq!(world.allowed(at(hour(55))), ceiling("read"));
    assert_eq!(world.record().causes[0].episode, world.record().causes[1].episode);
}

// "Merge": the end is the later one, what is allowed the intersection; an ended case is not revived.
#[test]
fn overlapping_holds_are_one_case_and_separate_ones_are_two() {
    let mut world = World::new(3);
    world.heard(ChangeKind::EmailChanged, hour(0));
    world.accept("case0", at(hour(0)));
    let mut voluntary = change("v", ChangeKind::PasswordChanged, hour(160));
    voluntary.proof = Proof::RecentLogin;
    world.hear(&voluntary, None, at(hour(160)));
    world.accept("case1", at(hour(160)));
    assert_eq!(world.allowed(at(hour(170))), ceiling("read"));
    assert!(
        ask(
            world.record.as_ref(),
            &world.policy,
            at(hour(184)),
            Some(hour(184))
        )
        .recovery_scope
        .is_full()
    );
    let mut later = voluntary.clone();
    (later.id, later.at, later.received) = ("w".to_owned(), hour(200), hour(200));
    world.hear(&later, None, at(hour(200)));
    let fresh = ask(
        world.record.as_ref(),
        &world.policy,
        at(hour(201)),
        Some(hour(190)),
    );
    assert_eq!(fresh.recovery_scope, ceiling("read write"));
}

// A hold between two others makes one case of all three.
#[test]
fn a_change_heard_of_late_joins_what_it_lies_between() {
    let mut world = World::new(0);
    world.heard(ChangeKind::PasswordReset, hour(0));
    world.accept("case0", at(hour(0)));
    world.heard(ChangeKind::EmailChanged, hour(40));
    assert_ne!(world.record().causes[0].episode, world.record().causes[1].episode);
    let mut between = change("b", ChangeKind::PhoneChanged, hour(20));
    between.received = hour(41);
    world.hear(&between, None, at(hour(41)));
    let numbers: Vec<u32> = world.record().causes.iter().map(|c| c.episode).collect();
    assert!(numbers.iter().all(|n| *n == numbers[0]), "{numbers:?}");
}

// The same mailbox holding the account again and again: each change holds its length, the operator hears of it, and
// the record says that a factor of another class may lift it.
#[test]
fn changes_proven_by_one_channel_are_bounded() {
    let mut world = World::new(0);
    let reset = |world: &mut World, n: i64, start: i64| {
        let mut c = change(&format!("r{n}"), ChangeKind::PasswordReset, hour(start));
        (c.proof, c.channel) = (Proof::Message, Some(channel("mail")));
        let case = format!("case{}", world.cases);
        let t = world.hear(&c, None, at(hour(start))).unwrap();
        world.accept(&case, at(hour(start)));
        t
    };
    for (n, start, bounded) in [
        (0, 0, false),
        (1, 30, false),
        (2, 60, true),
        (3, 90, true),
        (4, 90 + 31 * 24, false),
    ] {
        let t = reset(&mut world, n, start);
        let cause = t.record.causes.last().unwrap();
        assert_eq!(cause.bounded, bounded, "change {n}");
        assert_eq!(cause.length, Span::from_hours(24));
        assert_eq!(t.audit.iter().any(|l| l.alarm), bounded);
    }
}

// `rolling: false`: a further change of no more weight ends with what runs; a heavier one has its full length.
#[test]
fn without_rolling_a_further_change_does_not_extend_but_is_no_shield_either() {
    let mut world = World::new(0);
    world.policy.rolling = false;
    world.heard(ChangeKind::PasswordReset, hour(0));
    world.accept("case0", at(hour(0)));
    world.heard(ChangeKind::PasswordReset, hour(20));
    world.accept("case1", at(hour(20)));
    assert!(!world.allowed(at(hour(23))).is_full());
    assert!(world.allowed(at(hour(24))).is_full());
    let mut shield = World::new(1);
    shield.policy.rolling = false;
    let mut small = change("s", ChangeKind::PasswordReset, hour(0));
    (small.proof, small.mediated) = (Proof::EligibleFactor, true);
    shield.hear(&small, None, at(hour(0)));
    shield.heard(ChangeKind::AllFactorsReplaced, hour(1));
    assert_eq!(shield.allowed(at(hour(700))), ceiling("read"));
}

// Derived: two classes before, one eligible, none left; only while the owner's own factors are going.
#[test]
fn all_factors_replaced_is_derived_once() {
    let mut world = World::new(0);
    let mut reading = account();
    reading.factors[0] = factor("pw", FactorClass::Password, hour(0));
    let t = world
        .hear(
            &change("a", ChangeKind::PasswordReset, hour(0)),
            Some(&reading),
            at(hour(0)),
        )
        .unwrap();
    assert_eq!(t.record.causes.len(), 1);
    reading.factors[1] = factor("key", FactorClass::Passkey, hour(10));
    let t = world
        .hear(
            &change("b", ChangeKind::FactorRemoved, hour(10)),
            Some(&reading),
            at(hour(10)),
        )
        .unwrap();
    assert_eq!(t.record.causes.len(), 3);
    assert_eq!(world.allowed(at(hour(600))), ceiling("read"));
    reading.factors[0] = factor("pw", FactorClass::Password, hour(240));
    let t = world
        .hear(
            &change("c", ChangeKind::PasswordReset, hour(240)),
            Some(&reading),
            at(hour(240)),
        )
        .unwrap();
    assert_eq!(
        t.record.causes.len(),
        4,
        "a change of what came instead replaces nothing of the owner's"
    );
}

// ISS-6: an unmediated change that holds ends every session but its own; mediated, voluntary and told ones end none.
#[test]
fn sessions_end_as_iss_6_says() {
    let cuts = |c: &Change, tier: usize| World::new(tier).hear(c, None, at(hour(0))).unwrap().record.cuts;
    for row in [
        Row::PasswordReset,
        Row::FactorLost,
        Row::FactorAddedUnproven,
        Row::ContactChanged,
        Row::AllReplaced,
    ] {
        for mut way in ways(row) {
            way.session = Some("own".to_owned());
            assert_eq!(cuts(&way, 2).len(), usize::from(!way.mediated), "{way:?}");
        }
    }
    for row in [
        Row::PasswordResetProven,
        Row::PasswordChanged,
        Row::FactorAddedProven,
        Row::Initialised,
    ] {
        assert!(ways(row).iter().all(|way| cuts(way, 3).is_empty()), "{row:?}");
    }
    let mut reset = change("e", ChangeKind::PasswordReset, hour(0));
    reset.session = Some("own".to_owned());
    let record = World::new(0).hear(&reset, None, at(hour(1))).unwrap().record;
    assert!(!record.session_lives(hour(1), None) && !record.session_lives(hour(0), Some("other")));
    assert!(record.session_lives(hour(0), Some("own")) && record.session_lives(minute(61), None));
}

// The bound on what a record carries only ever tightens: sessions stay ended, holds stay, the old case still speaks.
#[test]
fn a_full_record_forgets_nothing_that_restricts() {
    let mut world = World::new(0);
    world.heard(ChangeKind::EmailChanged, hour(0));
    for n in 1..60 {
        world.heard(ChangeKind::PasswordReset, minute(n));
    }
    let record = world.record();
    assert!(record.causes.len() <= 32 && record.cuts.len() <= 8);
    assert!(!record.session_lives(minute(59), None) && record.session_lives(minute(60), None));
    assert!(record.contact_hold(at(hour(100))));
    assert!(record.causes.iter().map(reentry::domain::hold::Cause::end).max() >= Some(hour(144)));
    let case = record.cause("case0").unwrap();
    assert!(case.at == hour(0) && matches!(case.told, Told::Settled(_)));
    assert!(crate::contest::report_by("mail", &world, "case0", hour(2)).is_ok());
}

// Roll-out: shadow and outside of the cohort nothing changes and nobody is written to; what would be is said.
#[test]
fn a_roll_out_that_watches_changes_nothing_and_writes_to_nobody() {
    for (enforce, restricted) in [
        (Rollout::Shadow, false),
        (Rollout::Cohort(0), false),
        (Rollout::Cohort(1), true),
        (Rollout::On, true),
    ] {
        let mut world = World::new(0);
        world.policy.tiers[0].enforce = enforce;
        let t = world
            .hear(
                &change("e", ChangeKind::PasswordReset, hour(0)),
                None,
                at(hour(0)),
            )
            .unwrap();
        let answer = ask(world.record.as_ref(), &world.policy, at(hour(1)), None);
        assert_eq!(answer.recovery_scope.is_full(), !restricted, "{enforce:?}");
        assert_eq!(answer.shadow.is_some(), !restricted);
        assert_eq!(t.effects.is_empty(), !restricted);
        assert_eq!(
            (t.record.epoch > 0, t.record.cuts.is_empty()),
            (restricted, !restricted)
        );
        assert_eq!(t.audit.len(), 1);
        assert_eq!(t.record.posture(at(hour(1))) == Posture::Free, !restricted);
    }
}

// What is only watched does not delay the lift of what is in force.
#[test]
fn a_watched_hold_does_not_delay_a_lift() {
    let mut world = World::new(0);
    world.heard(ChangeKind::PasswordReset, hour(0));
    world.accept("case0", at(hour(0)));
    world.policy.tiers[0].enforce = Rollout::Shadow;
    world.heard(ChangeKind::AllFactorsReplaced, hour(1));
    assert_eq!(world.record().due(), Some(hour(24)));
    let lift = sweep(world.record(), at(hour(24))).unwrap();
    assert!(lift.effects.iter().any(|(name, _)| name.starts_with("converge:")));
}

// The sweeper lifts once, never early, never by one clock alone; much later the record falls quiet.
#[test]
fn the_sweep_lifts_once_and_the_record_falls_quiet() {
    let mut world = World::new(2);
    world.heard(ChangeKind::PasswordReset, hour(0));
    world.accept("case0", at(hour(0)));
    assert_eq!(world.record().due(), Some(hour(72)));
    assert_eq!(sweep(world.record(), at(minute(72 * 60 - 1))), None);
    assert_eq!(
        sweep(world.record(), Now::between(minute(72 * 60 - 1), hour(100))),
        None
    );
    let lift = sweep(world.record(), at(hour(72))).unwrap();
    world.store(&lift);
    assert!(world.record().fresh_login_at_end());
    assert_eq!(sweep(world.record(), at(hour(73))), None);
    let forget = world.record().due().unwrap();
    assert_eq!(forget, hour(72 + 90 * 24));
    let quiet = sweep(world.record(), at(forget)).unwrap();
    assert!(quiet.effects.is_empty() && quiet.record.due().is_none());
}

// A notice in between does not make the end of an administrator's hold forget its fresh log-in.
#[test]
fn a_notice_after_a_hold_does_not_hide_what_its_end_asks_for() {
    let mut world = World::new(2);
    world.heard(ChangeKind::PasswordReset, hour(0));
    world.accept("case0", at(hour(0)));
    world.heard(ChangeKind::IntermediaryChanged, hour(80));
    assert!(world.record().fresh_login_at_end());
    assert_eq!(world.record().due(), Some(hour(72)));
}

// A removed address is told for 30 d, and 7 d beyond the end of the hold it was removed in; not for ever.
#[test]
fn a_removed_address_is_told_as_long_as_it_has_its_voice() {
    let told = |tier: usize, days: i64| {
        let mut world = World::new(tier);
        let mut moved = account();
        moved.contacts[0] = contact("new", hour(-2400));
        world.hear(
            &change("e", ChangeKind::EmailChanged, hour(0)),
            Some(&moved),
            at(hour(0)),
        );
        world.heard(ChangeKind::AllFactorsReplaced, hour(1));
        if tier == 0 {
            world
                .record
                .as_mut()
                .unwrap()
                .causes
                .retain(|c| c.row == Row::ContactChanged);
        }
        let t = world
            .hear(
                &change("f", ChangeKind::PasswordReset, hour(days * 24)),
                None,
                at(hour(days * 24)),
            )
            .unwrap();
        notices(&t.effects).iter().any(|n| n.channel.0 == "mail")
    };
    assert!(told(0, 29) && !told(0, 31));
    assert!(told(3, 31) && told(3, 66) && !told(3, 68));
}

// Tiers: an expression that fails, gives no answer, or facts that cannot be read choose the strictest.
#[test]
fn tiers_fail_to_the_strictest() {
    let mut policy = policy();
    let name =
        |p: &reentry::domain::policy::Policy, facts: Option<&Facts>| p.choose(facts).unwrap().name.0.clone();
    let facts = |role: &str| Facts {
        roles: [role.to_owned()].into(),
        ..Facts::default()
    };
    let choice = |when: &str, tier: &str| reentry::domain::policy::Choice {
        tier: TierName(tier.to_owned()),
        when: Expression::compile(when).unwrap(),
    };
    policy.choices = vec![
        choice("'boss' in roles", "b2b_admin"),
        choice("attributes['level'][0] == 'x'", "b2b_user"),
    ];
    assert_eq!(name(&policy, None), "high_assurance");
    assert_eq!(name(&policy, Some(&facts("boss"))), "b2b_admin");
    assert_eq!(name(&policy, Some(&facts("user"))), "high_assurance");
    policy.choices.pop();
    assert_eq!(name(&policy, Some(&facts("user"))), "consumer");
    policy.choices = vec![choice("'user' in roles", "gone")];
    assert_eq!(name(&policy, Some(&facts("user"))), "high_assurance");
    policy.choices = vec![choice("roles.size() > 0 ? 1 : true", "consumer")];
    assert_eq!(name(&policy, Some(&facts("user"))), "high_assurance");
}

// A reading that cannot be had leaves the snapshot and still holds.
#[test]
fn a_change_without_any_snapshot_still_holds() {
    let mut world = World::new(0);
    world.account = None;
    let t = world
        .hear(
            &change("e", ChangeKind::PasswordReset, hour(0)),
            None,
            at(hour(0)),
        )
        .unwrap();
    assert!(t.account.is_none() && t.record.causes[0].holds());
    let mut read = World::new(0);
    read.account = None;
    let reading: Account = account();
    let t = read
        .hear(
            &change("e", ChangeKind::PasswordReset, hour(0)),
            Some(&reading),
            at(hour(0)),
        )
        .unwrap();
    assert_eq!(t.account, Some(reading));
}
