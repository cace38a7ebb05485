//! Codes and refresh families: single use, rotation, reuse, the lost reply (row B-broker; P12 for codes).

use std::collections::BTreeSet;

use proptest::prelude::*;
use reentry::domain::session::{Code, CodeRefusal, Family, Grants, MAX_DENIED, Rotation};
use reentry::domain::time::Span;

use crate::world::{hour, minute, words};

const GRACE: Span = Span::from_secs(10);

fn code(id: &str) -> Code {
    Code {
        id: id.to_owned(),
        client: "c1".to_owned(),
        redirect_uri: "https://rp/cb".to_owned(),
        challenge: None,
        nonce: None,
        scopes: BTreeSet::new(),
        session: "s1".to_owned(),
        offline: false,
        acr: None,
        expires: minute(1),
        used: None,
    }
}

fn family(id: &str) -> Family {
    Family {
        id: id.to_owned(),
        client: "c1".to_owned(),
        session: "s1".to_owned(),
        scopes: words(&["openid", "pay"]),
        began: minute(0),
        expires: hour(12),
        offline: false,
        nonce: None,
        generation: 1,
        rotated: minute(0),
        revoked: None,
        denied: Vec::new(),
    }
}

fn grants() -> Grants {
    Grants {
        codes: vec![code("a")],
        families: vec![family("f")],
        ..Grants::default()
    }
}

#[test]
fn a_code_works_once_and_a_second_use_revokes_what_the_first_gave() {
    let mut g = grants();
    let now = minute(0);
    assert_eq!(
        g.redeem("b", "c1", "https://rp/cb", "f", now).unwrap_err(),
        CodeRefusal::Invalid
    );
    assert_eq!(
        g.redeem("a", "c2", "https://rp/cb", "f", now).unwrap_err(),
        CodeRefusal::Invalid
    );
    assert_eq!(
        g.redeem("a", "c1", "https://rp/cb/", "f", now).unwrap_err(),
        CodeRefusal::Invalid
    );
    assert_eq!(
        g.redeem("a", "c1", "https://rp/cb", "f", minute(1)).unwrap_err(),
        CodeRefusal::Invalid
    );
    assert!(g.redeem("a", "c1", "https://rp/cb", "f", now).is_ok());
    assert!(g.family("f").is_some());
    assert_eq!(
        g.redeem("a", "c1", "https://rp/cb", "g", now).unwrap_err(),
        CodeRefusal::Replayed
    );
    assert!(g.family("f").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    // A family's tokens used in any order: only the newest moves it; the one before gives the same successor for 10 s
    // to the same client; anything older revokes the family, for good.
    #[test]
    fn a_family_moves_only_by_its_newest_token(uses in prop::collection::vec((0..7_i64, 0..6_u32, prop::bool::weighted(0.9)), 1..20)) {
        let mut g = grants();
        let (mut newest, mut moved, mut dead, mut clock) = (1_u32, minute(0), false, minute(0));
        for (pause, back, ours) in uses {
            clock = clock.plus(Span::from_secs(pause));
            let generation = newest.saturating_sub(back);
            let answer = g.rotate("f", if ours { "c1" } else { "c2" }, generation, clock, GRACE);
            if dead || !ours {
                prop_assert_eq!(answer, Rotation::Invalid);
            } else if back == 0 {
                newest += 1;
                moved = clock;
                prop_assert_eq!(answer, Rotation::Moved(newest));
            } else if generation + 1 == newest && clock < moved.plus(Span::from_secs(10)) {
                prop_assert_eq!(answer, Rotation::Again(newest));
            } else {
                prop_assert_eq!(answer, Rotation::Reused);
                dead = true;
            }
            prop_assert_eq!(g.family("f").is_none(), dead);
        }
    }
}

#[test]
fn a_token_from_the_future_or_of_a_family_that_is_over_moves_nothing() {
    let mut g = grants();
    assert_eq!(g.rotate("f", "c1", 9, minute(0), GRACE), Rotation::Reused);
    let mut g = grants();
    assert_eq!(g.rotate("f", "c1", 1, hour(12), GRACE), Rotation::Invalid);
    assert_eq!(g.rotate("x", "c1", 1, hour(1), GRACE), Rotation::Invalid);
    g.end_session("s1", hour(1));
    assert_eq!(g.rotate("f", "c1", 1, hour(1), GRACE), Rotation::Invalid);
}

#[test]
fn denying_token_after_token_ends_in_denying_the_family() {
    let mut g = grants();
    for n in 0..MAX_DENIED {
        g.deny_token("f", &format!("f.{n}"), hour(1));
        g.deny_token("f", &format!("f.{n}"), hour(1));
    }
    assert_eq!(g.family("f").unwrap().denied.len(), MAX_DENIED);
    g.deny_token("f", "f.more", hour(1));
    assert!(g.family("f").is_none());
}

#[test]
fn what_is_over_is_dropped_and_what_is_used_is_remembered() {
    let mut g = grants();
    g.redeem("a", "c1", "https://rp/cb", "f", minute(0)).unwrap();
    let _ = g.prune(minute(10), Span::from_hours(12));
    assert_eq!(
        g.codes.len(),
        1,
        "a used code is remembered for ten minutes after its end"
    );
    g.prune(minute(11), Span::from_hours(12));
    assert!(g.codes.is_empty() && g.families.len() == 1);
    g.prune(hour(12), Span::from_hours(12));
    assert!(g.families.is_empty());
}
