use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::oidc::verify::{Expected, Refusal, verify};

struct Fixed(AtomicI64);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.0.load(Ordering::Relaxed))
    }
}

const START: i64 = 1_800_000_000;

fn clock() -> Arc<Fixed> {
    Arc::new(Fixed(AtomicI64::new(START)))
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn three(directory: &Path) -> KeyRing {
    for algorithm in ALGORITHMS {
        create(directory, algorithm, false, at(START)).unwrap();
    }
    KeyRing::load(directory, clock()).unwrap()
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": ["bank", "other"], "exp": START + 300, "sub": "alice", "recovery_scope": "full"})
}

fn expected() -> Expected<'static> {
    Expected {
        issuer: "https://id.example",
        audience: Some("bank"),
        typ: "at+jwt",
        expired: false,
    }
}

async fn token(ring: &KeyRing, algorithm: Algorithm, claims: &Value) -> String {
    ring.sign(algorithm, "at+jwt", claims.to_string().as_bytes())
        .await
        .unwrap()
}

/// The same token with another header or payload, and the old signature.
fn forged(token: &str, part: usize, text: &str) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[part] = URL_SAFE_NO_PAD.encode(text);
    parts.join(".")
}

#[tokio::test]
async fn every_algorithm_signs_what_we_verify() {
    let directory = tempfile::tempdir().unwrap();
    let ring = three(directory.path());
    assert_eq!(ring.algorithms(), ALGORITHMS);
    for algorithm in ALGORITHMS {
        let token = token(&ring, algorithm, &claims()).await;
        let verified = verify(&ring, &token, &expected(), at(START)).unwrap();
        assert_eq!(verified.algorithm, algorithm);
        assert_eq!(verified.text("sub"), Some("alice"));
        assert_eq!(verified.number("exp"), Some(START + 300));
    }
}

#[test]
fn the_jwk_set_has_all_three_types_and_no_private_member() {
    let directory = tempfile::tempdir().unwrap();
    let set: Value = serde_json::from_str(&three(directory.path()).jwks()).unwrap();
    let mut kinds: Vec<String> = Vec::new();
    for key in set["keys"].as_array().unwrap() {
        kinds.push(format!(
            "{} {} {}",
            key["kty"].as_str().unwrap(),
            key["alg"].as_str().unwrap(),
            key["use"].as_str().unwrap()
        ));
        for secret in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key.get(secret).is_none(), "{secret} is published");
        }
    }
    kinds.sort();
    assert_eq!(kinds, ["EC ES256 sig", "OKP EdDSA sig", "RSA RS256 sig"]);
}

// RFC 7638 §3.1: the thumbprint of the example key.
#[test]
fn the_kid_is_the_thumbprint_of_rfc_7638() {
    let jwk: Jwk = serde_json::from_value(json!({
        "kty": "RSA", "e": "AQAB", "alg": "RS256",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    }))
    .unwrap();
    let public = DecodingKey::from_jwk(&jwk).unwrap();
    let (_, kid) = published(&public, Algorithm::Rs256).unwrap();
    assert_eq!(kid, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[tokio::test]
async fn a_token_is_refused_for_each_fault() {
    let directory = tempfile::tempdir().unwrap();
    let ring = three(directory.path());
    let good = token(&ring, Algorithm::Es256, &claims()).await;
    let refused =
        |token: &str, expected: &Expected<'_>, now: i64| verify(&ring, token, expected, at(now)).unwrap_err();
    assert_eq!(refused(&good, &expected(), START + 300), Refusal::Expired);
    let other_issuer = Expected {
        issuer: "https://evil.example",
        ..expected()
    };
    assert_eq!(refused(&good, &other_issuer, START), Refusal::Claims);
    let other_audience = Expected {
        audience: Some("shop"),
        ..expected()
    };
    assert_eq!(refused(&good, &other_audience, START), Refusal::Claims);
    let id_token = Expected {
        typ: "JWT",
        ..expected()
    };
    assert_eq!(refused(&good, &id_token, START), Refusal::Kind);
    assert_eq!(refused("a.b", &expected(), START), Refusal::Malformed);
    let long = format!("{good}{}", "A".repeat(20_000));
    assert_eq!(refused(&long, &expected(), START), Refusal::Malformed);
    let changed = claims().to_string().replace("alice", "mallory");
    assert_eq!(
        refused(&forged(&good, 1, &changed), &expected(), START),
        Refusal::Signature
    );
}

#[tokio::test]
async fn a_claim_that_must_be_there_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let ring = three(directory.path());
    for claim in ["exp", "iss", "aud"] {
        let mut without = claims();
        without.as_object_mut().unwrap().remove(claim);
        let token = token(&ring, Algorithm::EdDsa, &without).await;
        let any = Expected {
            audience: None,
            ..expected()
        };
        assert_eq!(
            verify(&ring, &token, &any, at(START)).unwrap_err(),
            Refusal::Claims,
            "without {claim}"
        );
    }
}

#[tokio::test]
async fn the_key_says_the_algorithm_never_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let ring = three(directory.path());
    let good = token(&ring, Algorithm::Rs256, &claims()).await;
    let kid = ring
        .keys()
        .iter()
        .find(|k| k.algorithm == Algorithm::Rs256)
        .unwrap()
        .kid
        .clone();
    for alg in ["none", "HS256", "ES256", "RS512"] {
        let header = json!({"alg": alg, "typ": "at+jwt", "kid": kid}).to_string();
        assert_eq!(
            verify(&ring, &forged(&good, 0, &header), &expected(), at(START)).unwrap_err(),
            Refusal::Signature,
            "{alg}"
        );
    }
    let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": "stranger"}).to_string();
    assert_eq!(
        verify(&ring, &forged(&good, 0, &header), &expected(), at(START)).unwrap_err(),
        Refusal::UnknownKey
    );
    let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": kid, "crit": ["exp"]}).to_string();
    assert_eq!(
        verify(&ring, &forged(&good, 0, &header), &expected(), at(START)).unwrap_err(),
        Refusal::Malformed
    );
}

