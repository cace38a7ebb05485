//! Several IdPs at one broker: the user chooses, and no answer of one is taken for another's.

use std::sync::Arc;

use reentry::domain::subject::UpstreamId;
use reentry::oidc::keys::KeyRing;
use serde_json::json;
use url::Url;

use crate::house::{House, keys_of, payload};
use crate::op::{Op, Word};
use crate::rp::{Browser, Seen, authorize_url, redeem, seen, text};

/// A house whose second IdP is a server of its own, and a bank that takes both.
async fn two() -> (House, Op) {
    let clock: Arc<dyn reentry::ports::clock::Clock> = Arc::new(reentry::app::clock::SystemClock);
    let ring = |name: &str| Arc::new(KeyRing::load(&keys_of(name), Arc::clone(&clock)).unwrap());
    let still = Arc::new(crate::house::standing());
    let other = Op::start(ring("stranger"), ring("client"), still).await;
    let issuer = other.issuer.clone();
    let house = House::with(|settings| {
        for upstream in settings
            .upstreams
            .iter_mut()
            .filter(|u| u.id.as_str() == "second")
        {
            upstream.issuer.clone_from(&issuer);
        }
        let bank = settings.clients.get_mut("bank").unwrap();
        bank.upstreams = ["kc", "second"]
            .iter()
            .filter_map(|id| UpstreamId::parse(id))
            .collect();
    })
    .await;
    other.say(&Word {
        auth_time: Some(house.now()),
        sid: "other-session".to_owned(),
        ..Word::default()
    });
    (house, other)
}

async fn at(house: &House, there: &str) -> Seen {
    seen(house.http.get(there).send().await.unwrap()).await
}

