//! Reports, the freeze and every way out of it; P11.

use proptest::prelude::*;
use reentry::domain::change::ChangeKind;
use reentry::domain::hold::apply::sweep;
use reentry::domain::hold::contest::exit::{ExitProof, leave};
use reentry::domain::hold::contest::{
    Finding, ReportRefusal, ThawRefusal, ThawStep, approve_thaw, end_freeze, freeze_told, report, thaw_step,
};
use reentry::domain::hold::{Posture, Transition};
use reentry::domain::notice::Message;
use reentry::domain::policy::{ContestedAtIdp, Exit, Rollout};
use reentry::domain::subject::account::FactorClass;
use reentry::domain::time::{Now, Span, Timestamp};

use crate::world::{World, account, at, ceiling, change, channel, class, contact, factor, hour, notices};

pub fn report_by(who: &str, world: &World, case: &str, when: Timestamp) -> Result<Transition, ReportRefusal> {
    report(
        world.record(),
        world.accounts(),
        &channel(who),
        case,
        at(when),
        &world.policy,
    )
}

/// An account whose password was reset at hour 0 and that its owner froze at hour 1.
fn frozen(tier: usize) -> World {
    let mut world = World::new(tier);
    world.heard(ChangeKind::PasswordReset, hour(0));
    let t = report_by("mail", &world, "case0", hour(1)).unwrap();
    world.store(&t);
    world
}

fn approve(world: &mut World, who: &str, finding: Finding, when: Timestamp) -> Result<(), ThawRefusal> {
    let t = approve_thaw(
        world.record(),
        world.accounts(),
        who,
        finding,
        at(when),
        &world.policy,
    )?;
    world.store(&t);
    Ok(())
}

fn end(world: &World, fit: &[(&str, bool)], restored: bool, when: Timestamp) -> Option<Transition> {
    let fit: Vec<(String, bool)> = fit.iter().map(|(who, ok)| ((*who).to_owned(), *ok)).collect();
    end_freeze(
        world.record(),
        world.accounts(),
        &fit,
        restored,
        "after",
        at(when),
        &world.policy,
    )
}

const BOTH: [(&str, bool); 2] = [("kc/ada", true), ("kc/bob", true)];

// ISS-10: a report freezes everything, ends every session, tells everyone, and reaches the IdP.
#[test]
fn a_report_freezes() {
    let mut world = World::new(0);
    world.heard(ChangeKind::PasswordReset, hour(0));
    let t = report_by("mail", &world, "case0", hour(1)).unwrap();
    assert!(t.record.epoch > world.record().epoch);
    assert!(t.effects.iter().any(|(name, _)| name.starts_with("converge:")));
    let told = notices(&t.effects);
    assert_eq!(told.len(), 2);
    assert!(
        told.iter()
            .all(|n| n.content.message == Message::AccountFrozen && !n.link)
    );
    world.store(&t);
    let answer = crate::world::ask(
        world.record.as_ref(),
        &world.policy,
        at(hour(9000)),
        Some(hour(8999)),
    );
    assert!(answer.recovery_scope.is_none() && answer.contested && answer.recovery_until.is_none());
    assert_eq!(
        world.record().posture(at(hour(9000))),
        Posture::Contested(ContestedAtIdp::Disable)
    );
    assert!(!world.record().session_lives(hour(1), Some("any")));
    assert_eq!(
        sweep(world.record(), at(hour(9000))),
        None,
        "a freeze holds back every lift"
    );
}

// A report about something that only told freezes too: the owner says that it was not them.
#[test]
fn a_report_about_a_notice_freezes() {
    let mut world = World::new(0);
    let mut voluntary = change("e", ChangeKind::PasswordChanged, hour(0));
    voluntary.proof = reentry::domain::change::Proof::RecentLogin;
    world.hear(&voluntary, None, at(hour(0)));
    let t = report_by("tel", &world, "case0", hour(1)).unwrap();
    let contest = t.record.contest.unwrap();
    assert!(contest.enforced && contest.hold == Span::from_hours(24) && contest.contested_since == hour(0));
}

