//! P5: a record that was lost and made anew from the IdP's log and what the IdP carries is at least as strict as the
//! lost one, at every later instant.

use std::collections::BTreeSet;

use proptest::prelude::*;
use reentry::domain::ceiling::Ceiling;
use reentry::domain::change::{Change, ChangeKind, Proof, Source};
use reentry::domain::hold::apply::Setting;
use reentry::domain::hold::rebuild::carried::Carried;
use reentry::domain::hold::rebuild::{Evidence, rebuild};
use reentry::domain::hold::{Effect, Posture, Record};
use reentry::domain::policy::Policy;
use reentry::domain::time::Timestamp;

use crate::world::{
    Act, World, acts, ask, at, hour, in_order, logged, minute, notices, play, subject, truth,
};

/// What a session of long ago may do at `now`.
fn allowed(record: Option<&Record>, policy: &Policy, now: Timestamp) -> Ceiling {
    ask(record, policy, at(now), Some(hour(-1))).recovery_scope
}

/// What the IdP carries of a record that it agrees with.
fn carried(record: Option<&Record>, now: Timestamp) -> Carried {
    match record.map(|r| r.posture(at(now))) {
        None | Some(Posture::Free) => Carried::default(),
        Some(Posture::Held(ceiling)) => Carried {
            ceiling: Some(ceiling),
            taken: true,
            ..Carried::default()
        },
        Some(Posture::Contested(_)) => Carried {
            ceiling: Some(Ceiling::none()),
            contested: true,
            taken: true,
            ..Carried::default()
        },
    }
}

/// The record made anew at `lost`, with nothing left of the old one.
fn anew(
    world: &World,
    acts: &[Act],
    carries: &Carried,
    lost: Timestamp,
) -> Option<(Record, Vec<(String, Effect)>)> {
    let mut changes: Vec<Change> = acts
        .iter()
        .enumerate()
        .map(|(number, act)| logged(number, act, lost))
        .collect();
    changes.sort_by_key(Change::start);
    let reading = truth(acts, lost);
    let setting = Setting {
        policy: &world.policy,
        tier: &world.policy.tiers[world.tier],
        place: 0,
        now: at(lost),
        reference: "",
    };
    let evidence = Evidence {
        changes: &changes,
        before: None,
        after: Some(&reading),
        carried: carries,
        witnessed: false,
        lost: true,
        told_before: lost,
        unheard: &BTreeSet::new(),
    };
    let case = |change: &str| format!("rc_{change}");
    let made = rebuild(&subject(), None, evidence, &case, &|_| None, setting);
    made.map(|t| (t.record, t.effects))
}

