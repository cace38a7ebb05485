//! Reports, the freeze and every way out of it; P11.

use proptest::prelude::*;
use reentry::domain::change::ChangeKind;
use reentry::domain::hold::apply::sweep;
use reentry::domain::hold::contest::exit::{ExitProof, leave};
use reentry::domain::hold::contest::remind::remind;
use reentry::domain::hold::contest::report::{ReportRefusal, Word, own, report};
use reentry::domain::hold::contest::{
    Finding, ThawRefusal, ThawStep, approve_thaw, end_freeze, freeze_told, thaw_step,
};
use reentry::domain::hold::{Posture, Transition};
use reentry::domain::notice::{Ended, Message};
use reentry::domain::policy::{ContestedAtIdp, Exit, Rollout};
use reentry::domain::subject::account::FactorClass;
use reentry::domain::time::{Now, Span, Timestamp};

use crate::world::{World, account, at, ceiling, change, channel, class, contact, factor, hour, notices};

pub fn report_by(who: &str, world: &World, case: &str, when: Timestamp) -> Result<Transition, ReportRefusal> {
    let says = Word {
        channel: &channel(who),
        case,
        proven: false,
    };
    report(world.record(), world.accounts(), &says, at(when), &world.policy)
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
            .all(|n| n.content.message == Message::AccountFrozen && n.link && n.content.until.is_none())
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

// A channel that is still on the account is always heard. Said twice in one freeze it is one report: nothing is stored.
#[test]
fn a_channel_on_the_account_is_always_heard_and_says_a_thing_once() {
    let mut world = frozen(0);
    approve(&mut world, "kc/ada", Finding::Unfounded, hour(2)).unwrap();
    assert_eq!(
        report_by("mail", &world, "case0", hour(3)),
        Err(ReportRefusal::Already)
    );
    approve(&mut world, "kc/bob", Finding::Unfounded, hour(3)).unwrap();
    let t = end(&world, &BOTH, true, hour(27)).unwrap();
    world.store(&t);
    assert!(world.record().doubt().is_none(), "people have judged");
    for who in ["mail", "tel"] {
        let again = report_by(who, &world, "case0", hour(28)).unwrap();
        assert!(
            again.record.contest.is_some(),
            "the thaw overruled the freeze, not the channel"
        );
    }
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

/// A second word is told to everyone, the channel itself too, and does nothing else.
fn only_told(again: &Transition) -> bool {
    let told = notices(&again.effects);
    !told.is_empty()
        && told.len() == again.effects.len()
        && told.iter().all(|n| n.content.message == Message::ReportRepeated)
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
    assert_eq!(thaw_step(world.record(), at(hour(5000))), ThawStep::Remind);
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

/// An account whose address was changed at hour 0, and whose password was reset at hour 100; the owner's former address
/// freezes it at hour 101.
fn frozen_by_a_former_address() -> World {
    let mut world = World::new(0);
    let mut moved = account();
    moved.contacts[0] = contact("new", hour(0));
    world.hear(
        &change("moved", ChangeKind::EmailChanged, hour(0)),
        Some(&moved),
        at(hour(0)),
    );
    world.accept("case0", at(hour(0)));
    let case = world.heard(ChangeKind::PasswordReset, hour(100));
    world.accept(&case, at(hour(100)));
    let t = report_by("mail", &world, &case, hour(101)).unwrap();
    world.store(&t);
    world
}

// Lapse: a channel that was no longer there when the contested change came, and that nobody confirmed for 72 h: a `read`
// hold of the full length. What was set with that change opens nothing but reading for ever, until people have looked.
#[test]
fn the_freeze_of_a_former_address_lapses_into_a_read_hold_and_judges_nothing() {
    let mut world = frozen_by_a_former_address();
    let (half, due) = (hour(101 + 36), hour(101 + 72));
    assert_eq!(world.record().due(), Some(half));
    let reminder = remind(world.record(), world.accounts(), at(half), &world.policy).unwrap();
    world.store(&reminder);
    assert_eq!(world.record().due(), Some(due));
    assert_eq!(
        thaw_step(world.record(), at(due.minus(Span::from_millis(1)))),
        ThawStep::Wait
    );
    assert_eq!(
        thaw_step(world.record(), Now::between(hour(101), hour(500))),
        ThawStep::Wait
    );
    assert_eq!(end(&world, &[], true, hour(172)), None);
    let t = end(&world, &[], true, due).unwrap();
    world.store(&t);
    let told = notices(&t.effects);
    assert!(
        told.iter()
            .all(|n| n.content.message == Message::FreezeEnded && n.content.ended == Some(Ended::Lapsed))
    );
    assert!(
        told.iter().any(|n| n.link && n.channel == channel("mail")),
        "{told:?}"
    );
    assert_eq!(world.allowed(at(due)), ceiling("read"));
    assert!(world.accept(&told[0].case, at(hour(174))));
    let year = hour(24 * 365);
    assert_eq!(world.record().restriction(at(year)), None, "the hold is over");
    let says = |eligible| {
        let waits = world.record().awaits_login(at(year), Some(year), eligible);
        waits.map(|r| r.allowed)
    };
    let doubt = world.record().doubt();
    let mut now = account();
    assert_eq!(
        says(now.proves(year, world.policy.probation, doubt)),
        None,
        "what was there before"
    );
    now.factors[0].created = hour(100);
    assert_eq!(
        says(now.proves(year, world.policy.probation, doubt)),
        Some(ceiling("read"))
    );
    assert_eq!(world.record().posture(at(year)), Posture::Held(ceiling("read")));
    for who in ["kc/ada", "kc/bob"] {
        approve(&mut world, who, Finding::Unfounded, year).unwrap();
    }
    let t = end(&world, &BOTH, true, year.plus(Span::from_hours(24))).unwrap();
    assert!(
        t.record.doubt().is_none() && t.record.lapsed.is_none(),
        "people have judged"
    );
}

// A former address that also says that its own removal was not the owner makes the freeze stand.
#[test]
fn a_former_address_that_contests_its_own_removal_is_no_former_one() {
    let world = frozen_by_a_former_address();
    assert!(world.record().contest.as_ref().unwrap().lapse().is_some());
    let t = report_by("mail", &world, "case0", hour(102)).unwrap();
    let contest = t.record.contest.unwrap();
    assert!(contest.lapse().is_none() && contest.contested_since == hour(0));
}

// One administrator alone ends nothing, and keeps nothing from lapsing.
#[test]
fn one_approval_holds_back_nothing() {
    let mut world = frozen_by_a_former_address();
    approve(&mut world, "kc/ada", Finding::Owner, hour(102)).unwrap();
    assert_eq!(thaw_step(world.record(), at(hour(136))), ThawStep::Wait);
    assert_eq!(thaw_step(world.record(), at(hour(173))), ThawStep::Lapse);
}

// A freeze that only people end is told of again, some days apart and not for ever; the link in it works.
#[test]
fn a_freeze_that_stands_is_told_of_again() {
    let mut world = frozen(0);
    let mut told = Vec::new();
    for day in 0..400 {
        let now = hour(1 + 24 * day);
        let Some(t) = remind(world.record(), world.accounts(), at(now), &world.policy) else {
            continue;
        };
        let sent = notices(&t.effects);
        assert!(
            sent.len() == 2
                && sent
                    .iter()
                    .all(|n| n.content.message == Message::FreezeStands && n.link)
        );
        assert!(t.audit[0].alarm && t.audit[0].action == "freeze_stands");
        world.store(&t);
        told.push(day);
    }
    assert_eq!(told, [3, 7, 14, 30, 60, 90]);
    assert!(
        world.record().due().is_some(),
        "it stays due: the entry is a witness"
    );
}

// "It was me after all" changes nothing: it is there for those who decide.
#[test]
fn an_owner_who_was_it_after_all_is_written_down_and_changes_nothing() {
    let mut world = frozen(0);
    let say = |world: &World, who: &str| {
        let says = Word {
            channel: &channel(who),
            case: "case0",
            proven: false,
        };
        own(
            world.record(),
            world.accounts(),
            &says,
            at(hour(3)),
            &world.policy,
        )
    };
    let before = world.record().clone();
    let t = say(&world, "mail").unwrap();
    world.store(&t);
    assert!(t.effects.is_empty() && t.audit[0].action == "report_owned");
    assert_eq!(say(&world, "mail"), Err(ReportRefusal::Already));
    assert_eq!(say(&world, "stranger"), Err(ReportRefusal::NoVoice));
    let mut after = world.record().clone();
    assert_eq!(
        after.contest.as_ref().unwrap().owned,
        [(channel("mail"), hour(3))]
    );
    after.contest.as_mut().unwrap().owned.clear();
    after.updated = before.updated;
    assert_eq!(after, before);
}

// The link of a message proves its channel's voice, whatever a snapshot that was read anew knows.
#[test]
fn a_genuine_link_speaks_after_the_snapshot_was_lost() {
    let mut world = World::new(0);
    world.heard(ChangeKind::PasswordReset, hour(0));
    let mut anew = account();
    anew.contacts[0].verified = false;
    anew.contacts[0].since = hour(1);
    let nobody = reentry::domain::subject::account::Account::default();
    for known in [anew, nobody] {
        let said = |proven| {
            let says = Word {
                channel: &channel("mail"),
                case: "case0",
                proven,
            };
            report(world.record(), &known, &says, at(hour(2)), &world.policy)
        };
        assert_eq!(said(false), Err(ReportRefusal::NoVoice));
        assert!(said(true).unwrap().record.contest.unwrap().lapse().is_none());
    }
}

// The contacts an account was made with have a voice at once; one that was added later waits.
#[test]
fn what_an_account_was_made_with_speaks_at_once() {
    let mut world = World::new(0);
    let mut young = account();
    young.created = hour(-24);
    young.contacts = vec![contact("mail", hour(-24)), contact("later", hour(-23))];
    world.account = Some(young);
    let t = world
        .hear(
            &change("e", ChangeKind::PasswordReset, hour(0)),
            None,
            at(hour(0)),
        )
        .unwrap();
    let links: Vec<_> = notices(&t.effects)
        .into_iter()
        .filter(|n| n.link)
        .map(|n| n.channel.0)
        .collect();
    assert_eq!(links, ["mail"]);
    assert!(report_by("mail", &world, "case0", hour(1)).is_ok());
    assert_eq!(
        report_by("later", &world, "case0", hour(1)),
        Err(ReportRefusal::NoVoice)
    );
}

// Two spellings of one mailbox, or an address and the one that took its place, do not confirm each other.
#[test]
fn independence_is_by_what_one_has_to_hold() {
    let mut known = account();
    let named = |id: &str, address: &str, since, gone: Option<i64>| {
        let mut c = contact(id, hour(since));
        address.clone_into(&mut c.address);
        c.gone = gone.map(hour);
        c
    };
    known.contacts = vec![
        named("a", "Ana+shop@Example.org", -900, None),
        named("b", "ana@example.org", -900, None),
        named("c", "bea@example.org", -900, Some(-100)),
        named("d", "cleo@example.org", -100, None),
        named("tel", "+351 912", -900, None),
    ];
    for (one, other, independent) in [
        ("a", "b", false),
        ("a", "a", false),
        ("c", "d", false),
        ("b", "c", true),
        ("b", "tel", true),
        ("b", "nobody", true),
    ] {
        assert_eq!(
            known.independent(&channel(one), &channel(other)),
            independent,
            "{one} {other}"
        );
        assert_eq!(
            known.independent(&channel(other), &channel(one)),
            independent,
            "{other} {one}"
        );
    }
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

/// What may happen to an account before and after somebody says "this was not me".
#[derive(Clone, Debug)]
enum Turn {
    /// The address is changed: the one of before is a former one from now on.
    Move,
    /// The password is reset.
    Reset,
    /// Somebody on one of the channels that there ever were reports one of the cases.
    Report(usize, usize),
    /// The sweeper looks.
    Sweep,
}

fn any_turn() -> impl Strategy<Value = (i64, Turn)> {
    let turn = prop_oneof![
        2 => Just(Turn::Move),
        3 => Just(Turn::Reset),
        4 => (0..6_usize, 0..8_usize).prop_map(|(who, case)| Turn::Report(who, case)),
        3 => Just(Turn::Sweep),
    ];
    (prop_oneof![2 => 0..3_i64, 2 => 3..80_i64, 1 => 80..400_i64], turn)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2500, failure_persistence: None, ..ProptestConfig::default() })]

    // Domain "Lapse": time alone ends only the freeze of channels that were gone before what is contested came, and
    // nothing that came then or later is ever eligible, however long one waits. Two administrators always find a way out.
    #[test]
    fn lapse_time_alone_hands_nothing_back(turns in prop::collection::vec(any_turn(), 2..14)) {
        let mut world = World::new(0);
        let (mut clock, mut mails, mut moves) = (0_i64, vec!["mail".to_owned()], vec![]);
        // Of every report that had an effect: when its channel was taken away, if it was, and what it contests.
        let mut words: Vec<(Option<i64>, i64)> = Vec::new();
        let mut contested: Option<i64> = None;
        for (pause, turn) in &turns {
            clock += pause;
            match turn {
                Turn::Move => {
                    let name = format!("mail{clock}x{}", mails.len());
                    let mut moved = account();
                    moved.contacts[0] = contact(&name, hour(clock));
                    let id = format!("move{}", mails.len());
                    world.hear(&change(&id, ChangeKind::EmailChanged, hour(clock)), Some(&moved), at(hour(clock)));
                    moves.push(clock);
                    mails.push(name);
                }
                Turn::Reset => drop(world.heard(ChangeKind::PasswordReset, hour(clock))),
                Turn::Report(who, case) => {
                    let causes = world.record.as_ref().map(|r| r.causes.clone()).unwrap_or_default();
                    let (Some(cause), Some(who)) = (causes.get(*case), mails.get(*who).map(String::as_str)) else { continue };
                    let Ok(t) = report_by(who, &world, &cause.reference, hour(clock)) else { continue };
                    if t.record.reports == world.record().reports {
                        continue;
                    }
                    let gone = mails.iter().position(|m| m == who).and_then(|n| moves.get(n)).copied();
                    world.store(&t);
                    let since = world.record().contest.as_ref().unwrap().contested_since.since(hour(0)).secs() / 3600;
                    words.push((gone, since));
                    contested = Some(contested.map_or(since, |c| c.min(since)));
                }
                Turn::Sweep => {
                    let frozen = world.record.as_ref().is_some_and(|r| r.contest.is_some());
                    let Some(t) = world.record.as_ref().and_then(|_| end(&world, &[], true, hour(clock))) else { continue };
                    prop_assert!(frozen && t.record.contest.is_none());
                    let since = contested.unwrap();
                    let all_gone = words.iter().all(|(gone, _)| gone.is_some_and(|gone| gone < since));
                    prop_assert!(all_gone, "time ended the freeze of a channel that was there: {words:?}, since {since}");
                    prop_assert!(t.account.is_none(), "nothing is restored or removed by time");
                    world.store(&t);
                    words.clear();
                }
            }
        }
        let Some(since) = contested else { return Ok(()) };
        for later in [0, 24, 24 * 8, 24 * 40, 24 * 4000] {
            let now = hour(clock + later);
            for came in [since, since + 1, clock, clock + later] {
                let mut thief = account();
                thief.factors[0].created = hour(came);
                prop_assert!(!thief.proves(now, world.policy.probation, world.record().doubt()), "{came} at {later}");
            }
            let eligible = crate::world::ask(world.record.as_ref(), &world.policy, at(now), Some(now));
            let thief = world.record().awaits_login(at(now), Some(now), false);
            let open = world.record().restriction(at(now)).is_none() && thief.is_none();
            prop_assert!(!open, "whole again by time: {eligible:?}");
        }
        for who in ["kc/ada", "kc/bob"] {
            approve(&mut world, who, Finding::Owner, hour(clock)).unwrap();
        }
        let out = end(&world, &BOTH, true, hour(clock + 24)).unwrap();
        prop_assert!(out.record.contest.is_none() && out.record.doubt().is_none(), "no way out");
    }
}
