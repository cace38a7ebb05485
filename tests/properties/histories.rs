//! P2, P7, P8, P9, P10: what changes, their delivery and the passing of time do to a record, over random histories.

use std::collections::BTreeSet;

use proptest::prelude::*;
use reentry::domain::ceiling::Ceiling;
use reentry::domain::change::{ChangeKind, Proof, Source};
use reentry::domain::hold::apply::{sweep, told};
use reentry::domain::hold::contest::report::{Word, report};
use reentry::domain::hold::contest::{Finding, approve_thaw, end_freeze, freeze_told};
use reentry::domain::hold::{Record, Told, Transition};
use reentry::domain::policy::Policy;
use reentry::domain::subject::account::{Account, ChannelId, FactorClass};
use reentry::domain::time::{Now, Span, Timestamp};

use crate::world::{
    Act, Delivery, World, acts, at, ceiling, change, channel, contact, factor, hour, in_order, logged,
    minute, notices, out_of_order, play, truth,
};

/// What a session of long ago may do at `now`, from the record alone.
fn allowed(record: Option<&Record>, policy: &Policy, now: Timestamp) -> Ceiling {
    crate::world::ask(record, policy, at(now), Some(hour(-1))).recovery_scope
}

/// Instants from `first` on: near it, and over the longest hold.
fn later(first: i64) -> impl Iterator<Item = Timestamp> {
    let near = (0..48).map(move |n| minute(first + n * 30));
    let far = (2..140).map(move |n| minute(first + n * 720));
    near.chain(far)
}