#[test]
fn a_report_needs_a_case_and_a_voice() {
    let mut world = World::new(0);
    let mut moved = account();
    moved.contacts[0] = contact("new", hour(-2400));
    moved.contacts.push(contact("young", hour(-24)));
    let mut unproved = contact("never", hour(-2400));
    unproved.verified = false;
    moved.contacts.push(unproved);
    world.hear(
        &change("e", ChangeKind::EmailChanged, hour(0)),
        Some(&moved),
        at(hour(0)),
    );
    assert_eq!(
        report_by("mail", &world, "other", hour(1)),
        Err(ReportRefusal::UnknownCase)
    );
    for nobody in ["new", "young", "never", "stranger"] {
        assert_eq!(
            report_by(nobody, &world, "case0", hour(1)),
            Err(ReportRefusal::NoVoice),
            "{nobody}"
        );
    }
    assert!(
        report_by("mail", &world, "case0", hour(1)).is_ok(),
        "the removed address has its voice"
    );
    assert!(report_by("mail", &world, "case0", hour(30 * 24 - 1)).is_ok());
    assert_eq!(
        report_by("mail", &world, "case0", hour(30 * 24)),
        Err(ReportRefusal::NoVoice)
    );
}

// A channel's second report within 30 d is written down, without effect; after that it counts again.
#[test]
fn a_second_report_within_thirty_days_has_no_effect() {
    let mut world = frozen(0);
    approve(&mut world, "kc/ada", Finding::Unfounded, hour(2)).unwrap();
    let again = report_by("mail", &world, "case0", hour(3)).unwrap();
    assert_eq!(
        again.record.contest,
        world.record().contest,
        "the thaw under way stays"
    );
    assert!(only_told(&again) && again.audit[0].action == "report_repeated");
    approve(&mut world, "kc/bob", Finding::Unfounded, hour(3)).unwrap();
    let t = end(&world, &BOTH, true, hour(27)).unwrap();
    world.store(&t);
    let late = hour(1 + 30 * 24);
    world.hear(&change("l", ChangeKind::PasswordReset, late), None, at(late));
    let case = world.record().causes.last().unwrap().reference.clone();
    assert!(
        report_by("mail", &world, &case, late)
            .unwrap()
            .record
            .contest
            .is_some()
    );
    assert!(
        report_by("tel", &world, &case, late)
            .unwrap()
            .record
            .contest
            .is_some()
    );
}

// A removed channel freezes once, for as long as it keeps its voice at all.
#[test]
fn a_removed_channel_freezes_once() {
    let mut world = World::new(3);
    let mut moved = account();
    moved.contacts[0] = contact("new", hour(-2400));
    world.hear(
        &change("e", ChangeKind::EmailChanged, hour(0)),
        Some(&moved),
        at(hour(0)),
    );
    world.heard(ChangeKind::AllFactorsReplaced, hour(1));
    let t = report_by("mail", &world, "case0", hour(2)).unwrap();
    world.store(&t);
    for (who, when) in [("kc/ada", 3), ("kc/bob", 4)] {
        approve(&mut world, who, Finding::Unfounded, hour(when)).unwrap();
    }
    let t = end(&world, &BOTH, true, hour(30)).unwrap();
    world.store(&t);
    let day40 = hour(40 * 24);
    world.hear(&change("l", ChangeKind::PasswordReset, day40), None, at(day40));
    let case = world.record().causes.last().unwrap().reference.clone();
    let again = report_by("mail", &world, &case, day40).unwrap();
    assert!(again.record.contest.is_none() && only_told(&again));
}

/// A second word is told to everyone, the channel itself too, without a link, and does nothing else.
fn only_told(again: &Transition) -> bool {
    let told = notices(&again.effects);
    !told.is_empty()
        && told.len() == again.effects.len()
        && told
            .iter()
            .all(|n| n.content.message == Message::ReportRepeated && !n.link)
}

// An independent second channel confirms: no lapse any more, and a thaw under way begins anew.
#[test]
fn a_second_channel_confirms() {
    let mut world = frozen(0);
    approve(&mut world, "kc/ada", Finding::Unfounded, hour(2)).unwrap();
    let t = report_by("tel", &world, "case0", hour(3)).unwrap();
    world.store(&t);
    let contest = world.record().contest.clone().unwrap();
    assert!(contest.confirmed && contest.thaw.is_none());
    assert_eq!(thaw_step(world.record(), at(hour(5000))), ThawStep::Wait);
}

// A freeze that is only watched becomes a real one when a case in force is reported.
#[test]
fn a_watched_freeze_is_no_shield_for_a_real_one() {
    let mut world = World::new(0);
    world.policy.tiers[0].enforce = Rollout::Shadow;
    world.heard(ChangeKind::PasswordReset, hour(0));
    let t = report_by("mail", &world, "case0", hour(1)).unwrap();
    assert!(t.effects.is_empty() && !t.record.contest.as_ref().unwrap().enforced);
    world.store(&t);
    world.policy.tiers[0].enforce = Rollout::On;
    world.heard(ChangeKind::PasswordReset, hour(2));
    let t = report_by("tel", &world, "case1", hour(3)).unwrap();
    assert!(t.record.contest.as_ref().unwrap().enforced && t.record.epoch > world.record().epoch);
    assert_eq!(t.record.contest.unwrap().contested_since, hour(0));
}

