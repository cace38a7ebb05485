//! Tokens that were never issued, ours and the IdP's, and an IdP whose keys are gone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reentry::oidc::upstream::Freshness;
use reentry::ports::signer::{Algorithm, Signer as _};
use serde_json::{Value, json};

use crate::forge::{Keys, hmac, unsigned};
use crate::house::{House, header, payload};
use crate::op::{Forge, Word};
use crate::rp::{Browser, authorize_url, code, introspect, log_in, post, refresh, text, tokens, userinfo};

/// Our access token taken apart and put together in ways that must not work.
fn forged(house: &House, good: &str) -> Vec<(&'static str, String)> {
    let keys = Keys::of("ours");
    let claims = payload(good);
    let real = header(good);
    let (rsa, ec) = (keys.kid(Algorithm::Rs256), keys.kid(Algorithm::Es256));
    let head = |alg: &str, kid: &str| json!({"typ": "at+jwt", "alg": alg, "kid": kid});
    let set: Value = serde_json::from_str(&house.context.broker.keys.jwks()).unwrap();
    let published = set["keys"].as_array().unwrap();
    let jwk = |kid: &str| published.iter().find(|k| k["kid"] == kid).unwrap().clone();
    let crit = |name: &str| {
        let mut header = real.clone();
        header["crit"] = json!([name]);
        header[name] = json!(false);
        header
    };
    let mut all = vec![
        (
            "another's key under our name",
            Keys::of("stranger").sign(Algorithm::Es256, &real, &claims),
        ),
        (
            "an EC signature under the RSA key",
            keys.sign(Algorithm::Es256, &head("ES256", &rsa), &claims),
        ),
        (
            "an EC signature that says RS256",
            keys.sign(Algorithm::Es256, &head("RS256", &rsa), &claims),
        ),
        (
            "an RSA signature under the EC key",
            keys.sign(Algorithm::Rs256, &head("RS256", &ec), &claims),
        ),
        (
            "PS256 by a key that is for RS256",
            keys.sign(Algorithm::Rs256, &head("PS256", &rsa), &claims),
        ),
        (
            "HS256 with the RSA key",
            hmac(&head("HS256", &rsa), &claims, text(&jwk(&rsa), "n").as_bytes()),
        ),
        (
            "HS256 with the EC key",
            hmac(&head("HS256", &ec), &claims, text(&jwk(&ec), "x").as_bytes()),
        ),
        (
            "HS256 with the whole JWK",
            hmac(&head("HS256", &rsa), &claims, jwk(&rsa).to_string().as_bytes()),
        ),
        (
            "an unknown crit",
            keys.sign(Algorithm::Es256, &crit("urn:example:new"), &claims),
        ),
        (
            "a crit that others know",
            keys.sign(Algorithm::Es256, &crit("b64"), &claims),
        ),
        ("a key in the header", {
            let mut header = head("ES256", "mine");
            header["jwk"] = Keys::of("stranger").set()["keys"][0].clone();
            Keys::of("stranger").sign(Algorithm::Es256, &header, &claims)
        }),
        (
            "no kid",
            keys.sign(
                Algorithm::Es256,
                &json!({"typ": "at+jwt", "alg": "ES256"}),
                &claims,
            ),
        ),
        (
            "no typ",
            keys.sign(Algorithm::Es256, &json!({"alg": "ES256", "kid": ec}), &claims),
        ),
    ];
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        all.push((
            "alg: none",
            unsigned(&json!({"typ": "at+jwt", "alg": alg}), &claims),
        ));
        all.push(("alg: none with our kid", unsigned(&head(alg, &ec), &claims)));
    }
    all
}

#[tokio::test]
async fn alg_none_a_swapped_key_type_and_an_unknown_crit_are_refused_everywhere() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let good = text(&first, "access_token");
    for (what, bad) in forged(&house, good) {
        assert_eq!(userinfo(&house, &bad).await.status, 401, "{what}");
        assert_eq!(
            introspect(&house, &bad).await.json(),
            json!({"active": false}),
            "{what}"
        );
        assert_eq!(
            post(&house, "/revoke", &[("token", &bad)]).await.status,
            200,
            "{what}"
        );
        let hinted = log_in(&house, &mut Browser::default(), &[("id_token_hint", &bad)]).await;
        assert_eq!(hinted.error(), "invalid_request", "{what}");
    }
    // The same hand makes a good one: it is the forgery that is refused, not the tool.
    let again = Keys::of("ours").sign(Algorithm::Es256, &header(good), &payload(good));
    assert_eq!(userinfo(&house, &again).await.status, 200);
    assert_eq!(introspect(&house, good).await.json()["active"], true);
}