/// Plays the acts as they came and as they were delivered, late and twice: the second must never allow more.
fn crooked_is_no_weaker(acts: &[Act], tier: usize) -> Result<(), TestCaseError> {
    let mut straight = World::new(tier);
    play(&mut straight, acts, in_order(acts));
    let mut crooked = World::new(tier);
    let deliveries = out_of_order(acts);
    let heard = deliveries
        .iter()
        .filter(|(_, d)| matches!(d, Delivery::Event(..)))
        .map(|(m, _)| *m);
    let last = heard.max().unwrap_or_default();
    play(&mut crooked, acts, deliveries);
    // A change that was heard of so late that it only tells ends no session and asks for no fresh log-in
    // (domain "End", ISS-6); every other one does as if it had come in time.
    let holding = |w: &World| {
        let causes = w.record.iter().flat_map(|r| &r.causes).filter(|c| c.holds());
        causes.map(|c| c.change.clone()).collect::<BTreeSet<_>>()
    };
    let only_told = !holding(&straight).is_subset(&holding(&crooked));
    for instant in later(last) {
        let auth = if only_told { instant } else { hour(-1) };
        let says = |w: &World| crate::world::ask(w.record.as_ref(), &w.policy, at(instant), Some(auth));
        let (a, b) = (says(&crooked), says(&straight));
        let (ours, theirs) = (&a.recovery_scope, &b.recovery_scope);
        prop_assert!(
            ours.within(theirs),
            "+{:?}: {ours} for {theirs}\n{:#?}\n{:#?}",
            instant.since(minute(0)),
            crooked.record,
            straight.record
        );
        prop_assert!(!b.contact_hold || a.contact_hold);
    }
    if only_told {
        return Ok(());
    }
    for began in (0..200).map(|n| minute(n * 60)).filter(|b| *b < minute(last)) {
        for sid in [None, Some("sid0"), Some("sid1"), Some("other")] {
            let lives = |w: &World| w.record.as_ref().is_none_or(|r| r.session_lives(began, sid));
            prop_assert!(!lives(&crooked) || lives(&straight));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    // P10: repeated, delayed and reordered events end in the same or a stricter state, at every later instant.
    #[test]
    fn p10_repeated_delayed_and_reordered_events_end_the_same_or_stricter(acts in acts(5), tier in 0..4_usize) {
        crooked_is_no_weaker(&acts, tier)?;
    }

    // P10: the very same delivery again changes nothing at all.
    #[test]
    fn p10_the_same_event_twice_is_once(acts in acts(4), tier in 0..4_usize) {
        let mut world = World::new(tier);
        play(&mut world, &acts, in_order(&acts));
        let last = acts.last().map_or(0, |a| a.minute);
        for (number, act) in acts.iter().enumerate() {
            let again = logged(number, act, minute(act.minute));
            let judged = world.judge(&again, Some(&truth(&acts, minute(last))), at(minute(last)));
            // Only the derived change may be new, when the account shows more by now than it did then.
            if let Some(t) = judged {
                let known = world.record().causes.len();
                prop_assert!(t.record.causes.len() > known);
                prop_assert!(t.record.causes.iter().skip(known).all(|c| c.kind == ChangeKind::AllFactorsReplaced));
            }
        }
    }
}

// P10: histories that random search found once: an event so late that it only told, or that joins two episodes.
#[test]
fn p10_a_late_event_that_joins_two_cases_is_no_weaker() {
    let plain = |kind, minute, delay, accepted| Act {
        kind,
        proof: Proof::Unproven,
        mediated: false,
        minute,
        delay,
        again: None,
        accepted,
    };
    let (lost, reset) = (ChangeKind::FactorRemoved, ChangeKind::PasswordReset);
    let (linked, mail) = (ChangeKind::FederatedLinkChanged, ChangeKind::EmailChanged);
    let mediated = |act: Act| Act {
        mediated: true,
        ..act
    };
    let histories = [
        (
            0,
            vec![
                plain(lost, 2339, 0, None),
                plain(mail, 4627, 8086, Some(0)),
                plain(reset, 5219, 0, None),
            ],
        ),
        (
            0,
            vec![
                plain(linked, 2922, 0, None),
                plain(lost, 5848, 4319, None),
                plain(reset, 7287, 0, None),
            ],
        ),
        (
            2,
            vec![plain(mail, 2682, 8641, None), plain(reset, 7001, 7667, None)],
        ),
        (
            0,
            vec![
                mediated(plain(ChangeKind::FactorAdded, 0, 0, None)),
                plain(lost, 1271, 2881, None),
                mediated(plain(reset, 4153, 0, None)),
            ],
        ),
    ];
    for (tier, acts) in histories {
        crooked_is_no_weaker(&acts, tier).unwrap();
    }
}

// ---- P2, P8, P9 over every transition there is ----

/// A step of a history.
#[derive(Clone, Debug)]
enum Step {
    Change(Act),
    Accept(usize),
    Report(usize, &'static str),
    Approve(&'static str, bool),
    Sweep,
    EndFreeze(bool),
    FreezeTold,
}

fn any_step() -> impl Strategy<Value = Step> {
    let who = prop::sample::select(vec!["kc/ada", "kc/bob", "kc/user-1"]);
    prop_oneof![
        5 => crate::world::act().prop_map(Step::Change),
        2 => (0..6_usize).prop_map(Step::Accept),
        2 => (0..6_usize, prop::sample::select(vec!["mail", "tel", "mail0", "tel1"])).prop_map(|(n, c)| Step::Report(n, c)),
        2 => (who, any::<bool>()).prop_map(|(who, owner)| Step::Approve(who, owner)),
        2 => Just(Step::Sweep),
        2 => prop::bool::weighted(0.8).prop_map(Step::EndFreeze),
        1 => Just(Step::FreezeTold),
    ]
}

/// Steps with the minutes between them.
fn any_history() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let pause = prop_oneof![3 => 0..120_i64, 2 => 0..3000_i64, 1 => 0..30_000_i64];
    prop::collection::vec((pause, any_step()), 1..14)
}

/// One transition with what was before it.
struct Seen {
    step: Step,
    old: Option<Record>,
    account: Account,
    now: Timestamp,
    transition: Transition,
}

/// Runs a history, handing every stored transition to `check`.
fn run(tier: usize, history: &[(i64, Step)], mut check: impl FnMut(&World, &Seen)) {
    let mut world = World::new(tier);
    let mut clock = 0;
    let mut done: Vec<Act> = Vec::new();
    for (pause, step) in history {
        clock += pause + 1;
        let instant = minute(clock);
        let (old, account) = (world.record.clone(), world.accounts().clone());
        let transition = next(&mut world, step, &mut done, clock);
        if let Some(transition) = transition {
            // Computed again it is the same: the store may run it several times for one commit (P9).
            let seen = Seen {
                step: step.clone(),
                old,
                account,
                now: instant,
                transition,
            };
            check(&world, &seen);
            world.store(&seen.transition);
        }
    }
}

fn next(world: &mut World, step: &Step, done: &mut Vec<Act>, clock: i64) -> Option<Transition> {
    let now = at(minute(clock));
    let record = world.record.clone();
    let case = |n: usize| {
        record
            .as_ref()
            .and_then(|r| r.causes.get(n))
            .map(|c| c.reference.clone())
    };
    match step {
        Step::Change(act) => {
            let act = Act {
                minute: clock,
                ..act.clone()
            };
            done.push(act.clone());
            let change = logged(done.len() - 1, &act, minute(clock));
            let reading = truth(done, minute(clock));
            world.cases += 1;
            world.judge(&change, Some(&reading), now)
        }
        Step::Accept(n) => told(record.as_ref()?, &case(*n)?, now),
        Step::Report(n, who) => report(
            record.as_ref()?,
            world.accounts(),
            &Word {
                channel: &channel(who),
                case: &case(*n)?,
                proven: false,
            },
            now,
            &world.policy,
        )
        .ok(),
        Step::Approve(who, owner) => {
            let finding = if *owner {
                Finding::Owner
            } else {
                Finding::Unfounded
            };
            approve_thaw(
                record.as_ref()?,
                world.accounts(),
                who,
                finding,
                now,
                &world.policy,
            )
            .ok()
        }
        Step::Sweep => sweep(record.as_ref()?, now),
        Step::EndFreeze(fit) => {
            let fit: Vec<(String, bool)> = ["kc/ada", "kc/bob"].map(|w| (w.to_owned(), *fit)).to_vec();
            world.cases += 1;
            let case = format!("after{}", world.cases);
            end_freeze(
                record.as_ref()?,
                world.accounts(),
                &fit,
                true,
                &case,
                now,
                &world.policy,
            )
        }
        Step::FreezeTold => freeze_told(record.as_ref()?, now),
    }
}

/// The one allowed decrease: the case that was told about ends no earlier than its length, nor than `told_min` after
/// the acceptance; every other end stays.
fn only_the_told_case_moved(old: &Record, new: &Record, now: Timestamp) {
    for (before, after) in old.causes.iter().zip(&new.causes) {
        assert_eq!(before.reference, after.reference);
        if before.told == after.told {
            assert_eq!(before, after);
            continue;
        }
        assert_eq!((&before.told, &after.told), (&Told::Pending, &Told::At(now)));
        let least = after.at.plus(after.length).max(now.plus(after.told_min));
        let least = after.cap.map_or(least, |cap| least.min(cap));
        assert!(!after.holds() || after.end() >= least, "{after:?}");
        assert_eq!(
            (&before.allowed, before.length, before.at),
            (&after.allowed, after.length, after.at)
        );
    }
    assert_eq!(old.causes.len(), new.causes.len());
}

/// Leaving a freeze, for which the record has to name the way: a `read` hold of full length begins.
fn a_read_hold_follows(old: &Record, new: &Record, policy: &Policy, now: Timestamp) {
    let contest = old.disputed().unwrap();
    let approved = contest
        .thaw
        .as_ref()
        .is_some_and(|t| t.ready.is_some_and(|r| r <= now));
    let lapsed = contest.lapse().is_some_and(|l| l <= now);
    assert!(approved || lapsed);
    if contest.enforced {
        let until = now.plus(contest.hold);
        for instant in [now, until.minus(Span::from_millis(1))] {
            assert!(allowed(Some(new), policy, instant).within(&ceiling("read")));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    // P2: at no later instant is more allowed than before the transition, but for the one decrease when the owner was
    // told, and for a freeze that ends as the record says.
    #[test]
    fn p2_only_time_or_a_lift_the_record_names_ends_a_hold(history in any_history(), tier in 0..4_usize) {
        run(tier, &history, |world, seen| {
            let new = &seen.transition.record;
            let Some(old) = &seen.old else { return };
            match &seen.step {
                Step::Accept(_) => return only_the_told_case_moved(old, new, seen.now),
                Step::EndFreeze(_) if new.contest.is_none() => {
                    return a_read_hold_follows(old, new, &world.policy, seen.now);
                }
                _ => {}
            }
            for instant in (0..60).map(|n| seen.now.plus(Span::from_hours(n * 13))) {
                let (a, b) = (allowed(Some(new), &world.policy, instant), allowed(Some(old), &world.policy, instant));
                assert!(a.within(&b), "{:?} at +{:?}: {a}, was {b}\n{old:#?}\n{new:#?}", seen.step, instant.since(seen.now));
            }
            assert!(new.epoch >= old.epoch);
            let sharper = !allowed(Some(old), &world.policy, seen.now).within(&allowed(Some(new), &world.policy, seen.now));
            assert!(!sharper || new.epoch > old.epoch, "a tightening without a new epoch: {:?}", seen.step);
        });
    }

    // P8: whatever has to be told names every channel known before, removed ones for 30 d at least.
    #[test]
    fn p8_every_transition_names_every_channel_known_before(history in any_history(), tier in 0..4_usize) {
        run(tier, &history, |world, seen| {
            let t = &seen.transition;
            let told: BTreeSet<ChannelId> = notices(&t.effects).iter().map(|n| n.channel.clone()).collect();
            let fresh: Vec<_> = t.record.causes.iter()
                .filter(|c| seen.old.as_ref().is_none_or(|o| !o.causes.iter().any(|k| k.reference == c.reference)))
                .collect();
            let frozen = |r: Option<&Record>| r.and_then(|r| r.contest.as_ref()).map(|c| (c.confirmed, c.thaw.clone()));
            let since = match &seen.step {
                Step::Change(_) => fresh.iter().map(|c| c.at).max(),
                Step::Report(..) | Step::EndFreeze(_) | Step::Approve(..) => {
                    let contest = seen.old.as_ref().and_then(|r| r.contest.as_ref()).or(t.record.contest.as_ref());
                    let first_of_two = matches!(seen.step, Step::Approve(..))
                        && t.record.contest.as_ref().is_some_and(|c| c.thaw.as_ref().is_some_and(|t| t.ready.is_none()));
                    let repeated = matches!(seen.step, Step::Report(..))
                        && seen.old.as_ref().is_some_and(|o| o.reports == t.record.reports);
                    let changed = frozen(seen.old.as_ref()) != frozen(Some(&t.record));
                    contest.filter(|_| changed && !first_of_two && !repeated).map(|c| c.contested_since)
                }
                _ => None,
            };
            let Some(since) = since else { return };
            let account = t.account.as_ref().unwrap_or(&seen.account);
            let known = account.contacts.iter().filter(|c| c.since < since);
            for contact in known.filter(|c| c.gone.is_none_or(|gone| since < gone.plus(Span::from_days(30)))) {
                assert!(told.contains(&contact.id), "{:?} was not told of {:?}: {told:?}", contact.id, seen.step);
            }
            for one in notices(&t.effects) {
                let of = account.contacts.iter().find(|c| c.id == one.channel).unwrap();
                assert!(!one.before || of.since < since);
                let old_enough = of.verified && of.since.plus(world.policy.probation) <= since;
                assert!(!one.link || (one.before && old_enough), "a link for a newcomer");
            }
        });
    }

    // P9, as far as the domain goes: effects exist only in a transition, the same however often it is computed, and
    // no two of a whole history have one name.
    #[test]
    fn p9_effects_belong_to_their_transition_and_have_names_of_their_own(history in any_history(), tier in 0..4_usize) {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut lines: BTreeSet<String> = BTreeSet::new();
        run(tier, &history, |world, seen| {
            let mut again = world.clone();
            again.cases = again.cases.saturating_sub(1);
            let mut done = Vec::new();
            if !matches!(seen.step, Step::Change(_)) {
                let clock = seen.now.since(minute(0)).secs() / 60;
                assert_eq!(next(&mut again, &seen.step, &mut done, clock).as_ref(), Some(&seen.transition));
            }
            for (name, _) in &seen.transition.effects {
                assert!(names.insert(name.clone()), "{name} twice, at {:?}", seen.step);
            }
            for line in &seen.transition.audit {
                assert!(lines.insert(line.id.clone()), "{} twice, at {:?}", line.id, seen.step);
            }
            let tightened = seen.old.as_ref().map_or(0, |o| o.epoch) < seen.transition.record.epoch;
            let converges = seen.transition.effects.iter().any(|(n, _)| n.starts_with("converge:"));
            assert!(!tightened || converges, "a tightening the IdP is not told of: {:?}", seen.step);
        });
    }
}

// ---- P7: newcomers ----

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    // P7: an address or number that came with a change, or after it, has no link, no veto and no word in whether the
    // owner was told, until its probation is over: in whatever order and however late the changes are heard of.
    #[test]
    fn p7_a_newcomer_neither_vetoes_nor_lifts_before_its_probation_ends(acts in acts(5), tier in 0..4_usize) {
        let mut world = World::new(tier);
        play(&mut world, &acts, out_of_order(&acts));
        let Some(record) = world.record.clone() else { return Ok(()) };
        let born = |id: &ChannelId| {
            let number = id.0.trim_start_matches("mail").trim_start_matches("tel").parse::<usize>().ok();
            number.map(|n| minute(acts[n].minute))
        };
        for notice in notices(&world.effects) {
            let Some(born) = born(&notice.channel) else { continue };
            let about = record.causes.iter().find(|c| c.reference == notice.case).unwrap();
            prop_assert!(!notice.before || born < about.at, "a newcomer counts as told");
            prop_assert!(!notice.link || born.plus(world.policy.probation) <= about.at, "a link for a newcomer");
        }
        let newcomers: Vec<_> = world.accounts().contacts.iter().filter(|c| born(&c.id).is_some()).cloned().collect();
        for newcomer in newcomers {
            for cause in &record.causes {
                let young = born(&newcomer.id).unwrap().plus(world.policy.probation) > cause.at;
                let now = at(minute(30_000));
                let spoken = report(&record, world.accounts(), &Word { channel: &newcomer.id, case: &cause.reference, proven: false }, now, &world.policy);
                prop_assert!(!young || spoken.is_err(), "a newcomer froze the account");
            }
        }
    }

    // P7: a factor is eligible against a change only when it is a week older, or came with the account.
    #[test]
    fn p7_a_young_factor_is_not_eligible(age in -400..4000_i64, gone in prop::option::of(-400..400_i64), first in any::<bool>()) {
        let now = hour(0);
        let mut f = factor("k", FactorClass::Passkey, now.minus(Span::from_hours(age)));
        f.gone = gone.map(hour);
        f.at_creation = first;
        let eligible = f.eligible(now, Span::from_days(7));
        prop_assert!(!eligible || age > 0);
        prop_assert!(!eligible || first || age >= 168);
        prop_assert!(!eligible || gone.is_none_or(|g| g >= 0));
        prop_assert!(eligible || age <= 0 || (age < 168 && !first) || gone.is_some_and(|g| g < 0));
    }
}

// P7: changing the address twice makes no newcomer of the owner's, nor a veteran of the attacker's.
#[test]
fn p7_an_address_changed_there_and_back_keeps_its_voice() {
    let mut world = World::new(0);
    let mut account = world.accounts().clone();
    let mut step = |world: &mut World, name: &str, n: i64| {
        account.contacts = vec![contact(name, hour(-2400)), contact("tel", hour(-2400))];
        account.contacts[0].verified = false;
        let change = change(&format!("e{n}"), ChangeKind::EmailChanged, hour(n));
        world.hear(&change, Some(&account), at(hour(n))).unwrap()
    };
    step(&mut world, "evil", 0);
    step(&mut world, "mail", 1);
    step(&mut world, "evil", 2);
    let t = step(&mut world, "evil2", 300);
    let links: Vec<_> = notices(&t.effects)
        .into_iter()
        .filter(|n| n.link)
        .map(|n| n.channel.0)
        .collect();
    assert_eq!(links, ["mail", "tel"]);
    let case = t.record.causes.last().unwrap().reference.clone();
    assert!(
        report(
            &t.record,
            world.accounts(),
            &Word {
                channel: &channel("mail"),
                case: &case,
                proven: false,
            },
            at(hour(301)),
            &world.policy
        )
        .is_ok()
    );
    assert!(
        report(
            &t.record,
            world.accounts(),
            &Word {
                channel: &channel("evil"),
                case: &case,
                proven: false,
            },
            at(hour(301)),
            &world.policy
        )
        .is_err()
    );
}

// P7, P10: two changes in one poll, the reading already shows the attacker's address at the first of them.
#[test]
fn p7_an_address_seen_too_early_does_not_pass_for_one_of_before() {
    let mut world = World::new(0);
    let mut account = world.accounts().clone();
    account.contacts[0] = contact("evil", hour(-2400));
    let late = at(hour(240));
    world.hear(
        &change("reset", ChangeKind::PasswordReset, hour(0)),
        Some(&account),
        late,
    );
    let moved = change("moved", ChangeKind::EmailChanged, hour(200));
    let t = world.hear(&moved, Some(&account), late).unwrap();
    let evil = notices(&t.effects)
        .into_iter()
        .find(|n| n.channel.0 == "evil")
        .unwrap();
    assert!(!evil.before && !evil.link);
}

// P9: one address that an IdP names twice is told once.
#[test]
fn p9_one_address_is_told_once() {
    let mut world = World::new(0);
    world
        .account
        .as_mut()
        .unwrap()
        .contacts
        .push(contact("mail", hour(-100)));
    let t = world
        .hear(
            &change("e", ChangeKind::PasswordReset, hour(0)),
            None,
            at(hour(0)),
        )
        .unwrap();
    assert_eq!(notices(&t.effects).len(), 2);
}

// P10: a change judged again with more knowledge is stricter under the same name, and told anew.
#[test]
fn p10_a_second_judgement_is_only_ever_stricter_and_is_told() {
    let mut world = World::new(0);
    let mut heard = change("e", ChangeKind::PasswordChanged, hour(0));
    heard.proof = Proof::RecentLogin;
    let first = world.hear(&heard, None, at(hour(0))).unwrap();
    assert!(world.allowed(at(hour(1))).is_full());
    heard.proof = Proof::Unproven;
    heard.source = Source::Reconcile;
    let second = world.hear(&heard, None, at(hour(1))).unwrap();
    assert_eq!(second.record.causes.len(), 1);
    assert_eq!(
        second.record.causes[0].reference,
        first.record.causes[0].reference
    );
    assert_eq!(world.allowed(at(hour(2))), ceiling("read write"));
    let names = |t: &Transition| t.effects.iter().map(|(n, _)| n.clone()).collect::<BTreeSet<_>>();
    assert!(names(&first).is_disjoint(&names(&second)));
    assert_eq!(notices(&second.effects).len(), 2);
    heard.proof = Proof::RecentLogin;
    assert_eq!(world.hear(&heard, None, at(hour(3))), None);
    assert_eq!(world.allowed(at(hour(4))), ceiling("read write"));
}

// P6: a clock that went back names no effect twice.
#[test]
fn p6_a_clock_that_went_back_still_names_effects_anew() {
    let mut world = World::new(0);
    let first = world
        .hear(
            &change("a", ChangeKind::PasswordReset, hour(0)),
            None,
            at(hour(5)),
        )
        .unwrap();
    let second = world
        .hear(
            &change("b", ChangeKind::PasswordReset, hour(0)),
            None,
            at(hour(2)),
        )
        .unwrap();
    assert!(second.record.updated > first.record.updated && second.record.epoch > first.record.epoch);
    assert!(
        second
            .effects
            .iter()
            .all(|(name, _)| first.effects.iter().all(|(known, _)| known != name))
    );
    let both = Now::between(hour(2), hour(5));
    assert_eq!(
        second.record.restriction(both).unwrap().allowed,
        ceiling("read write")
    );
}
