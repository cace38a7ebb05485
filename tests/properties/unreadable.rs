//! P15: an account that cannot be read is restricted, and that is all that comes of it.

use proptest::prelude::*;
use reentry::domain::entitlement::{Asking, Request, State, entitle};
use reentry::domain::hold::apply::{Setting, sweep};
use reentry::domain::hold::unreadable::{Trouble, Why, failed, read, waits};
use reentry::domain::hold::{Effect, Elevation, Posture, Record};
use reentry::domain::time::Span;

use crate::world::{Act, World, act, acts, ask, at, class, logged, minute, notices, subject, words};

/// What happens to the reading of the account, at which minute.
#[derive(Clone, Debug)]
enum Reading {
    Fails(Why, bool),
    Waits(i64),
    Succeeds,
}

fn reading() -> impl Strategy<Value = (i64, Reading)> {
    let why = prop_oneof![Just(Why::NoAnswer), Just(Why::Refused), Just(Why::Malformed)];
    let what = prop_oneof![
        4 => (why, any::<bool>()).prop_map(|(why, lost)| Reading::Fails(why, lost)),
        2 => (0..9000_i64).prop_map(Reading::Waits),
        2 => Just(Reading::Succeeds),
    ];
    (0..12_000_i64, what)
}

/// One step of a history.
enum Step<'a> {
    Change(usize, &'a Act),
    Reading(&'a Reading),
}

fn steps<'a>(acts: &'a [Act], readings: &'a [(i64, Reading)]) -> Vec<(i64, Step<'a>)> {
    let changes = acts
        .iter()
        .enumerate()
        .map(|(number, act)| (act.minute + act.delay, Step::Change(number, act)));
    let readings = readings
        .iter()
        .map(|(when, reading)| (*when, Step::Reading(reading)));
    let mut steps: Vec<_> = changes.chain(readings).collect();
    steps.sort_by_key(|(when, _)| *when);
    steps
}

fn take(world: &mut World, reading: &Reading, when: i64) {
    let now = at(minute(when));
    let policy = world.policy.clone();
    let old = world.record.clone();
    let transition = match reading {
        Reading::Fails(why, lost) => {
            let trouble = Trouble {
                why: *why,
                from: minute(when - 10),
                lost: *lost,
            };
            let setting = Setting {
                policy: &policy,
                tier: policy.choose(None).unwrap(),
                place: 0,
                now,
                reference: "unread",
            };
            Some(failed(&subject(), old.as_ref(), trouble, setting))
        }
        Reading::Waits(from) => old.as_ref().and_then(|record| waits(record, minute(*from), now)),
        Reading::Succeeds => old.as_ref().and_then(|record| read(record, now)),
    };
    let Some(transition) = transition else { return };
    assert!(notices(&transition.effects).is_empty(), "owners are told nothing");
    let had = |record: Option<&Record>| record.is_some_and(|r| r.unreadable.is_some());
    if had(old.as_ref()) != had(Some(&transition.record)) {
        assert!(
            transition
                .effects
                .iter()
                .any(|(_, effect)| *effect == Effect::Converge)
        );
        assert_eq!(
            transition.audit.len(),
            1,
            "its beginning and its end are written down"
        );
    }
    world.store(&transition);
}

proptest! {
    // P15: while it cannot be read nothing is allowed to it, by no elevation and by no passing of time; it is tried
    // again; and with the mark goes everything that came with it, but for the epoch, which only grows.
    #[test]
    fn p15_an_account_that_cannot_be_read_is_restricted_and_nothing_else_comes_of_it(
        acts in acts(6), readings in prop::collection::vec(reading(), 1..10), tier in 0..4_usize,
    ) {
        let (mut world, mut twin) = (World::new(tier), World::new(tier));
        for (when, step) in steps(&acts, &readings) {
            let now = at(minute(when));
            match step {
                Step::Change(number, act) => {
                    let change = logged(number, act, minute(when));
                    world.hear(&change, None, now);
                    twin.hear(&change, None, now);
                }
                Step::Reading(reading) => take(&mut world, reading, when),
            }
            for later in [0, 1, 600, 6_000, 600_000] {
                let later = at(minute(when + later));
                let mut given = world.allowed(later);
                prop_assert!(given.within(&twin.allowed(later)), "never more than without");
                let Some(record) = &world.record else { continue };
                if record.unreadable.is_none() {
                    prop_assert_eq!(given, twin.allowed(later));
                    continue;
                }
                prop_assert!(given.is_none());
                prop_assert_ne!(record.posture(later), Posture::Free);
                prop_assert!(record.due().is_some_and(|due| due <= minute(when).plus(Span::from_mins(10))));
                prop_assert_eq!(sweep(record, later), None, "no lift without a reading");
                let mut lifted = record.clone();
                lifted.elevations.push(Elevation {
                    client: "c1".to_owned(),
                    session: "s1".to_owned(),
                    class: class("pay"),
                    from: later.earliest(),
                    until: later.earliest().plus(Span::from_mins(5)),
                });
                given = ask(Some(&lifted), &world.policy, later, Some(minute(when))).recovery_scope;
                prop_assert!(given.is_none());
            }
        }
        let (mut left, without) = (world.record.clone(), twin.record.clone());
        if let Some(record) = &mut left {
            record.unreadable = None;
        }
        let causes = |record: &Option<Record>| record.as_ref().map(|r| r.causes.clone()).unwrap_or_default();
        prop_assert_eq!(causes(&left).len(), causes(&without).len());
        let epoch = |record: &Option<Record>| record.as_ref().map_or(0, |r| r.epoch);
        prop_assert!(epoch(&left) >= epoch(&without));
    }

    // P15: a machine's token without a session is restricted by it as well.
    #[test]
    fn p15_every_token_of_an_account_that_cannot_be_read_says_none(one in act(), session in any::<bool>()) {
        let mut world = World::new(0);
        take(&mut world, &Reading::Fails(Why::NoAnswer, false), one.minute);
        let scopes = words(&["openid", "payees:write"]);
        let none = words(&[]);
        let asking = Asking { id: "s1", auth_time: None, checked: true, eligible: true };
        let request = Request {
            client: "c1", session: session.then_some(asking), scopes: &scopes, roles: &none, groups: &none, issued: None,
        };
        let now = at(minute(one.minute + 1));
        let given = entitle(State::Known(world.record.as_ref()), &request, now, &world.policy);
        prop_assert!(given.recovery_scope.is_none());
        prop_assert_eq!(given.scopes, words(&["openid"]));
    }
}