fn later(first: i64) -> impl Iterator<Item = Timestamp> {
    let near = (0..48).map(move |n| minute(first + n * 30));
    near.chain((1..90).map(move |n| minute(first + n * 24 * 60)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    // P5
    #[test]
    fn p5_a_record_made_anew_is_no_weaker_than_the_lost_one(acts in acts(5), tier in 0..4_usize, after in 0..6000_i64) {
        let mut world = World::new(tier);
        play(&mut world, &acts, in_order(&acts));
        let heard = acts.iter().map(|a| a.minute + a.delay.max(a.accepted.unwrap_or(0))).max();
        let first = heard.unwrap_or(0) + 1 + after;
        let lost = minute(first);
        let carries = carried(world.record.as_ref(), lost);
        let made = anew(&world, &acts, &carries, lost);
        let record = made.as_ref().map(|(record, _)| record);
        for now in later(first) {
            let (was, is) = (
                allowed(world.record.as_ref(), &world.policy, now),
                allowed(record, &world.policy, now),
            );
            prop_assert!(is.within(&was), "at {now:?}: {is} is more than {was}\n{:#?}\n{record:#?}", world.record);
        }
        // Nobody is told again of what they were told before.
        let effects = made.map(|(_, effects)| effects).unwrap_or_default();
        let again: Vec<_> = notices(&effects).into_iter().filter(|n| n.content.at < lost.minus(reentry::domain::hold::rebuild::UNCERTAIN)).collect();
        prop_assert_eq!(again, Vec::new());
    }

    // P5, contract section 1: the epoch also grows when the store was lost, even when nothing tells of what it was for.
    #[test]
    fn p5_the_epoch_never_goes_back_when_a_record_is_made_anew(acts in acts(4), tier in 0..4_usize, after in 0..90_000_i64, purged in any::<bool>()) {
        let mut world = World::new(tier);
        play(&mut world, &acts, in_order(&acts));
        let heard = acts.iter().map(|a| a.minute + a.delay.max(a.accepted.unwrap_or(0))).max();
        let lost = minute(heard.unwrap_or(0) + 1 + after);
        let log = if purged { &[] } else { acts.as_slice() };
        let made = anew(&world, log, &Carried::default(), lost);
        let was = world.record.as_ref().map_or(0, |r| r.epoch);
        let is = made.map_or(0, |(record, _)| record.epoch);
        prop_assert!(is > was, "{is} after {was}");
    }

    // P8: what only the date of a credential tells of may never have been found before. When it holds still, its owner
    // is told now, however long ago it was; when it is known to have been told, nobody is told twice.
    #[test]
    fn p8_a_hold_that_no_line_tells_of_is_told_when_it_is_found(tier in 0..4_usize, age in 1..20_000_i64, known in any::<bool>()) {
        let world = World::new(tier);
        let acts = [Act { kind: ChangeKind::PasswordReset, proof: Proof::Unproven, mediated: false, minute: 0, delay: 0, again: None, accepted: None }];
        let mut change = logged(0, &acts[0], minute(age));
        change.source = Source::Reconcile;
        let changes = [change];
        let (lost, reading) = (minute(age), truth(&acts, minute(age)));
        let setting = Setting { policy: &world.policy, tier: &world.policy.tiers[world.tier], place: 0, now: at(lost), reference: "" };
        let carries = Carried::default();
        let evidence = Evidence { changes: &changes, before: None, after: Some(&reading), carried: &carries, witnessed: false, lost: true, told_before: lost, unheard: &BTreeSet::new() };
        let case = |change: &str| format!("rc_{change}");
        let made = rebuild(&subject(), None, evidence, &case, &|_| known.then_some(true), setting);
        let held = made.as_ref().is_some_and(|t| t.record.restriction(at(lost)).is_some());
        let told = made.as_ref().is_some_and(|t| !notices(&t.effects).is_empty());
        prop_assert!(told || known || !held, "{:#?}", made);
        prop_assert!(!(told && known), "{:#?}", made);
    }

    // P8: what came while an account could take nothing down was never told, however long ago that was.
    #[test]
    fn p8_what_nobody_took_down_is_told_when_the_account_is_made_anew(tier in 0..4_usize, age in 1..20_000_i64, heard in any::<bool>()) {
        let world = World::new(tier);
        let acts = [Act { kind: ChangeKind::PasswordReset, proof: Proof::Unproven, mediated: false, minute: 0, delay: 0, again: None, accepted: None }];
        let changes = [logged(0, &acts[0], minute(age))];
        let (lost, reading) = (minute(age), truth(&acts, minute(age)));
        let setting = Setting { policy: &world.policy, tier: &world.policy.tiers[world.tier], place: 0, now: at(lost), reference: "" };
        let carries = Carried::default();
        let unheard: BTreeSet<String> = changes.iter().filter(|_| !heard).map(|c| c.id.clone()).collect();
        let evidence = Evidence { changes: &changes, before: None, after: Some(&reading), carried: &carries, witnessed: false, lost: true, told_before: lost, unheard: &unheard };
        let case = |change: &str| format!("rc_{change}");
        let made = rebuild(&subject(), None, evidence, &case, &|_| None, setting);
        let told = made.as_ref().is_some_and(|t| !notices(&t.effects).is_empty());
        prop_assert_eq!(told, !heard, "{:#?}", made);
    }

    // P5: whatever the log has forgotten, what the IdP carries is a floor.
    #[test]
    fn p5_a_purged_log_never_makes_more_of_it_than_the_idp_carries(acts in acts(4), tier in 0..4_usize, frozen in any::<bool>()) {
        let mut world = World::new(tier);
        play(&mut world, &acts, in_order(&acts));
        let first = acts.iter().map(|a| a.minute + a.delay).max().unwrap_or(0) + 1;
        let lost = minute(first);
        let mut carries = carried(world.record.as_ref(), lost);
        if frozen {
            carries = Carried { ceiling: Some(Ceiling::none()), contested: true, ..Carried::default() };
        }
        let made = anew(&world, &[], &carries, lost);
        let record = made.as_ref().map(|(record, _)| record);
        let now = allowed(record, &world.policy, lost);
        let floor = carries.ceiling.clone().unwrap_or(Ceiling::Full);
        prop_assert!(now.within(&floor), "{now} is more than {floor}");
        if frozen {
            prop_assert!(record.is_some_and(|r| r.contest.is_some()), "contested comes back contested");
        }
    }
}
