//! The relying party's checker against the published vectors, against a second reading of the grammar, and
//! against each rule of contract section 2.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use reentry::domain::ceiling::{Ceiling, Class};
use reentry::domain::time::Timestamp;
use reentry::rp::profile::Profile;
use reentry::rp::{Checker, Config, Decision, Missing, json::object};
use serde_json::{Map, Value, json};

const ISSUER: &str = "https://id.example.com";

fn config() -> Config {
    Config {
        protected: [(ISSUER.to_owned(), Profile::Reentry)].into(),
        unprotected: ["https://other.example.com".to_owned()].into(),
        info: Some("https://id.example.com/account".to_owned()),
        ..Config::default()
    }
}

fn checker() -> Checker {
    Checker::new(config())
}

fn members(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Claims of a valid token of the protected issuer with these members on top.
fn token(extra: &Value) -> Map<String, Value> {
    let mut claims = members(&json!({"iss": ISSUER, "sub": "u1"}));
    claims.extend(members(extra));
    claims
}

fn class(word: &str) -> Class {
    Class::parse(word).unwrap()
}

/// "full", or the sorted words.
fn shown(ceiling: &Ceiling) -> Value {
    match ceiling {
        Ceiling::Full => json!("full"),
        Ceiling::Only(classes) => classes.iter().map(|c| json!(c.as_str())).collect(),
    }
}

#[test]
fn all_39_vectors() {
    let text = include_str!("vectors/recovery_scope.json");
    let file: Value = serde_json::from_str(text).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 39);
    for vector in vectors {
        let name = vector["name"].as_str().unwrap();
        let effective = checker().effective(&members(&vector["claims"]));
        assert_eq!(shown(&effective), vector["effective"], "{name}");
        // As text through the strict reader the answer is the same.
        let read = object(vector["claims"].to_string().as_bytes()).unwrap();
        assert_eq!(checker().effective(&read), effective, "{name}");
    }
}

// ---- A second reading of the grammar, written from the ABNF alone: one pass over octets, no splitting. ----

/// `Some(words)` when `value` is `( action *15( SP action ) )` of at most 128 octets without duplicates and
/// without the reserved words.
fn second_reading(value: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let mut words: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut word: Vec<u8> = Vec::new();
    let mut octets = 0;
    for octet in value.iter().copied().chain([b' ']) {
        octets += 1;
        match octet {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => word.push(octet),
            b' ' => {
                let reserved = word == b"full" || word == b"none";
                if word.is_empty() || word.len() > 32 || reserved || !words.insert(std::mem::take(&mut word))
                {
                    return None;
                }
            }
            _ => return None,
        }
    }
    (octets <= 129 && words.len() <= 16).then_some(words)
}

/// What the second reading makes of a claim, as "full" or sorted words.
fn second_effective(claim: Option<&Value>, scope: Option<&Value>) -> Value {
    let mut sets: Vec<Option<BTreeSet<Vec<u8>>>> = Vec::new();
    match claim {
        Some(Value::String(s)) if s == "full" => sets.push(None),
        Some(Value::String(s)) => sets.push(Some(second_reading(s.as_bytes()).unwrap_or_default())),
        _ => sets.push(Some(BTreeSet::new())),
    }
    match scope {
        None => {}
        Some(Value::String(words)) => {
            for word in words.split(' ').filter(|w| w.starts_with("reentry-hold.")) {
                let level: Vec<u8> = word.bytes().skip("reentry-hold.".len()).collect();
                let spaced: Vec<u8> = level.iter().map(|b| if *b == b'.' { b' ' } else { *b }).collect();
                let bad = level.contains(&b' ');
                sets.push(Some(second_reading(&spaced).filter(|_| !bad).unwrap_or_default()));
            }
        }
        Some(_) => sets.push(Some(BTreeSet::new())),
    }
    let mut all: Option<BTreeSet<Vec<u8>>> = None;
    for set in sets.into_iter().flatten() {
        all = Some(match all {
            None => set,
            Some(known) => known.into_iter().filter(|w| set.contains(w)).collect(),
        });
    }
    all.map_or(json!("full"), |words| {
        words
            .into_iter()
            .map(|w| json!(String::from_utf8(w).unwrap()))
            .collect()
    })
}