#[tokio::test]
async fn an_id_token_of_the_idp_that_is_forged_logs_nobody_in() {
    let house = House::new().await;
    for forge in [
        Forge::None,
        Forge::SharedSecret,
        Forge::PublicKey,
        Forge::SwappedKey,
        Forge::Crit,
        Forge::Issuer,
    ] {
        house.op.say(&Word {
            auth_time: Some(house.now()),
            forge: Some(forge),
            ..Word::default()
        });
        let mut browser = Browser::default();
        let seen = log_in(&house, &mut browser, &[]).await;
        assert_eq!(seen.error(), "server_error", "{forge:?}");
        assert!(!browser.cookies.contains_key("reentry_session"), "{forge:?}");
    }
    house.op.say(&Word {
        auth_time: Some(house.now()),
        ..Word::default()
    });
    code(&house, &mut Browser::default(), &[]).await;
}

#[tokio::test]
async fn an_upstream_whose_jwks_disappears_is_believed_for_a_while_and_then_not() {
    let keep = Duration::from_millis(1500);
    let house = House::with(|settings| {
        settings.freshness = Freshness {
            fresh: Duration::from_millis(50),
            pause: Duration::from_millis(50),
            keep,
        };
    })
    .await;
    let mut before = Browser::default();
    let first = tokens(&house, &mut before, &[]).await;
    let gone = std::time::Instant::now();
    house.op.no_keys(true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    code(&house, &mut Browser::default(), &[]).await;
    assert!(gone.elapsed() < keep, "too slow a machine for this test");
    tokio::time::sleep(keep).await;
    let mut browser = Browser::default();
    let seen = log_in(&house, &mut browser, &[]).await;
    assert_eq!(seen.error(), "temporarily_unavailable");
    assert!(!browser.cookies.contains_key("reentry_session"));
    // Who is in already notices nothing.
    assert!(
        before
            .get(&house, &authorize_url(&house, &[]))
            .await
            .query()
            .contains_key("code")
    );
    let again = refresh(&house, text(&first, "refresh_token")).await;
    assert_eq!(again.status, 200, "{}", again.body);
    // A page for whoever wanted a page, with nothing of the cause.
    let page = browser.get(&house, &house.url("/account")).await;
    assert_eq!(page.status, 503);
    assert!(
        page.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html"),
        "{page:?}"
    );
    assert!(
        page.body.contains("Signing in is not possible right now"),
        "{}",
        page.body
    );
    assert!(page.headers.contains_key("retry-after"));
    assert!(!page.body.contains("signing key"), "{}", page.body);
    house.op.no_keys(false);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    code(&house, &mut Browser::default(), &[]).await;
}

#[tokio::test]
async fn account_log_in_while_the_idp_is_down_answers_a_page() {
    let house = House::new().await;
    house.op.down(true);
    let page = Browser::default().get(&house, &house.url("/account")).await;
    assert_eq!(page.status, 503);
    assert!(
        page.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html"),
        "{page:?}"
    );
    assert!(
        page.body.contains("Nothing is wrong with your account"),
        "{}",
        page.body
    );
    assert!(page.headers.contains_key("retry-after"));
}

// Contract section 3, "Broker claims": pairwise upstream clients are refused.
#[tokio::test]
async fn an_upstream_client_with_pairwise_subjects_is_refused() {
    let house = House::new().await;
    house.admin.strange.store(true, Ordering::SeqCst);
    let mut browser = Browser::default();
    let seen = log_in(&house, &mut browser, &[]).await;
    assert_eq!(seen.error(), "access_denied");
    assert!(!browser.cookies.contains_key("reentry_session"));
    house.admin.strange.store(false, Ordering::SeqCst);
    code(&house, &mut browser, &[]).await;
}
