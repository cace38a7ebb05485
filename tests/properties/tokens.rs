//! P1, P5, P6: what a token may be used for, decided on any record at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use reentry::domain::ceiling::{Ceiling, Class};
use reentry::domain::change::{ChangeKind, Row};
use reentry::domain::entitlement::{Asking, Entitlement, Issued, Request, State, entitle};
use reentry::domain::hold::contest::{Clocks, Contest};
use reentry::domain::hold::{Cause, Elevation, Record, Told};
use reentry::domain::policy::{AtEnd, ContestedAtIdp, Policy, Rollout};
use reentry::domain::subject::account::ChannelId;
use reentry::domain::tier::TierName;
use reentry::domain::time::{Now, Span, Timestamp};
use reentry::ports::store::StoreError;

use crate::world::{ceiling, class, hour, minute, policy, subject, words};

/// Any ceiling a hold may have.
fn any_ceiling() -> impl Strategy<Value = Ceiling> {
    prop::sample::select(vec![
        "none",
        "read",
        "read write",
        "read export",
        "write pay",
        "read write export pay credential admin",
    ])
    .prop_map(ceiling)
}

fn any_told() -> impl Strategy<Value = Told> {
    prop_oneof![
        Just(Told::Pending),
        Just(Told::NoChannel),
        Just(Told::Late),
        (-200..400_i64).prop_map(|h| Told::At(hour(h))),
        (-200..400_i64).prop_map(|h| Told::Settled(hour(h))),
    ]
}

fn any_cause() -> impl Strategy<Value = Cause> {
    let at_end = prop_oneof![3 => Just(AtEnd::Auto), 1 => Just(AtEnd::FreshLogin), 1 => Just(AtEnd::FreshEligibleLogin)];
    let cap = prop::option::weighted(0.1, (-200..400_i64).prop_map(hour));
    let kind = prop_oneof![4 => Just(ChangeKind::PasswordReset), 1 => Just(ChangeKind::EmailChanged)];
    let times = (
        -200..200_i64,
        prop_oneof![1 => Just(0_i64), 5 => 1..200_i64],
        0..12_i64,
    );
    (
        times,
        any_ceiling(),
        any_told(),
        at_end,
        prop::bool::weighted(0.85),
        0..4_u32,
        cap,
        kind,
    )
        .prop_map(
            |((at, length, told_min), allowed, told, at_end, enforced, episode, cap, kind)| Cause {
                reference: format!("case-{at}-{length}"),
                change: format!("change-{at}-{length}"),
                kind,
                row: Row::PasswordReset,
                at: hour(at),
                length: Span::from_hours(length),
                allowed: if length == 0 { Ceiling::Full } else { allowed },
                sources: Vec::new(),
                told,
                told_min: Span::from_hours(told_min),
                tier: TierName("consumer".to_owned()),
                at_end,
                digest: String::new(),
                channel: None,
                bounded: false,
                rollout: Rollout::On,
                enforced,
                episode,
                swept: false,
                contest_length: Span::from_hours(24),
                cap,
                origin: None,
            },
        )
}

/// A hold that is in force near minute 0, so that what a step-up gives is often what decides.
fn hold_now() -> impl Strategy<Value = Cause> {
    (any_cause(), prop::sample::select(vec!["read", "read write"])).prop_map(|(cause, words)| Cause {
        at: hour(-2),
        length: Span::from_hours(24),
        told: Told::NoChannel,
        allowed: ceiling(words),
        enforced: true,
        cap: None,
        ..cause
    })
}

fn any_elevation() -> impl Strategy<Value = Elevation> {
    let word = prop::sample::select(vec!["pay", "export", "write"]);
    (
        prop::sample::select(vec!["c1", "c2"]),
        prop::sample::select(vec!["s1", "s2"]),
        word,
        -20..20_i64,
        0..30_i64,
    )
        .prop_map(|(client, session, word, from, length)| Elevation {
            client: client.to_owned(),
            session: session.to_owned(),
            class: class(word),
            from: minute(from),
            until: minute(from + length),
        })
}

