//! What the IdP ends or takes away (P16), and instants that one replica writes and another compares.

use std::collections::BTreeSet;

use proptest::prelude::*;
use reentry::domain::change::ChangeKind;
use reentry::domain::session::{
    Code, Family, Grants, MAX_FAMILIES, MAX_SESSIONS, Rotation, SKEW, Session, Withdrawal,
};
use reentry::domain::time::{Now, Span, Timestamp};

use crate::world::{World, change, minute, subject, words};

fn session(id: &str) -> Session {
    Session {
        id: id.to_owned(),
        subject: subject(),
        upstream_sid: Some(format!("up-{id}")),
        began: minute(0),
        auth_time: Some(minute(0)),
        acr: None,
        amr: Vec::new(),
        claims: "{}".to_owned(),
        roles: words(&["payer"]),
        groups: BTreeSet::new(),
        checked: true,
        eligible: false,
        cookie: vec![1],
        id_token: String::new(),
        clients: words(&["bank"]),
        ended: None,
        facts_at: Some(minute(0)),
        closed: None,
    }
}

fn family(session: &str, offline: bool) -> Family {
    Family {
        id: format!("{session}-{offline}"),
        client: "bank".to_owned(),
        session: session.to_owned(),
        scopes: words(&["openid"]),
        began: minute(0),
        expires: minute(600),
        offline,
        nonce: None,
        generation: 1,
        rotated: minute(0),
        revoked: None,
        denied: Vec::new(),
    }
}

/// Sessions, each with a family of either kind.
fn grants(sessions: impl IntoIterator<Item = Session>) -> Grants {
    let sessions: Vec<Session> = sessions.into_iter().collect();
    let families = sessions
        .iter()
        .flat_map(|s| [family(&s.id, false), family(&s.id, true)]);
    Grants {
        families: families.collect(),
        sessions,
        ..Grants::default()
    }
}

/// A session that logged in at some second, or nobody knows when, out of one of three at the IdP, or nobody knows which.
fn any_session() -> impl Strategy<Value = (Option<i64>, Option<u8>)> {
    (
        prop::option::weighted(0.8, 0..6_i64),
        prop::option::weighted(0.8, 0..3_u8),
    )
}

fn any_withdrawal() -> impl Strategy<Value = Withdrawal> {
    prop_oneof![
        (0..3_u8, 0..6_000_i64, any::<bool>()).prop_map(|(sid, at, offline)| Withdrawal::Session {
            sid: format!("up-{sid}"),
            at: minute(0).plus(Span::from_millis(at)),
            offline,
        }),
        (0..6_000_i64, any::<bool>()).prop_map(|(at, offline)| Withdrawal::Sessions {
            at: minute(0).plus(Span::from_millis(at)),
            offline,
        }),
        Just(Withdrawal::Account),
    ]
}

/// Whether a log-in is one that the IdP has ended, told again in other words than the code's.
fn is_meant(what: &Withdrawal, login: Option<i64>, sid: Option<u8>) -> bool {
    let until = |at: &Timestamp| (at.millis() - minute(0).millis()) / 1000;
    let (at, named) = match what {
        Withdrawal::Account => return true,
        Withdrawal::Sessions { at, .. } => (at, true),
        Withdrawal::Session { sid: ended, at, .. } => (
            at,
            sid.is_none() || sid.map(|n| format!("up-{n}")).as_ref() == Some(ended),
        ),
    };
    named && (login.is_none() || login.unwrap_or_default() <= until(at))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    // Whatever the IdP ends, in any order and however often it is heard: what is meant is dead for good, what outlives
    // its session goes with it only when it is meant too, and nobody else notices.
    #[test]
    fn p16_what_the_idp_ends_is_dead_and_nothing_else_is(
        logins in prop::collection::vec(any_session(), 1..5), heard in prop::collection::vec(any_withdrawal(), 1..5)
    ) {
        let mut g = grants(logins.iter().enumerate().map(|(n, (login, sid))| Session {
            upstream_sid: sid.map(|n| format!("up-{n}")),
            auth_time: login.map(|at| minute(0).plus(Span::from_secs(at))),
            ..session(&n.to_string())
        }));
        for (round, what) in heard.iter().enumerate() {
            let first = g.withdraw(what, minute(1));
            let after = g.clone();
            prop_assert!(g.withdraw(what, minute(2)).iter().all(|id| first.contains(id)) , "heard again it ends no other");
            prop_assert_eq!(&after.families, &g.families);
            for (n, (login, sid)) in logins.iter().enumerate() {
                let id = n.to_string();
                let told = |offline: bool| heard[..=round].iter().any(|w| {
                    is_meant(w, *login, *sid) && (!offline || w.ends_offline())
                });
                prop_assert_eq!(g.session(&id).is_none(), told(false), "session {}", n);
                let online = family(&id, false);
                prop_assert_eq!(g.family(&online.id).is_none(), told(false));
                prop_assert_eq!(g.bearer(&online).is_none(), told(false));
                let offline = family(&id, true);
                prop_assert_eq!(g.family(&offline.id).is_none() || g.bearer(&offline).is_none(), told(true));
            }
        }
    }

    // State, roles and groups that were copied serve no longer than an access token lives; unknown is too long.
    #[test]
    fn p16_what_was_copied_from_the_idp_grows_old(age in -60_000..3_600_000_i64, life in 5_000..900_000_i64) {
        let copied = session("s");
        let now = minute(0).plus(Span::from_millis(age));
        let outdated = copied.is_outdated(now, Span::from_millis(life));
        prop_assert_eq!(outdated, age >= life || age < -SKEW.millis());
        let unknown = Session { facts_at: None, ..copied };
        prop_assert!(unknown.is_outdated(now, Span::from_millis(life)));
    }
}