// What was earlier and is heard of later is contested with the rest.
#[test]
fn an_earlier_change_of_the_case_is_contested_too() {
    let mut world = frozen(0);
    let mut earlier = change("earlier", ChangeKind::EmailChanged, hour(-1));
    earlier.received = hour(2);
    world.hear(&earlier, None, at(hour(2)));
    assert_eq!(world.record().contest.as_ref().unwrap().contested_since, hour(-1));
}

// Lapse: one bearer channel, nobody confirmed for 72 h: a `read` hold of the full length, ended by a fresh log-in
// with factors past their probation.
#[test]
fn an_unconfirmed_freeze_lapses_into_a_read_hold() {
    let mut world = frozen(0);
    let due = hour(73);
    assert_eq!(world.record().due(), Some(due));
    assert_eq!(
        thaw_step(world.record(), at(due.minus(Span::from_millis(1)))),
        ThawStep::Wait
    );
    assert_eq!(
        thaw_step(world.record(), Now::between(hour(72), hour(500))),
        ThawStep::Wait
    );
    assert_eq!(end(&world, &[], true, hour(72)), None);
    let t = end(&world, &[], true, due).unwrap();
    world.store(&t);
    let told = notices(&t.effects);
    assert!(
        told.len() == 2
            && told
                .iter()
                .all(|n| n.content.message == Message::FreezeEnded && !n.link)
    );
    assert_eq!(world.allowed(at(due)), ceiling("read"));
    // Nobody's hold lapses in silence: twice the length until the message was accepted.
    assert_eq!(world.allowed(at(hour(73 + 47))), ceiling("read"));
    assert!(world.accept(&told[0].case, at(hour(74))));
    let says = |auth: i64, eligible: bool| {
        world
            .record()
            .awaits_login(at(hour(73 + 24)), Some(hour(auth)), eligible)
            .map(|r| r.allowed)
    };
    assert_eq!(world.record().restriction(at(hour(73 + 24))), None);
    assert_eq!(says(73 + 24, true), None);
    assert_eq!(says(73 + 24, false), Some(ceiling("read")));
    assert_eq!(says(73 + 23, true), Some(ceiling("read")));
}

// One administrator alone neither thaws nor keeps a freeze from lapsing.
#[test]
fn one_approval_holds_back_nothing() {
    let mut world = frozen(0);
    approve(&mut world, "kc/ada", Finding::Owner, hour(2)).unwrap();
    assert_eq!(world.record().due(), Some(hour(73)));
    assert_eq!(thaw_step(world.record(), at(hour(72))), ThawStep::Wait);
    assert_eq!(thaw_step(world.record(), at(hour(73))), ThawStep::Lapse);
}

// Thaw: two people, one finding, a wait, everybody told; the hold that follows is the case's full length.
#[test]
fn two_administrators_thaw_after_the_wait() {
    for finding in [Finding::Owner, Finding::Unfounded] {
        let mut world = frozen(2);
        approve(&mut world, "kc/ada", finding, hour(2)).unwrap();
        let t = approve_thaw(
            world.record(),
            world.accounts(),
            "kc/bob",
            finding,
            at(hour(5)),
            &world.policy,
        )
        .unwrap();
        assert!(
            notices(&t.effects)
                .iter()
                .all(|n| n.content.message == Message::FreezeEnding)
        );
        assert_eq!(notices(&t.effects).len(), 2);
        world.store(&t);
        assert_eq!(world.record().due(), Some(hour(29)));
        assert_eq!(
            approve(&mut world, "kc/eve", finding, hour(6)),
            Err(ThawRefusal::AlreadyApproved)
        );
        assert_eq!(end(&world, &BOTH, true, hour(28)), None);
        let step = thaw_step(world.record(), at(hour(29)));
        assert_eq!(
            step,
            if finding == Finding::Owner {
                ThawStep::Restore(hour(0))
            } else {
                ThawStep::Complete
            }
        );
        if finding == Finding::Owner {
            assert_eq!(
                end(&world, &BOTH, false, hour(29)),
                None,
                "first the contested credentials go"
            );
        }
        let t = end(&world, &BOTH, true, hour(29)).unwrap();
        assert_eq!(t.account.is_some(), finding == Finding::Owner);
        world.store(&t);
        assert_eq!(world.allowed(at(hour(29))), ceiling("read"));
        let after = world.record().causes.last().unwrap();
        assert_eq!((after.length, after.at), (Span::from_hours(72), hour(29)));
    }
}