fn any_contest() -> impl Strategy<Value = Option<Contest>> {
    prop::option::weighted(
        0.15,
        any::<bool>().prop_map(|enforced| Contest {
            case: "frozen".to_owned(),
            since: hour(-1),
            by: ChannelId("mail".to_owned()),
            confirmed: false,
            told: None,
            enforced,
            at_idp: ContestedAtIdp::Disable,
            exits: Vec::new(),
            lapses: None,
            thaw: None,
            contested_since: hour(-2),
            hold: Span::from_hours(24),
            removed: None,
            reminders: 0,
            owned: Vec::new(),
            proven: None,
            clocks: Clocks::default(),
        }),
    )
}

fn any_record() -> impl Strategy<Value = Record> {
    let causes = prop_oneof![
        2 => prop::collection::vec(any_cause(), 0..6),
        1 => prop::collection::vec(hold_now(), 1..2),
    ];
    let elevations = prop::collection::vec(any_elevation(), 0..4);
    (causes, elevations, any_contest(), 0..5_i64).prop_map(|(causes, elevations, contest, epoch)| Record {
        causes,
        elevations,
        contest,
        epoch,
        ..Record::new(subject())
    })
}

#[derive(Clone, Debug)]
struct Asked {
    session: Option<(&'static str, Option<Timestamp>, bool, bool)>,
    client: &'static str,
    issued: Option<Issued>,
}

fn any_asked() -> impl Strategy<Value = Asked> {
    let auth = prop::option::of((-300..300_i64).prop_map(hour));
    let session = (
        prop::sample::select(vec!["s1", "s2"]),
        auth,
        prop::bool::weighted(0.9),
        any::<bool>(),
    );
    let issued = (
        prop_oneof![2 => Just(Ceiling::Full), 1 => any_ceiling()],
        0..6_i64,
    )
        .prop_map(|(ceiling, epoch)| Issued { ceiling, epoch });
    (
        prop::option::weighted(0.9, session),
        prop::sample::select(vec!["c1", "c2"]),
        prop::option::weighted(0.4, issued),
    )
        .prop_map(|(session, client, issued)| Asked {
            session,
            client,
            issued,
        })
}

/// Two clocks near minute 0 most of the time, where the elevations are, or anywhere.
fn any_now() -> impl Strategy<Value = Now> {
    let near = (-30..30_i64).prop_map(minute);
    let far = (-250..450_i64).prop_map(hour);
    let one = prop_oneof![near, far];
    (one, prop_oneof![2 => Just(0_i64), 1 => -300..300_i64])
        .prop_map(|(one, skew)| Now::between(one, one.plus(Span::from_secs(skew))))
}

static POLICY: LazyLock<Policy> = LazyLock::new(policy);

fn answer(state: State<'_>, asked: &Asked, now: Now) -> Entitlement {
    let scopes = words(&[
        "openid",
        "email",
        "accounts:read",
        "payees:write",
        "transfers:write",
        "shared",
        "loose",
        "offline_access",
    ]);
    let (roles, groups) = (words(&["viewer", "operator", "other"]), BTreeSet::new());
    let session = asked.session.map(|(id, auth_time, checked, eligible)| Asking {
        id,
        auth_time,
        checked,
        eligible,
    });
    let issued = asked.issued.clone();
    let request = Request {
        client: asked.client,
        session,
        scopes: &scopes,
        roles: &roles,
        groups: &groups,
        issued,
    };
    entitle(state, &request, now, &POLICY)
}

// ---- The oracle: the same rules, written a second time from the domain's words ----

/// `None` is "no restriction".
type Set = Option<BTreeSet<Class>>;

fn set(ceiling: &Ceiling) -> Set {
    match ceiling {
        Ceiling::Full => None,
        Ceiling::Only(classes) => Some(classes.clone()),
    }
}

fn both(a: Set, b: Set) -> Set {
    match (a, b) {
        (None, x) | (x, None) => x,
        (Some(a), Some(b)) => Some(a.into_iter().filter(|c| b.contains(c)).collect()),
    }
}

/// Milliseconds at which a cause is over.
fn over(cause: &Cause) -> i64 {
    let (start, length) = (cause.at.millis(), cause.length.millis());
    let end = match cause.told {
        Told::Pending => start + 2 * length,
        Told::NoChannel => start + length,
        Told::At(accepted) => (start + length).max(accepted.millis() + cause.told_min.millis()),
        Told::Settled(end) => end.millis(),
        Told::Unknown => start + 2 * length + cause.told_min.millis(),
        Told::Late => start,
    };
    cause.cap.map_or(end, |cap| end.min(cap.millis()))
}

/// The most that may be allowed.
fn oracle(record: Option<&Record>, asked: &Asked, now: Now) -> Set {
    let nothing = Some(BTreeSet::new());
    let (early, late) = (now.earliest().millis(), now.latest().millis());
    let signed = asked.issued.as_ref().map_or(0, |i| i.epoch);
    if signed > record.map_or(0, |r| r.epoch) || asked.session.is_some_and(|(_, _, checked, _)| !checked) {
        return nothing;
    }
    let said = asked.issued.as_ref().and_then(|i| set(&i.ceiling));
    let Some(record) = record else { return said };
    if record.contest.as_ref().is_some_and(|c| c.enforced) {
        return nothing;
    }
    let mut groups: BTreeMap<u32, (i64, Set, u8)> = BTreeMap::new();
    for cause in record
        .causes
        .iter()
        .filter(|c| c.enforced && c.told != Told::Late && c.length > Span::ZERO && c.allowed != Ceiling::Full)
    {
        let wants = match cause.at_end {
            AtEnd::Auto => 0,
            AtEnd::FreshLogin => 1,
            AtEnd::FreshEligibleLogin => 2,
        };
        let group = groups.entry(cause.episode).or_insert((i64::MIN, None, 0));
        *group = (
            group.0.max(over(cause)),
            both(group.1.take(), set(&cause.allowed)),
            group.2.max(wants),
        );
    }
    let mut most: Set = None;
    for (end, allowed, wants) in groups.into_values() {
        let (auth, eligible) = asked
            .session
            .map_or((None, false), |(_, auth, _, eligible)| (auth, eligible));
        let fresh = auth.is_some_and(|auth| auth.millis() >= end);
        let free = early >= end && (wants == 0 || (fresh && (wants == 1 || eligible)));
        if !free {
            most = both(most, allowed);
        }
    }
    if let (Some(classes), Some((session, ..))) = (most.as_mut(), asked.session) {
        for e in &record.elevations {
            let ours = e.client == asked.client && e.session == session;
            let until = e.until.millis().min(e.from.millis() + 300_000);
            if ours && e.from.millis() <= early && late < until {
                classes.insert(e.class.clone());
            }
        }
    }
    both(most, said)
}

/// ISS-4 from its words: identity stays; offline access never; otherwise every class that names it is allowed.
fn may_keep(scope: &str, most: &Set) -> bool {
    let Some(classes) = most else { return true };
    match scope {
        "openid" | "profile" | "email" | "address" | "phone" => true,
        "accounts:read" => classes.contains(&class("read")),
        "payees:write" => classes.contains(&class("write")),
        "transfers:write" => classes.contains(&class("pay")),
        "shared" => classes.contains(&class("read")) && classes.contains(&class("write")),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    // P1, ISS-4, ISS-5, ISS-8, ISS-10, ISS-11: never above the hold and the unexpired elevations of exactly that
    // client and session; and not below either.
    #[test]
    fn p1_no_token_allows_more_than_the_hold_and_its_own_elevations(
        record in prop::option::weighted(0.95, any_record()), asked in any_asked(), now in any_now()
    ) {
        let most = oracle(record.as_ref(), &asked, now);
        let given = answer(State::Known(record.as_ref()), &asked, now);
        prop_assert_eq!(set(&given.recovery_scope), most.clone());
        for scope in ["openid", "email", "accounts:read", "payees:write", "transfers:write", "shared", "loose", "offline_access"] {
            prop_assert_eq!(given.scopes.contains(scope), may_keep(scope, &most), "{}", scope);
        }
        let allows = |word: &str| most.as_ref().is_none_or(|m| m.contains(&class(word)));
        prop_assert_eq!(given.roles.contains("viewer"), allows("read"));
        prop_assert_eq!(given.roles.contains("operator"), allows("admin"));
        prop_assert_eq!(given.roles.contains("other"), most.is_none());
        let longest = Span::from_mins(if most.is_none() { 15 } else { 5 });
        prop_assert!(given.max_lifetime <= longest);
        prop_assert!(most.is_some() || (given.recovery_until.is_none() && given.recovery_ref.is_none()));
    }

    // P5, ISS-2: what cannot be read, was not checked, or forgot what a token of ours proves, allows nothing.
    #[test]
    fn p5_unreadable_state_is_restricted(record in any_record(), asked in any_asked(), now in any_now(), fault in 0..4_u8) {
        let error = || match fault {
            0 => StoreError::Unavailable("no answer".to_owned()),
            1 => StoreError::Unsound("the marker is missing".to_owned()),
            2 => StoreError::Unreadable("version 9".to_owned()),
            _ => StoreError::Contended,
        };
        let read: Result<Option<&Record>, StoreError> = Err(error());
        for state in [State::Unreadable, State::from(read)] {
            let given = answer(state, &asked, now);
            prop_assert!(given.recovery_scope.is_none() && given.unreadable);
            prop_assert_eq!(&given.scopes, &words(&["openid", "email"]));
            prop_assert!(given.roles.is_empty() && given.max_lifetime <= Span::from_mins(5));
        }
        let fine = State::from(Ok::<_, StoreError>(Some(&record)));
        prop_assert_eq!(answer(fine, &asked, now), answer(State::Known(Some(&record)), &asked, now));
        let mut unchecked = asked.clone();
        unchecked.session = Some(("s1", Some(now.latest()), false, true));
        for known in [None, Some(&record)] {
            prop_assert!(answer(State::Known(known), &unchecked, now).recovery_scope.is_none());
        }
        let mut witness = asked;
        witness.issued = Some(Issued { ceiling: Ceiling::Full, epoch: record.epoch + 1 });
        for known in [None, Some(&record)] {
            let given = answer(State::Known(known), &witness, now);
            prop_assert!(given.recovery_scope.is_none() && given.unreadable);
            prop_assert_eq!(given.recovery_epoch, record.epoch + 1);
        }
    }

    // P6: with two clocks the answer is at most what either clock alone would give; a clock that goes back gives
    // nothing that the later time does not give.
    #[test]
    fn p6_a_skewed_clock_or_one_that_goes_back_never_loosens(
        record in any_record(), asked in any_asked(), one in -250..450_i64, skew in -200..200_i64, near in any_now()
    ) {
        let (a, b) = (hour(one), hour(one).plus(Span::from_mins(skew * 7)));
        let alone = |at: Timestamp| answer(State::Known(Some(&record)), &asked, Now::exact(at));
        let together = answer(State::Known(Some(&record)), &asked, Now::between(a, b));
        for single in [alone(a), alone(b)] {
            prop_assert!(together.recovery_scope.within(&single.recovery_scope));
            prop_assert!(together.scopes.is_subset(&single.scopes));
            prop_assert!(!single.contact_hold || together.contact_hold);
        }
        let pair = answer(State::Known(Some(&record)), &asked, near);
        for at in [near.earliest(), near.latest()] {
            prop_assert!(pair.recovery_scope.within(&alone(at).recovery_scope));
        }
        let mut plain = record.clone();
        plain.elevations.clear();
        let calm = |at: Timestamp| answer(State::Known(Some(&plain)), &asked, Now::exact(at)).recovery_scope;
        prop_assert!(calm(a.min(b)).within(&calm(a.max(b))));
        let frees = |at: Timestamp| plain.restriction(Now::exact(at)).is_none();
        prop_assert!(!frees(a.min(b)) || frees(a.max(b)));
        prop_assert!(plain.restriction(Now::between(a, b)).is_none() == (frees(a) && frees(b)));
    }
}

// ISS-5: what is restricted never lives longer than what is whole.
#[test]
fn iss5_a_restricted_token_never_outlives_a_whole_one() {
    let mut policy = Policy::standard();
    policy.lifetimes.access = Span::from_mins(1);
    let none = BTreeSet::new();
    let request = Request {
        client: "shop",
        session: None,
        scopes: &none,
        roles: &none,
        groups: &none,
        issued: None,
    };
    let now = Now::exact(Timestamp::from_secs(1_795_252_320));
    let given = entitle(State::Unreadable, &request, now, &policy);
    assert_eq!(given.max_lifetime, Span::from_mins(1));
}
