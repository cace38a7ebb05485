//! What owners are told of how their account stands is true of the whole account, whatever the message is about.

use proptest::prelude::*;
use reentry::domain::change::ChangeKind;
use reentry::domain::hold::Record;
use reentry::domain::notice::{Content, Ended, Message, content_of};
use reentry::domain::wording::Wording;

use crate::contest::report_by;
use crate::world::{World, at, change, hour, notices};

const WHOLE: &str = "Nothing is limited";
const SIGN_IN: &str = "you can sign in";

/// An account in a state, and whether it is whole, and whether anybody can use it.
fn states() -> Vec<(&'static str, Record, bool, bool)> {
    let quiet = Record::new(crate::world::subject());
    let mut held = World::new(0);
    held.heard(ChangeKind::PasswordReset, hour(0));
    let mut shut = World::new(3);
    shut.heard(ChangeKind::AllFactorsReplaced, hour(0));
    let mut frozen = held.clone();
    let t = report_by("mail", &frozen, "case0", hour(1)).unwrap();
    frozen.store(&t);
    let mut doubtful = frozen.record().clone();
    doubtful.lapsed = doubtful.contest.take();
    doubtful.causes.clear();
    vec![
        ("quiet", quiet, true, true),
        ("held", held.record().clone(), false, true),
        ("shut", shut.record().clone(), false, false),
        ("frozen", frozen.record().clone(), false, false),
        ("doubtful", doubtful, false, true),
    ]
}

fn about(message: Message, kind: Option<ChangeKind>) -> Content {
    Content {
        message,
        change: kind,
        ended: (message == Message::FreezeEnded).then_some(Ended::Unfounded),
        ..content_of(&change("e", ChangeKind::PasswordChanged, hour(2)))
    }
}

// Every state with every message: "nothing is limited" of no account that is, "you can sign in" of none that nobody can
// use, and of every account that is limited it is said that it is.
#[test]
fn every_message_says_how_the_whole_account_stands() {
    let words = Wording::default();
    for (state, record, whole, open) in states() {
        for message in Message::ALL {
            for kind in [None, Some(ChangeKind::PasswordChanged)] {
                let content = record.stated(about(message, kind), None, at(hour(2)));
                let said = words.stands(&content).unwrap_or_default();
                assert!(
                    whole || !said.contains(WHOLE),
                    "{message:?} of a {state} account: {said}"
                );
                assert!(
                    open || !said.contains(SIGN_IN),
                    "{message:?} of a {state} account: {said}"
                );
                let itself = [
                    Message::AccountFrozen,
                    Message::FreezeEnding,
                    Message::FreezeStands,
                ];
                assert!(
                    whole || itself.contains(&message) || !said.is_empty(),
                    "{message:?} says nothing of a {state} account"
                );
                assert!(
                    state != "quiet"
                        || kind.is_none()
                        || itself.contains(&message)
                        || message == Message::FreezeEnded
                        || said.contains(WHOLE),
                    "{message:?}: {said}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    // The same of what is really sent, by any order of changes, notices and reports.
    #[test]
    fn no_notice_says_of_an_account_what_is_not_true_of_it(
        acts in prop::collection::vec((0..60_i64, 0..4_usize), 1..10), tier in 0..4_usize,
    ) {
        let (mut world, mut clock, words) = (World::new(tier), 0_i64, Wording::default());
        for (pause, act) in acts {
            clock += pause;
            let sent = world.effects.len();
            match act {
                0 => drop(world.heard(ChangeKind::PasswordReset, hour(clock))),
                1 => drop(world.heard(ChangeKind::IntermediaryChanged, hour(clock))),
                2 => drop(world.heard(ChangeKind::PasswordSetByAdmin, hour(clock))),
                _ => {
                    let case = world.record.as_ref().and_then(|r| r.causes.last()).map(|c| c.reference.clone());
                    if let Some(t) = case.and_then(|case| report_by("mail", &world, &case, hour(clock)).ok()) {
                        world.store(&t);
                    }
                }
            }
            let Some(record) = &world.record else { continue };
            let restriction = record.restriction(at(hour(clock)));
            for notice in notices(&world.effects[sent..]) {
                let said = words.stands(&notice.content).unwrap_or_default();
                prop_assert!(restriction.is_none() || !said.contains(WHOLE), "{said}");
                let shut = restriction.as_ref().is_some_and(|r| r.allowed.is_none());
                prop_assert!(!shut || !said.contains(SIGN_IN), "{said}");
                if let (Some(said), Some(r)) = (&notice.content.allowed, &restriction) {
                    prop_assert!(said.within(&r.allowed), "{said} of {}", r.allowed);
                }
            }
        }
    }
}

// Whoever takes over an account can type a name: the message about that greets by the name of before it.
#[test]
fn a_notice_greets_by_the_name_of_before_the_change() {
    let mut world = World::new(0);
    world.account.as_mut().unwrap().name = "Ana".to_owned();
    let mut taken = crate::world::account();
    taken.name = "Call us now".to_owned();
    for n in 0..2 {
        let event = change(&format!("e{n}"), ChangeKind::PasswordReset, hour(n));
        let t = world.hear(&event, Some(&taken), at(hour(n))).unwrap();
        assert!(notices(&t.effects).iter().all(|n| n.content.name == "Ana"));
    }
    let t = report_by("mail", &world, "case0", hour(3)).unwrap();
    assert!(notices(&t.effects).iter().all(|n| n.content.name == "Ana"));
}