// Finding `owner`: the snapshot afterwards has the contacts of before, and nothing that came since.
#[test]
fn a_thaw_for_the_owner_restores_the_contacts_of_before() {
    let mut world = World::new(0);
    let mut moved = account();
    moved.contacts[0] = contact("evil", hour(-2400));
    moved.factors.push(factor("key", FactorClass::Passkey, hour(0)));
    world.hear(
        &change("e", ChangeKind::EmailChanged, hour(0)),
        Some(&moved),
        at(hour(0)),
    );
    let t = report_by("mail", &world, "case0", hour(1)).unwrap();
    world.store(&t);
    for who in ["kc/ada", "kc/bob"] {
        approve(&mut world, who, Finding::Owner, hour(2)).unwrap();
    }
    let restored = end(&world, &BOTH, true, hour(26)).unwrap().account.unwrap();
    let present: Vec<&str> = restored
        .contacts
        .iter()
        .filter(|c| c.gone.is_none())
        .map(|c| c.address.as_str())
        .collect();
    assert_eq!(present, ["mail", "tel"]);
    assert!(
        restored
            .factors
            .iter()
            .all(|f| f.gone.is_none() == (f.id != "key"))
    );
}

// An approver who may no longer approve voids the thaw; it has to begin anew.
#[test]
fn an_approver_who_lost_the_role_voids_the_thaw() {
    for fit in [
        &[("kc/ada", true), ("kc/bob", false)][..],
        &[("kc/ada", true)],
        &[],
    ] {
        let mut world = frozen(0);
        approve(&mut world, "kc/ada", Finding::Unfounded, hour(2)).unwrap();
        approve(&mut world, "kc/bob", Finding::Unfounded, hour(2)).unwrap();
        let t = end(&world, fit, true, hour(26)).unwrap();
        let contest = t.record.contest.as_ref().unwrap();
        assert!(contest.thaw.is_none() && t.audit[0].alarm && notices(&t.effects).len() == 2);
        assert!(
            crate::world::ask(Some(&t.record), &world.policy, at(hour(26)), None)
                .recovery_scope
                .is_none()
        );
    }
}

#[test]
fn who_may_not_approve_is_refused() {
    let mut world = World::new(0);
    world.heard(ChangeKind::PasswordReset, hour(0));
    assert_eq!(
        approve(&mut world, "kc/ada", Finding::Owner, hour(1)),
        Err(ThawRefusal::NotContested)
    );
    let mut world = frozen(0);
    assert_eq!(
        approve(&mut world, "kc/user-1", Finding::Owner, hour(1)),
        Err(ThawRefusal::OwnAccount)
    );
    approve(&mut world, "kc/ada", Finding::Owner, hour(1)).unwrap();
    assert_eq!(
        approve(&mut world, "kc/ada", Finding::Owner, hour(2)),
        Err(ThawRefusal::SamePerson)
    );
    world.record.as_mut().unwrap().contest.as_mut().unwrap().exits = vec![Exit::Quorum];
    assert_eq!(
        approve(&mut world, "kc/bob", Finding::Owner, hour(2)),
        Err(ThawRefusal::NotAllowed)
    );
}

// One administrator who finds otherwise stands in nobody's way: two who agree still thaw.
#[test]
fn a_lone_dissenter_cannot_keep_an_account_frozen() {
    let mut world = frozen(0);
    approve(&mut world, "kc/eve", Finding::Unfounded, hour(2)).unwrap();
    approve(&mut world, "kc/ada", Finding::Owner, hour(3)).unwrap();
    assert_eq!(
        world
            .record()
            .contest
            .as_ref()
            .unwrap()
            .thaw
            .as_ref()
            .unwrap()
            .approvals,
        ["kc/ada"]
    );
    approve(&mut world, "kc/bob", Finding::Owner, hour(4)).unwrap();
    assert_eq!(
        thaw_step(world.record(), at(hour(28))),
        ThawStep::Restore(hour(0))
    );
}