/// Begins at the chosen IdP and gives the way back from there.
async fn way_back(house: &House, browser: &mut Browser, upstream: &str) -> Url {
    let begun = browser
        .get(house, &authorize_url(house, &[("upstream", upstream)]))
        .await;
    let there = begun.location.clone().unwrap_or_else(|| panic!("{begun:?}"));
    Url::parse(&at(house, &there).await.location.unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_of_several_idps_lets_its_user_choose() {
    let (house, other) = two().await;
    let mut browser = Browser::default();
    let page = browser
        .get(&house, &authorize_url(&house, &[("state", "a&b=<c>")]))
        .await;
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("Where do you want to sign in?"),
        "{}",
        page.body
    );
    assert!(
        page.body.contains("kc &amp; co") && page.body.contains("second &amp; co"),
        "{}",
        page.body
    );
    let links: Vec<String> = page
        .body
        .split("href=\"")
        .filter_map(|rest| rest.split_once('"'))
        .map(|(link, _)| link.replace("&amp;", "&"))
        .filter(|link| link.contains("/authorize?"))
        .collect();
    assert_eq!(links.len(), 2, "{links:?}");
    for (link, op, sub) in [
        (&links[0], &house.op, "alice"),
        (&links[1], &other, "second:alice"),
    ] {
        let mut browser = Browser::default();
        let there = browser.get(&house, link).await.location.unwrap();
        assert!(there.starts_with(&op.issuer), "{there}");
        let back = at(&house, &there).await.location.unwrap();
        let done = browser.get(&house, &back).await.query();
        assert_eq!(done["state"], "a&b=<c>");
        let tokens = redeem(&house, &done["code"]).await.json();
        assert_eq!(
            payload(text(&tokens, "access_token"))["sub"],
            sub,
            "prefixes distinct and stable"
        );
    }
    // Nothing may be shown: nothing is chosen.
    let silent = Browser::default()
        .get(&house, &authorize_url(&house, &[("prompt", "none")]))
        .await;
    assert_eq!(silent.error(), "login_required");
    for wrong in ["third", "../kc", "KC"] {
        let seen = browser
            .get(&house, &authorize_url(&house, &[("upstream", wrong)]))
            .await;
        assert_eq!(seen.error(), "invalid_request", "{wrong}");
    }
    let foreign = [
        ("client_id", "legacy"),
        ("scope", "accounts:read"),
        ("upstream", "second"),
    ];
    assert_eq!(
        browser
            .get(&house, &authorize_url(&house, &foreign))
            .await
            .error(),
        "invalid_request"
    );
}

#[tokio::test]
async fn a_session_of_one_idp_is_none_of_the_other() {
    let (house, other) = two().await;
    let mut browser = Browser::default();
    let back = way_back(&house, &mut browser, "kc").await;
    assert!(
        browser
            .get(&house, back.as_str())
            .await
            .query()
            .contains_key("code")
    );
    let again = browser.get(&house, &authorize_url(&house, &[])).await;
    assert!(
        again.query().contains_key("code"),
        "any of the client's will do: {again:?}"
    );
    let chosen = browser
        .get(&house, &authorize_url(&house, &[("upstream", "second")]))
        .await;
    assert!(chosen.location.unwrap().starts_with(&other.issuer));
}

// RFC 9700 §4.4, RFC 9207.
#[tokio::test]
async fn mix_up_an_answer_of_one_idp_is_refused_for_another() {
    let (house, other) = two().await;
    let refused = async |browser: &mut Browser, url: &Url, what: &str| {
        let before = (house.op.exchanged(), other.exchanged());
        let answer = browser.get(&house, url.as_str()).await;
        assert_eq!(
            (answer.status, answer.location.as_deref()),
            (400, None),
            "{what}: {answer:?}"
        );
        assert!(!browser.cookies.contains_key("reentry_session"), "{what}");
        assert_eq!(
            (house.op.exchanged(), other.exchanged()),
            before,
            "{what}: no code goes to anybody"
        );
    };
    // The answer of one at the door of the other.
    let mut browser = Browser::default();
    let honest = way_back(&house, &mut browser, "kc").await;
    let mut elsewhere = honest.clone();
    elsewhere.set_path(&honest.path().replace("/callback/kc", "/callback/second"));
    refused(&mut browser, &elsewhere, "another's redirect URI").await;
    // The same with the issuer that belongs to that door.
    let mut browser = Browser::default();
    let honest = way_back(&house, &mut browser, "kc").await;
    let mut elsewhere = honest.clone();
    elsewhere.set_path(&honest.path().replace("/callback/kc", "/callback/second"));
    let pairs: Vec<(String, String)> = honest
        .query_pairs()
        .map(|(n, v)| {
            (
                n.to_string(),
                if n == "iss" {
                    other.issuer.clone()
                } else {
                    v.to_string()
                },
            )
        })
        .collect();
    elsewhere.query_pairs_mut().clear().extend_pairs(&pairs);
    refused(&mut browser, &elsewhere, "another's redirect URI and issuer").await;
    // The attacker's IdP answers with the honest one's code, or says to be the honest one.
    for (what, iss) in [
        ("the attacker's issuer", Some(other.issuer.clone())),
        ("no issuer", None),
    ] {
        let mut browser = Browser::default();
        let honest = way_back(&house, &mut browser, "kc").await;
        let mut mixed = honest.clone();
        let pairs: Vec<(String, String)> = honest
            .query_pairs()
            .filter_map(|(n, v)| match (n.as_ref(), &iss) {
                ("iss", None) => None,
                ("iss", Some(iss)) => Some(("iss".to_owned(), iss.clone())),
                (n, _) => Some((n.to_owned(), v.to_string())),
            })
            .collect();
        mixed.query_pairs_mut().clear().extend_pairs(&pairs);
        refused(&mut browser, &mixed, what).await;
    }
    // A code of one under the state of the other goes to the state's own IdP, which does not know it.
    let mut browser = Browser::default();
    let kc = way_back(&house, &mut browser, "kc").await;
    let second = way_back(&house, &mut browser, "second").await;
    let code_of = |u: &Url| u.query_pairs().find(|(n, _)| n == "code").unwrap().1.to_string();
    assert_ne!(code_of(&kc), code_of(&second));
    let pairs: Vec<(String, String)> = second
        .query_pairs()
        .map(|(n, v)| {
            (
                n.to_string(),
                if n == "code" { code_of(&kc) } else { v.to_string() },
            )
        })
        .collect();
    let mut injected = second.clone();
    injected.query_pairs_mut().clear().extend_pairs(&pairs);
    let before = house.op.exchanged();
    let answer = browser.get(&house, injected.as_str()).await;
    assert_eq!(answer.error(), "server_error");
    assert_eq!(
        house.op.exchanged(),
        before,
        "its own token endpoint never sees another's log-in"
    );
    // And the log-ins that nobody touched work.
    assert!(
        browser
            .get(&house, kc.as_str())
            .await
            .query()
            .contains_key("code")
    );
}

// Contract section 3: at most one IdP goes without a prefix.
#[tokio::test]
async fn the_same_sub_at_two_idps_is_two_people() {
    let (house, other) = two().await;
    for op in [&house.op, &other] {
        op.say(&Word {
            sub: "second:alice".to_owned(),
            auth_time: Some(house.now()),
            ..Word::default()
        });
    }
    let mut browser = Browser::default();
    let back = way_back(&house, &mut browser, "kc").await;
    assert_eq!(
        browser.get(&house, back.as_str()).await.error(),
        "access_denied",
        "it could be taken for the other's"
    );
    let back = way_back(&house, &mut browser, "second").await;
    let code = browser.get(&house, back.as_str()).await.query()["code"].clone();
    let tokens = redeem(&house, &code).await.json();
    assert_eq!(
        payload(text(&tokens, "access_token"))["sub"],
        json!("second:second:alice")
    );
}