/// Values near the grammar's edges: words, separators and reserved words in any mixture.
fn near_claim() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        6 => "[a-z0-9_-]{1,8}",
        2 => prop::sample::select(vec!["read", "write", "pay", "full", "none", "x_", "FULL", "réad"]).prop_map(str::to_owned),
        1 => "[a-z]{31,34}",
        1 => "\\PC{0,3}",
    ];
    let gap = prop_oneof![12 => Just(" "), 1 => Just("  "), 1 => Just("\t"), 1 => Just(","), 1 => Just(".")];
    (prop::collection::vec((word, gap), 0..19), any::<bool>()).prop_map(|(parts, trailing)| {
        let mut text: String = parts.iter().flat_map(|(w, g)| [w.as_str(), g]).collect();
        if !trailing && let Some((_, gap)) = parts.last() {
            text.truncate(text.len() - gap.len());
        }
        text
    })
}

fn near_scope() -> impl Strategy<Value = Option<Value>> {
    let level = prop_oneof![
        Just("read.write".to_owned()),
        Just("read".to_owned()),
        Just("none".to_owned()),
        Just("full".to_owned()),
        "[a-z.]{0,10}",
    ];
    let word = prop_oneof![
        3 => "[a-z:]{1,9}",
        2 => level.prop_map(|l| format!("reentry-hold.{l}")),
        1 => Just("reentry-hold".to_owned()),
    ];
    prop_oneof![
        2 => Just(None),
        6 => prop::collection::vec(word, 0..5).prop_map(|w| Some(json!(w.join(" ")))),
        1 => Just(Some(json!(["openid"]))),
        1 => Just(Some(Value::Null)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_checker_agrees_with_a_second_reading(claim in near_claim(), scope in near_scope()) {
        let mut claims = members(&json!({ "recovery_scope": claim }));
        if let Some(scope) = &scope {
            claims.insert("scope".to_owned(), scope.clone());
        }
        let expected = second_effective(claims.get("recovery_scope"), scope.as_ref());
        prop_assert_eq!(shown(&checker().effective(&claims)), expected, "{:?}", claims);
    }

    #[test]
    fn any_text_at_all_agrees_too(claim in "\\PC*", scope in prop::option::of("\\PC*")) {
        let mut claims = members(&json!({ "recovery_scope": claim }));
        claims.extend(scope.iter().map(|s| ("scope".to_owned(), json!(s))));
        // Where the two differ on odd white space in `scope`, the checker may only be stricter.
        let ours = checker().effective(&claims);
        let theirs = second_effective(claims.get("recovery_scope"), claims.get("scope"));
        prop_assert!(shown(&ours) == theirs || ours.is_none(), "{:?}", claims);
    }

    #[test]
    fn what_is_written_is_read_back(words in prop::collection::btree_set("[a-z0-9_-]{1,7}", 0..16)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ceiling = Ceiling::of(&words);
        prop_assert_eq!(Ceiling::parse(&ceiling.to_string()), Some(ceiling.clone()));
        let level = ceiling.level();
        prop_assert_eq!(Ceiling::parse_level(&level), ceiling);
    }
}

// ---- Rule by rule ----

// rule 2: which issuers are protected is the relying party's own word.
#[test]
fn a_token_of_an_issuer_that_is_not_pinned_is_rejected() {
    let header = members(&json!({"typ": "at+jwt"}));
    let mut claims = token(&json!({"recovery_scope": "full"}));
    assert!(checker().admit(&header, &claims));
    for iss in [
        json!("https://id.example.com/"),
        json!("evil"),
        json!(null),
        json!([ISSUER]),
    ] {
        claims.insert("iss".to_owned(), iss);
        assert!(!checker().admit(&header, &claims));
        assert!(matches!(
            checker().check(&claims, Some(&class("read")), None),
            Decision::Reject(_)
        ));
    }
    claims.remove("iss");
    assert!(!checker().admit(&header, &claims));
}

#[test]
fn an_unprotected_issuer_is_trusted_without_the_claim_but_only_when_it_is_configured() {
    let claims = members(&json!({"iss": "https://other.example.com", "scope": "pay"}));
    assert!(checker().admit(&Map::new(), &claims));
    assert_eq!(
        checker().check(&claims, Some(&class("pay")), Some("pay")),
        Decision::Allow
    );
    assert!(!checker().admit(&members(&json!({"crit": ["x"]})), &claims));
}

// rule 4: two names of the claim have to say the same.
#[test]
fn an_alias_is_believed_only_when_configured_and_never_against_the_claim() {
    let alias = "https://example.com/recovery_scope";
    let with = Checker::new(Config {
        alias: Some(alias.to_owned()),
        ..config()
    });
    let says = |own: Option<Value>, other: Option<Value>| {
        let mut claims = token(&json!({}));
        claims.extend(own.map(|v| ("recovery_scope".to_owned(), v)));
        claims.extend(other.map(|v| (alias.to_owned(), v)));
        with.effective(&claims).to_string()
    };
    assert_eq!(says(None, Some(json!("read write"))), "read write");
    assert_eq!(says(Some(json!("full")), Some(json!("full"))), "full");
    assert_eq!(says(Some(json!("full")), Some(json!("read"))), "none");
    assert_eq!(says(Some(json!("read write")), Some(json!("write read"))), "none");
    assert_eq!(says(Some(json!("full")), Some(Value::Null)), "none");
    assert_eq!(says(Some(json!("full")), None), "full");
}

// rule 3 and the roll-out switch: absence is `none`, or `read` while switching over; a damaged claim never is.
#[test]
fn the_roll_out_switch_is_for_absence_alone() {
    let lenient = Checker::new(Config {
        missing: Missing::Read,
        ..config()
    });
    let says = |claims: &Value| lenient.effective(&token(claims)).to_string();
    assert_eq!(says(&json!({})), "read");
    assert_eq!(says(&json!({"scope": "reentry-hold.write"})), "none");
    for broken in [
        json!(null),
        json!(""),
        json!("read,write"),
        json!(["full"]),
        json!(1),
    ] {
        assert_eq!(says(&json!({"recovery_scope": broken})), "none");
    }
}

// rule 5: odd white space does not hide a ceiling.
#[test]
fn a_hold_behind_a_tab_still_counts() {
    let claims = token(&json!({"recovery_scope": "full", "scope": "openid\treentry-hold.read"}));
    assert_eq!(checker().effective(&claims).to_string(), "read");
}

// rule 6: an endpoint without a class needs full; a word nobody asks for grants nothing.
#[test]
fn an_endpoint_gets_what_its_class_needs() {
    let full = token(&json!({"recovery_scope": "full"}));
    let held = token(&json!({"recovery_scope": "read teleport"}));
    assert_eq!(checker().check(&full, None, None), Decision::Allow);
    assert!(matches!(checker().check(&held, None, None), Decision::Hold(_)));
    assert_eq!(
        checker().check(&held, Some(&class("read")), None),
        Decision::Allow
    );
    assert!(matches!(
        checker().check(&held, Some(&class("write")), None),
        Decision::Hold(_)
    ));
}

// rule 7: the ordinary check still applies, and a ceiling is never a grant.
#[test]
fn the_ordinary_scope_is_still_needed() {
    let claims = token(&json!({"recovery_scope": "full", "scope": "openid payments:writeall"}));
    let decision = checker().check(&claims, Some(&class("pay")), Some("payments:write"));
    let expected = r#"Bearer error="insufficient_scope", scope="payments:write""#;
    assert_eq!(decision, Decision::Scope(expected.to_owned()));
}

// rule 8: a step-up is asked for only when it would help.
#[test]
fn a_class_that_a_step_up_lifts_is_a_401_with_all_three() {
    let claims = token(&json!({"recovery_scope": "read", "recovery_lift": "write pay"}));
    let Decision::StepUp(challenge) = checker().check(&claims, Some(&class("pay")), Some("payments:write"))
    else {
        panic!("no step-up");
    };
    assert_eq!(
        challenge,
        "Bearer error=\"insufficient_user_authentication\", acr_values=\"urn:reentry:acr:eligible\", \
         max_age=\"300\", scope=\"payments:write\""
    );
}

#[test]
fn a_step_up_is_never_offered_where_it_cannot_help() {
    let keycloak = Checker::new(Config {
        protected: [(ISSUER.to_owned(), Profile::Keycloak)].into(),
        ..config()
    });
    let pay = class("pay");
    let lifted = token(&json!({"recovery_scope": "read", "recovery_lift": "pay"}));
    assert!(matches!(
        keycloak.check(&lifted, Some(&pay), None),
        Decision::Hold(_)
    ));
    for claims in [
        json!({"recovery_scope": "read", "recovery_lift": "write"}),
        json!({"recovery_scope": "read", "recovery_lift": "full"}),
        json!({"recovery_scope": "read", "recovery_lift": ["pay"]}),
        json!({"recovery_scope": "read", "recovery_lift": "pay pay"}),
        json!({"recovery_scope": "READ", "recovery_lift": "pay"}),
        json!({"recovery_lift": "pay"}),
    ] {
        let decision = checker().check(&token(&claims), Some(&pay), None);
        assert!(matches!(decision, Decision::Hold(_)), "{claims}");
    }
}

// rule 8: the other denial says until when, about what, and where to read on.
#[test]
fn a_hold_is_a_403_with_its_problem_document() {
    for until in [json!(1_900_000_000), json!("1900000000")] {
        let claims = token(
            &json!({"recovery_scope": "read write", "recovery_until": until, "recovery_ref": "case-1", "scope": "openid"}),
        );
        // The reduced token lacks the scope as well: the hold is the answer, so that nobody asks for consent again.
        let decision = checker().check(&claims, Some(&class("pay")), Some("payments:write"));
        let Decision::Hold(hold) = decision else {
            panic!("{decision:?}")
        };
        let expected = json!({
            "type": "urn:reentry:problem:recovery-hold",
            "title": "This account is limited after a recovery",
            "status": 403,
            "recovery_scope": "read write",
            "recovery_until": 1_900_000_000,
            "recovery_ref": "case-1",
            "recovery_info": "https://id.example.com/account",
        });
        assert_eq!(hold.problem(), expected);
        assert_eq!(hold.retry_after(Timestamp::from_secs(1_900_000_000 - 60)), 60);
        assert_eq!(hold.retry_after(Timestamp::from_secs(1_900_000_001)), 1);
    }
    let Decision::Hold(bare) = checker().check(&token(&json!({"recovery_scope": "none"})), None, None) else {
        panic!("no hold");
    };
    assert_eq!(bare.retry_after(Timestamp::from_secs(0)), 300);
    assert_eq!(bare.problem()["recovery_until"], Value::Null);
}

// A header cannot be split or broken out of by what goes into a challenge.
#[test]
fn a_challenge_carries_nothing_but_its_parameters() {
    let claims = token(&json!({"recovery_scope": "full"}));
    let decision = checker().check(&claims, None, Some("a\", x=\"b\r\n"));
    assert_eq!(
        decision,
        Decision::Scope("Bearer error=\"insufficient_scope\"".to_owned())
    );
}