#[tokio::test]
async fn a_member_that_is_there_twice_is_refused_at_any_depth() {
    let directory = tempfile::tempdir().unwrap();
    let ring = three(directory.path());
    let base = claims().to_string();
    for extra in [
        r#","recovery_scope":"full"}"#,
        r#","act":{"sub":"a","sub":"b"}}"#,
        r#","list":[{"x":1,"x":2}]}"#,
    ] {
        let text = format!("{}{extra}", base.trim_end_matches('}'));
        let token = ring
            .sign(Algorithm::Es256, "at+jwt", text.as_bytes())
            .await
            .unwrap();
        assert_eq!(
            verify(&ring, &token, &expected(), at(START)).unwrap_err(),
            Refusal::Malformed,
            "{extra}"
        );
    }
}

#[tokio::test]
async fn an_expired_id_token_is_still_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let ring = three(directory.path());
    let hint = ring
        .sign(Algorithm::Rs256, "JWT", claims().to_string().as_bytes())
        .await
        .unwrap();
    let wanted = Expected {
        typ: "JWT",
        expired: true,
        ..expected()
    };
    assert!(verify(&ring, &hint, &wanted, at(START + 86_400)).is_ok());
}

// A key is published before it signs; a retired one verifies until what it signed is over.
#[tokio::test]
async fn keys_rotate_without_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let time = clock();
    three(directory.path());
    let ring = KeyRing::load(directory.path(), Arc::clone(&time) as Arc<dyn Clock>).unwrap();
    let old = token(&ring, Algorithm::Es256, &claims()).await;
    let old_kid = verify(&ring, &old, &expected(), at(START)).unwrap().kid;

    let new = create(directory.path(), Algorithm::Es256, false, at(START)).unwrap();
    assert_eq!(new.active_from, at(START).plus(PUBLISH_AHEAD));
    ring.reload().unwrap();
    assert!(ring.jwks().contains(&new.kid), "published at once");
    let meanwhile = token(&ring, Algorithm::Es256, &claims()).await;
    let kid = verify(&ring, &meanwhile, &expected(), at(START)).unwrap().kid;
    assert_eq!(kid, old_kid, "but signs later");

    time.0.store(START + 3_600, Ordering::Relaxed);
    let later = json!({"iss": "https://id.example", "aud": "bank", "exp": START + 4_000});
    let after = token(&ring, Algorithm::Es256, &later).await;
    let kid = verify(&ring, &after, &expected(), at(START + 3_600)).unwrap().kid;
    assert_eq!(kid, new.kid);

    retire(directory.path(), &old_kid, at(START + 3_600)).unwrap();
    ring.reload().unwrap();
    assert!(verify(&ring, &old, &expected(), at(START)).is_ok());
    time.0
        .store(START + 3_600 + KEEP_RETIRED.secs(), Ordering::Relaxed);
    assert!(!ring.jwks().contains(&old_kid));
    assert_eq!(
        verify(&ring, &old, &expected(), at(START)).unwrap_err(),
        Refusal::UnknownKey
    );
}

#[test]
fn the_last_rs256_key_is_not_retired() {
    let directory = tempfile::tempdir().unwrap();
    let ring = three(directory.path());
    let kid = ring
        .keys()
        .iter()
        .find(|k| k.algorithm == Algorithm::Rs256)
        .unwrap()
        .kid
        .clone();
    assert!(matches!(
        retire(directory.path(), &kid, at(START)),
        Err(KeyFault::Missing("RS256"))
    ));
}

#[test]
fn private_files_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let rsa = create(directory.path(), Algorithm::Rs256, false, at(START)).unwrap();
    create(directory.path(), Algorithm::Es256, false, at(START)).unwrap();
    let path = directory.path().join(format!("{}.json", rsa.kid));
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = KeyRing::load(directory.path(), clock()).unwrap_err();
    assert!(matches!(
        refused,
        KeyFault::Exposed(PrivateFault::Exposed { mode: 0o644, .. })
    ));
    assert!(refused.to_string().contains("chmod 600"));
}

#[test]
fn a_ring_without_rs256_is_refused_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path(), Algorithm::Es256, false, at(START)).unwrap();
    let refused = KeyRing::load(directory.path(), clock()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "there is no current RS256 key; make one with `reentry keys create --algorithm RS256`"
    );
}

#[test]
fn a_damaged_key_file_is_refused_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    three(directory.path());
    let path = directory.path().join("damaged.json");
    fs::write(&path, "{").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = KeyRing::load(directory.path(), clock()).unwrap_err();
    assert!(refused.to_string().contains("damaged.json"));
}