// The other ways out: each needs its proof and has to be among the tier's; the holds that run stay.
#[test]
fn quorum_identity_and_an_eligible_passkey_leave_a_freeze() {
    let mut world = frozen(0);
    let all = vec![
        Exit::Thaw,
        Exit::Quorum,
        Exit::IdentityVerification,
        Exit::Passkey,
    ];
    let t = freeze_told(world.record(), at(hour(2))).unwrap();
    world.store(&t);
    assert_eq!(freeze_told(world.record(), at(hour(3))), None);
    let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let quorum = |list: &[&str], needed| ExitProof::Quorum {
        approvals: names(list),
        needed,
    };
    let passkey = |eligible, verified| ExitProof::Passkey { eligible, verified };
    let cases = [
        (quorum(&["kc/a", "kc/b"], 2), 3, true),
        (quorum(&["kc/a", "kc/b"], 0), 3, true),
        (quorum(&["kc/a", "kc/a"], 2), 3, false),
        (quorum(&["kc/a", "kc/user-1"], 2), 3, false),
        (quorum(&["kc/a"], 1), 3, false),
        (ExitProof::IdentityVerification, 3, true),
        (passkey(true, true), 26, true),
        (passkey(true, true), 25, false),
        (passkey(false, true), 26, false),
        (passkey(true, false), 26, false),
    ];
    for (proof, when, opens) in cases {
        let go = |w: &World| leave(w.record(), w.accounts(), &proof, at(hour(when)), &w.policy);
        assert_eq!(go(&world), None, "the tier has no such way: {proof:?}");
        let mut open = world.clone();
        open.record
            .as_mut()
            .unwrap()
            .contest
            .as_mut()
            .unwrap()
            .exits
            .clone_from(&all);
        let left = go(&open);
        assert_eq!(left.is_some(), opens, "{proof:?} at {when}");
        if let Some(t) = left {
            assert!(t.record.contest.is_none() && notices(&t.effects).len() == 2);
            assert_eq!(
                crate::world::ask(Some(&t.record), &open.policy, at(hour(when)), None).recovery_scope,
                ceiling("read write")
            );
            assert!(
                !t.record
                    .restriction(at(hour(when)))
                    .unwrap()
                    .allowed
                    .allows(&class("pay"))
            );
        }
    }
}

// ---- P11 over random sequences ----

#[derive(Clone, Debug)]
enum Move {
    Approve(&'static str, bool),
    Confirm,
    End(Vec<(&'static str, bool)>, bool),
}

fn any_move() -> impl Strategy<Value = (i64, Move)> {
    let people = vec!["kc/ada", "kc/bob", "kc/eve", "kc/user-1"];
    let fit = prop::collection::vec(
        (prop::sample::select(people.clone()), prop::bool::weighted(0.8)),
        0..5,
    );
    let one = prop_oneof![
        5 => (prop::sample::select(people), any::<bool>()).prop_map(|(who, owner)| Move::Approve(who, owner)),
        1 => Just(Move::Confirm),
        3 => (fit, prop::bool::weighted(0.8)).prop_map(|(fit, restored)| Move::End(fit, restored)),
    ];
    (0..30_i64, one)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    // P11: a freeze ends by a thaw only after two different people, neither of them the account's own, found the same,
    // the wait has passed since the second, and both may still approve at that moment.
    #[test]
    fn p11_only_two_different_eligible_people_thaw(moves in prop::collection::vec(any_move(), 1..14)) {
        let mut world = frozen(0);
        // Without a lapse, a thaw is the only way.
        world.record.as_mut().unwrap().contest.as_mut().unwrap().lapses = None;
        let mut word: Vec<(&str, bool, i64)> = Vec::new();
        let mut clock = 2;
        for (pause, one) in &moves {
            clock += pause;
            match one {
                Move::Approve(who, owner) => {
                    let finding = if *owner { Finding::Owner } else { Finding::Unfounded };
                    if approve(&mut world, who, finding, hour(clock)).is_ok() {
                        word.push((who, *owner, clock));
                    }
                }
                Move::Confirm => {
                    if let Ok(t) = report_by("tel", &world, "case0", hour(clock)) {
                        if t.record.reports != world.record().reports {
                            word.clear();
                        }
                        world.store(&t);
                    }
                }
                Move::End(fit, restored) => {
                    let Some(t) = end(&world, fit, *restored, hour(clock)) else { continue };
                    if t.record.contest.is_some() {
                        word.clear();
                        world.store(&t);
                        continue;
                    }
                    let fit = |who: &str| fit.iter().any(|(w, ok)| *w == who && *ok);
                    let agree = word.iter().any(|(a, finding, _)| word.iter().any(|(b, other, _)| {
                        a != b && finding == other && fit(a) && fit(b) && *a != "kc/user-1" && *b != "kc/user-1"
                    }));
                    prop_assert!(agree, "thawed by {word:?}");
                    prop_assert!(word.iter().all(|(_, _, when)| clock >= when + 24), "thawed before the wait: {word:?}");
                    prop_assert!(t.record.restriction(at(hour(clock))).unwrap().allowed.within(&ceiling("read")));
                    return Ok(());
                }
            }
        }
    }
}