/// Three replicas and the store they share. Each has a clock of its own, off by no more than is tolerated; the store's is
/// right.
#[derive(Clone, Copy, Debug)]
struct Replica(i64);

impl Replica {
    fn now(self, millis: i64) -> Now {
        let store = minute(0).plus(Span::from_millis(millis));
        Now::between(store.plus(Span::from_millis(self.0)), store)
    }
}

fn any_replica() -> impl Strategy<Value = Replica> {
    (-SKEW.millis()..=SKEW.millis()).prop_map(Replica)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    // `rotated`: written at one replica, compared at another. A lost answer is one for the grace by the store's clock,
    // whichever clocks stand wrong: an honest client is never taken for a thief, and a thief has no moment more.
    #[test]
    fn two_clocks_never_revoke_an_honest_family_nor_lengthen_its_grace(
        a in any_replica(), b in any_replica(), later in 0..30_000_i64, grace in 0..20_000_i64
    ) {
        let mut g = grants([session("s")]);
        let span = Span::from_millis(grace);
        let family = "s-false";
        prop_assert_eq!(g.rotate(family, "bank", 1, a.now(0).stamp(), span), Rotation::Moved(2));
        let again = g.rotate(family, "bank", 1, b.now(later).stamp(), span);
        prop_assert_eq!(again, if later < grace { Rotation::Again(2) } else { Rotation::Reused });
    }

    // A store whose clock was set back a little: what was rotated "in a moment" was rotated just now.
    #[test]
    fn a_clock_set_back_a_little_revokes_nobody(back in 0..=30_000_i64) {
        let mut g = grants([session("s")]);
        let grace = Span::from_secs(10);
        let now = minute(5);
        let _ = g.rotate("s-false", "bank", 1, now, grace);
        let earlier = now.minus(Span::from_millis(back));
        prop_assert_eq!(g.rotate("s-false", "bank", 1, earlier, grace), Rotation::Again(2));
    }

    // `began` and the cut's `at`: a session that was opened before a change was known never outlives it, and one opened
    // afterwards always does, whichever replica did either.
    #[test]
    fn two_clocks_never_save_a_session_of_before_nor_end_one_of_afterwards(
        a in any_replica(), b in any_replica(), opened in 1..60_000_i64, changed in 1..60_000_i64
    ) {
        prop_assume!(opened != changed);
        let mut world = World::new(0);
        let reset = change("r", ChangeKind::PasswordReset, b.now(changed).stamp());
        world.hear(&reset, None, b.now(changed)).unwrap();
        let record = world.record.unwrap();
        prop_assert_eq!(record.session_lives(a.now(opened).stamp(), None), opened > changed);
    }

    // `expires` of codes and families, `facts_at`: whoever compares, nothing lasts longer than by the store's clock.
    #[test]
    fn two_clocks_never_lengthen_what_ends(a in any_replica(), b in any_replica(), later in 0..200_000_i64) {
        let life = Span::from_secs(60);
        let expires = a.now(0).stamp().plus(life);
        let over = later >= life.millis();
        let mut g = grants([session("s")]);
        g.codes.push(Code {
            id: "c".to_owned(),
            client: "bank".to_owned(),
            redirect_uri: "https://bank.example/cb".to_owned(),
            challenge: None,
            nonce: None,
            scopes: BTreeSet::new(),
            session: "s".to_owned(),
            offline: false,
            acr: None,
            expires,
            used: None,
        });
        g.families[0].expires = expires;
        let now = b.now(later);
        let used = g.redeem("c", "bank", "https://bank.example/cb", "f", now.latest());
        prop_assert!(!(over && used.is_ok()));
        let moved = g.rotate("s-false", "bank", 1, now.latest(), Span::ZERO);
        prop_assert!(!(over && moved != Rotation::Invalid));
        let copied = Session { facts_at: Some(a.now(0).stamp()), ..session("s") };
        prop_assert_eq!(copied.is_outdated(now.stamp(), life), over);
    }
}

// Who is beyond the bounds: what has ended goes first, then the oldest that nothing outlives, and it is said.
#[test]
fn what_leaves_for_want_of_room_is_the_least_worth_and_is_named() {
    let all = (0..=MAX_SESSIONS).map(|n| session(&format!("{n:02}")));
    let mut g = grants(all);
    g.families.retain(|f| !f.offline || f.session == "00");
    g.end_session("05", minute(1));
    assert_eq!(
        g.prune(minute(1), Span::from_hours(12)).sessions,
        Vec::new(),
        "one had ended"
    );
    g.sessions.push(session("99"));
    let displaced = g.prune(minute(1), Span::from_hours(12));
    let names: Vec<&str> = displaced.sessions.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(names, ["01"], "the oldest has a family that outlives it");
    assert!(g.family("01-false").is_none() && g.family("00-true").is_some());

    let mut g = grants([session("s")]);
    g.families = (0..=MAX_FAMILIES)
        .map(|n| Family {
            id: format!("f{n:03}"),
            ..family("s", n == 0)
        })
        .collect();
    let displaced = g.prune(minute(1), Span::from_hours(12));
    let names: Vec<&str> = displaced.families.iter().map(|f| f.id.as_str()).collect();
    assert_eq!(names, ["f001"], "one that ends with its session");
}
