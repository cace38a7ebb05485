//! Codes, refresh tokens, access tokens and states that were tampered with, replayed, or are of somebody else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reentry::domain::time::Span;
use serde_json::json;

use crate::house::{House, REDIRECT};
use crate::rp::{
    Browser, VERIFIER, authorize_url, code, introspect, post, redeem, refresh, seen, text, tokens, userinfo,
};

/// Every text that differs from `token` in one octet of what it encodes.
fn tampered(token: &str) -> Vec<String> {
    let octets = URL_SAFE_NO_PAD.decode(token).unwrap();
    let flip = |at: usize| {
        let mut octets = octets.clone();
        octets[at] ^= 1;
        URL_SAFE_NO_PAD.encode(octets)
    };
    let mut all: Vec<String> = (0..octets.len()).map(flip).collect();
    all.push(token[..token.len() - 1].to_owned());
    all.push(format!("{token}A"));
    all.push(format!("{token}="));
    all
}

#[tokio::test]
async fn a_code_works_once_and_a_second_use_revokes_what_it_gave() {
    let house = House::new().await;
    let code = code(&house, &mut Browser::default(), &[]).await;
    let tokens = redeem(&house, &code).await.json();
    house.pass(Span::from_secs(30));
    assert_eq!(redeem(&house, &code).await.json()["error"], "invalid_grant");
    assert_eq!(
        introspect(&house, text(&tokens, "access_token")).await.json(),
        json!({"active": false})
    );
    assert_eq!(
        refresh(&house, text(&tokens, "refresh_token")).await.json()["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn a_code_that_was_tampered_with_or_is_too_old_or_elsewhere_is_refused() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let good = code(&house, &mut browser, &[]).await;
    for bad in tampered(&good) {
        assert_eq!(redeem(&house, &bad).await.json()["error"], "invalid_grant");
    }
    for (redirect, verifier) in [
        ("https://bank.example/other", VERIFIER),
        (REDIRECT, &VERIFIER.replace('0', "1")),
    ] {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", good.as_str()),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        assert_eq!(
            post(&house, "/token", &form).await.json()["error"],
            "invalid_grant"
        );
    }
    assert_eq!(
        redeem(&house, &good).await.status,
        200,
        "none of this consumed it"
    );
    let late = code(&house, &mut browser, &[]).await;
    house.pass(Span::from_secs(60));
    assert_eq!(redeem(&house, &late).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn a_code_is_no_refresh_token_and_the_other_way_round() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let fresh = code(&house, &mut browser, &[]).await;
    assert_eq!(refresh(&house, &fresh).await.json()["error"], "invalid_grant");
    let tokens = tokens(&house, &mut browser, &[]).await;
    assert_eq!(
        redeem(&house, text(&tokens, "refresh_token")).await.json()["error"],
        "invalid_grant"
    );
    assert_eq!(userinfo(&house, text(&tokens, "refresh_token")).await.status, 401);
    assert_eq!(
        userinfo(&house, text(&tokens, "id_token")).await.status,
        401,
        "an ID token is never an access token"
    );
    assert_eq!(
        introspect(&house, text(&tokens, "id_token")).await.json(),
        json!({"active": false})
    );
}

#[tokio::test]
async fn a_lost_reply_gets_the_same_successor_for_ten_seconds_and_then_the_family_is_gone() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let old = text(&first, "refresh_token");
    let second = refresh(&house, old).await.json();
    house.pass(Span::from_secs(9));
    let again = refresh(&house, old).await.json();
    assert_eq!(
        again["refresh_token"], second["refresh_token"],
        "the same successor"
    );
    let third = refresh(&house, text(&second, "refresh_token")).await.json();
    assert_ne!(third["refresh_token"], second["refresh_token"]);
    assert_eq!(
        refresh(&house, old).await.json()["error"],
        "invalid_grant",
        "two generations back"
    );
    assert_eq!(
        refresh(&house, text(&third, "refresh_token")).await.json()["error"],
        "invalid_grant",
        "reuse"
    );
    assert_eq!(
        introspect(&house, text(&third, "access_token")).await.json(),
        json!({"active": false})
    );

    let other = tokens(&house, &mut Browser::default(), &[]).await;
    let next = refresh(&house, text(&other, "refresh_token")).await.json();
    house.pass(Span::from_secs(10));
    assert_eq!(
        refresh(&house, text(&other, "refresh_token")).await.json()["error"],
        "invalid_grant"
    );
    assert_eq!(
        refresh(&house, text(&next, "refresh_token")).await.json()["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn a_refresh_token_that_was_tampered_with_is_refused_and_harms_nothing() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let good = text(&first, "refresh_token");
    for bad in tampered(good) {
        assert_eq!(refresh(&house, &bad).await.json()["error"], "invalid_grant");
        assert_eq!(introspect(&house, &bad).await.json(), json!({"active": false}));
        assert_eq!(post(&house, "/revoke", &[("token", &bad)]).await.status, 200);
    }
    assert_eq!(refresh(&house, good).await.status, 200);
}

#[tokio::test]
async fn another_client_can_neither_use_nor_revoke_nor_see_a_refresh_token() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let good = text(&first, "refresh_token");
    let other = |path: &'static str, form: Vec<(&'static str, &str)>| {
        let mut form: Vec<(&str, String)> = form.into_iter().map(|(n, v)| (n, v.to_owned())).collect();
        form.push(("client_id", "legacy".to_owned()));
        form.push(("client_secret", "legacy-secret".to_owned()));
        let request = house.http.post(house.url(path)).form(&form);
        async move { seen(request.send().await.unwrap()).await }
    };
    let used = other(
        "/token",
        vec![("grant_type", "refresh_token"), ("refresh_token", good)],
    )
    .await;
    assert_eq!(used.json()["error"], "invalid_grant");
    assert_eq!(other("/revoke", vec![("token", good)]).await.status, 200);
    assert_eq!(
        other("/revoke", vec![("token", text(&first, "access_token"))])
            .await
            .status,
        200
    );
    assert_eq!(
        other("/introspect", vec![("token", good)]).await.json(),
        json!({"active": false})
    );
    assert_eq!(
        introspect(&house, text(&first, "access_token")).await.json()["active"],
        true
    );
    assert_eq!(refresh(&house, good).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_refreshes_of_one_token_all_get_the_same_successor() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let token = text(&first, "refresh_token");
    let answers = futures_util::future::join_all((0..8).map(|_| refresh(&house, token))).await;
    let successors: std::collections::BTreeSet<String> = answers
        .iter()
        .map(|a| text(&a.json(), "refresh_token").to_owned())
        .collect();
    assert_eq!(successors.len(), 1);
    assert_eq!(
        refresh(&house, successors.first().unwrap()).await.status,
        200,
        "the family lives"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_uses_of_one_code_give_tokens_at_most_once() {
    let house = House::new().await;
    let code = code(&house, &mut Browser::default(), &[]).await;
    let answers = futures_util::future::join_all((0..8).map(|_| redeem(&house, &code))).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
    assert!(answers.iter().all(|a| a.status == 200 || a.status == 400));
}

#[tokio::test]
async fn an_access_token_is_checked_for_key_kind_and_time() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let good = text(&first, "access_token");
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = head.split_once('.').unwrap();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
    let whole = URL_SAFE_NO_PAD.encode(claims.replace("alice", "admin"));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    for bad in [
        format!("{header}.{whole}.{signature}"),
        format!("{none}.{body}."),
        format!("{head}."),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(userinfo(&house, &bad).await.status, 401);
        assert_eq!(introspect(&house, &bad).await.json(), json!({"active": false}));
    }
    assert_eq!(userinfo(&house, good).await.status, 200);
    house.pass(Span::from_mins(15));
    assert_eq!(userinfo(&house, good).await.status, 401, "expired");
    assert_eq!(introspect(&house, good).await.json(), json!({"active": false}));
}

#[tokio::test]
async fn userinfo_takes_the_token_once_and_never_from_the_query() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let token = text(&first, "access_token");
    let twice = house
        .http
        .post(house.url("/userinfo"))
        .bearer_auth(token)
        .form(&[("access_token", token)]);
    assert_eq!(seen(twice.send().await.unwrap()).await.status, 400);
    let query = house
        .http
        .get(house.url(&format!("/userinfo?access_token={token}")));
    let nothing = seen(query.send().await.unwrap()).await;
    assert_eq!(
        (
            nothing.status,
            nothing.headers["www-authenticate"].to_str().unwrap()
        ),
        (401, "Bearer")
    );
    let plain = tokens_without_openid(&house).await;
    let lacking = userinfo(&house, &plain).await;
    assert_eq!(lacking.status, 403);
    assert!(
        lacking.headers["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("insufficient_scope")
    );
}

async fn tokens_without_openid(house: &House) -> String {
    let plain = tokens(house, &mut Browser::default(), &[("scope", "accounts:read")]).await;
    assert!(plain.get("id_token").is_none());
    text(&plain, "access_token").to_owned()
}

/// The URL of our callback that the IdP would send the browser to.
async fn on_the_way_back(house: &House, browser: &mut Browser) -> String {
    let there = browser
        .get(house, &authorize_url(house, &[("prompt", "login")]))
        .await
        .location
        .unwrap();
    seen(house.http.get(&there).send().await.unwrap())
        .await
        .location
        .unwrap()
}

#[tokio::test]
async fn a_state_works_once_in_the_browser_that_began_and_not_too_late() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let back = on_the_way_back(&house, &mut browser).await;
    let stranger = Browser::default().get(&house, &back).await;
    assert_eq!((stranger.status, stranger.location), (400, None), "no cookie");
    let back = on_the_way_back(&house, &mut browser).await;
    let mut other = Browser::default();
    on_the_way_back(&house, &mut other).await;
    let (mine, theirs) = (browser.cookies.clone(), other.cookies.clone());
    let name = mine
        .keys()
        .find(|name| name.starts_with("reentry_login_"))
        .unwrap();
    let value = theirs.values().next().unwrap();
    for forged in tampered(&mine[name])
        .into_iter()
        .step_by(17)
        .chain([value.clone()])
    {
        let mut forger = Browser::default();
        forger.cookies.insert(name.clone(), forged);
        assert_eq!(forger.get(&house, &back).await.status, 400, "another cookie");
    }
    assert!(
        browser.get(&house, &back).await.query().contains_key("code"),
        "none of this used it up"
    );
    // A copy of what the browser had carried is worth nothing any more.
    let mut thief = Browser { cookies: mine };
    let replayed = thief.get(&house, &back).await;
    assert!(
        !replayed.location.is_some_and(|to| to.contains("code=")),
        "replayed"
    );
    assert!(!thief.cookies.contains_key("reentry_session"));

    let back = on_the_way_back(&house, &mut browser).await;
    house.pass(Span::from_mins(31));
    assert_eq!(browser.get(&house, &back).await.status, 400, "too late");

    let back = on_the_way_back(&house, &mut browser).await;
    let mut other = url::Url::parse(&back).unwrap();
    let path = other.path().replace("/callback/kc", "/callback/second");
    other.set_path(&path);
    assert_eq!(
        browser.get(&house, other.as_str()).await.status,
        400,
        "another IdP's callback (mix-up)"
    );
    let tampered = back.replace("state=", "state=x");
    assert_eq!(browser.get(&house, &tampered).await.status, 400);
    let doubled = format!("{back}&state=abc");
    assert_eq!(browser.get(&house, &doubled).await.status, 400);
}

#[tokio::test]
async fn two_tabs_can_log_in_at_the_same_time() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let one = on_the_way_back(&house, &mut browser).await;
    let two = on_the_way_back(&house, &mut browser).await;
    assert!(browser.get(&house, &two).await.query().contains_key("code"));
    assert!(browser.get(&house, &one).await.query().contains_key("code"));
}

#[tokio::test]
async fn cookies_are_host_only_and_secure_with_an_https_issuer() {
    let house = House::new().await;
    let plain = house.http.get(authorize_url(&house, &[])).send().await.unwrap();
    let line = plain.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        line.starts_with("reentry_login_") && !line.contains("Secure"),
        "{line}"
    );
    let mut context = house.context.clone();
    let settings = &house.context.broker.settings;
    let clients = settings.clients.values().cloned().collect();
    let https = reentry::oidc::settings::BrokerSettings::new(
        "https://login.example",
        clients,
        settings.upstreams.clone(),
    );
    let broker = reentry::oidc::Broker::new(
        https.unwrap(),
        house.context.broker.keys.clone(),
        crate::house::outbound(),
    )
    .unwrap();
    context.broker = std::sync::Arc::new(broker);
    let (parts, ()) = axum::http::Request::builder()
        .uri("/authorize")
        .body(())
        .unwrap()
        .into_parts();
    let response = reentry::http::broker::login::begin(
        &context,
        &parts.headers,
        &reentry::domain::subject::UpstreamId::parse("kc").unwrap(),
        reentry::http::broker::login::Goal::Page("/account".to_owned()),
        false,
    )
    .await;
    let line = response.headers()["set-cookie"].to_str().unwrap();
    for part in [
        "__Host-reentry_login_",
        "; Path=/",
        "; Secure",
        "; HttpOnly",
        "; SameSite=Lax",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("Domain"));
}

#[tokio::test]
async fn a_client_introspects_its_own_tokens_and_others_only_where_it_may() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let ask = |client: &'static str, secret: &'static str| {
        let form = [
            ("client_id", client),
            ("client_secret", secret),
            ("token", text(&first, "access_token")),
        ];
        let request = house.http.post(house.url("/introspect")).form(&form);
        async move { seen(request.send().await.unwrap()).await.json()["active"].clone() }
    };
    assert_eq!(ask("legacy", "legacy-secret").await, false);
    assert_eq!(ask("gate", "gate-secret").await, true);
}
