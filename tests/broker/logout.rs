//! RP-initiated log-out.

use reentry::domain::time::Span;
use serde_json::json;
use url::Url;

use crate::house::House;
use crate::rp::{Browser, Seen, authorize_url, introspect, refresh, text, tokens};

const BYE: &str = "https://bank.example/bye";

fn logout_url(house: &House, params: &[(&str, &str)]) -> String {
    Url::parse_with_params(&house.url("/logout"), params)
        .unwrap()
        .into()
}

/// Follows through the IdP's log-out.
async fn through(house: &House, browser: &mut Browser, seen: Seen) -> Seen {
    let there = Url::parse(seen.location.as_ref().unwrap_or_else(|| panic!("{seen:?}"))).unwrap();
    assert!(
        there.as_str().starts_with(&format!("{}/logout", house.op.issuer)),
        "{there}"
    );
    let query: std::collections::BTreeMap<String, String> = there.query_pairs().into_owned().collect();
    assert!(
        query["id_token_hint"].split('.').count() == 3,
        "the IdP's own ID token"
    );
    let back = format!("{}?state={}", query["post_logout_redirect_uri"], query["state"]);
    browser.get(house, &back).await
}

async fn silent(house: &House, browser: &mut Browser) -> std::collections::BTreeMap<String, String> {
    browser
        .get(house, &authorize_url(house, &[("prompt", "none")]))
        .await
        .query()
}

#[tokio::test]
async fn a_logout_with_a_hint_ends_session_and_families_here_and_at_the_idp() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    house.pass(Span::from_hours(1));
    let params = [
        ("id_token_hint", text(&first, "id_token")),
        ("post_logout_redirect_uri", BYE),
        ("state", "x y"),
    ];
    let seen = browser.get(&house, &logout_url(&house, &params)).await;
    let done = through(&house, &mut browser, seen).await;
    assert_eq!(done.location.unwrap(), format!("{BYE}?state=x+y"));
    assert_eq!(silent(&house, &mut browser).await["error"], "login_required");
    assert_eq!(
        refresh(&house, text(&first, "refresh_token")).await.json()["error"],
        "invalid_grant"
    );
    assert_eq!(
        introspect(&house, text(&first, "refresh_token")).await.json(),
        json!({"active": false})
    );
}

#[tokio::test]
async fn without_a_hint_the_person_is_asked_and_only_the_form_ends_anything() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    let params = [("client_id", "bank"), ("post_logout_redirect_uri", BYE)];
    let asked = browser.get(&house, &logout_url(&house, &params)).await;
    assert_eq!(asked.status, 200);
    assert!(asked.body.contains("<form"));
    let forged = [
        ("client_id", "bank"),
        ("post_logout_redirect_uri", BYE),
        ("confirm", "AAAA"),
    ];
    let again = browser
        .send(house.http.post(house.url("/logout")).form(&forged))
        .await;
    assert_eq!(again.status, 200, "asked again");
    assert!(
        silent(&house, &mut browser).await.contains_key("code"),
        "nothing has ended"
    );
    let mark = r#"name="confirm" value=""#;
    let from = asked.body.find(mark).unwrap() + mark.len();
    let confirm = asked.body[from..].split('"').next().unwrap();
    let form = [
        ("client_id", "bank"),
        ("post_logout_redirect_uri", BYE),
        ("confirm", confirm),
    ];
    let mut bare = Browser::default();
    let seen = bare.send(house.http.post(house.url("/logout")).form(&form)).await;
    let seen = bare.get(&house, &seen.location.unwrap()).await;
    assert_eq!(
        seen.location.as_deref(),
        Some(BYE),
        "without the cookie there is nothing to end"
    );
    let seen = browser
        .send(house.http.post(house.url("/logout")).form(&form))
        .await;
    let done = through(&house, &mut browser, seen).await;
    assert_eq!(done.location.unwrap(), BYE);
    assert_eq!(silent(&house, &mut browser).await["error"], "login_required");
    assert_eq!(
        refresh(&house, text(&first, "refresh_token")).await.json()["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn a_logout_that_is_wrong_redirects_nowhere_and_ends_nothing() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    let hint = text(&first, "id_token");
    let modified = format!("{hint}x");
    for params in [
        vec![
            ("id_token_hint", hint),
            ("post_logout_redirect_uri", "https://evil.test/"),
        ],
        vec![("id_token_hint", hint), ("client_id", "legacy")],
        vec![
            ("id_token_hint", modified.as_str()),
            ("post_logout_redirect_uri", BYE),
        ],
        vec![("id_token_hint", text(&first, "access_token"))],
        vec![("post_logout_redirect_uri", BYE)],
        vec![("client_id", "nobody")],
        vec![("client_id", "bank"), ("client_id", "bank")],
    ] {
        let seen = browser.get(&house, &logout_url(&house, &params)).await;
        assert_eq!((seen.status, seen.location), (400, None), "{params:?}");
    }
    assert!(silent(&house, &mut browser).await.contains_key("code"));
}

#[tokio::test]
async fn a_hint_of_somebody_else_does_not_log_this_person_out_unasked() {
    let house = House::new().await;
    let bob = {
        house.op.say(&crate::op::Word {
            sub: "bob".to_owned(),
            auth_time: Some(house.now()),
            ..house.op.word()
        });
        tokens(&house, &mut Browser::default(), &[]).await
    };
    house.op.say(&crate::op::Word {
        sub: "alice".to_owned(),
        auth_time: Some(house.now()),
        ..house.op.word()
    });
    let mut alice = Browser::default();
    tokens(&house, &mut alice, &[]).await;
    let seen = alice
        .get(
            &house,
            &logout_url(&house, &[("id_token_hint", text(&bob, "id_token"))]),
        )
        .await;
    assert_eq!(seen.status, 200);
    assert!(seen.body.contains("<form"));
    assert!(silent(&house, &mut alice).await.contains_key("code"));
}

#[tokio::test]
async fn without_parameters_and_without_a_session_there_is_a_page() {
    let house = House::new().await;
    let seen = Browser::default().get(&house, &house.url("/logout")).await;
    assert_eq!(seen.status, 200);
    let back = Browser::default()
        .get(
            &house,
            &house.url("/callback/kc/logout?state=unknown-unknown-unknown"),
        )
        .await;
    assert_eq!((back.status, back.location), (200, None));
}

// A page elsewhere posts a form: the browser sends no cookie with it. Nothing is said to have ended that has not.
#[tokio::test]
async fn a_form_from_another_site_is_asked_for_again_with_the_cookie() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    for form in [
        vec![],
        vec![("client_id", "bank"), ("post_logout_redirect_uri", BYE)],
    ] {
        let bare = house
            .http
            .post(house.url("/logout"))
            .form(&form)
            .send()
            .await
            .unwrap();
        assert_eq!(bare.status(), 303);
        assert!(bare.headers().get("set-cookie").is_none(), "the cookie stays");
        let again = bare.headers()["location"].to_str().unwrap().to_owned();
        assert!(again.starts_with(&house.url("/logout?")), "{again}");
        let asked = browser.get(&house, &again).await;
        assert!(
            asked.status == 200 && asked.body.contains("<form"),
            "the person is asked: {}",
            asked.body
        );
        assert!(
            silent(&house, &mut browser).await.contains_key("code"),
            "nothing has ended"
        );
    }
    // With the person's own ID token it is what they want.
    let form = [
        ("id_token_hint", text(&first, "id_token")),
        ("post_logout_redirect_uri", BYE),
    ];
    let bare = house
        .http
        .post(house.url("/logout"))
        .form(&form)
        .send()
        .await
        .unwrap();
    let again = bare.headers()["location"].to_str().unwrap().to_owned();
    let seen = browser.get(&house, &again).await;
    let done = through(&house, &mut browser, seen).await;
    assert_eq!(done.location.unwrap(), BYE);
    assert_eq!(silent(&house, &mut browser).await["error"], "login_required");
}

#[tokio::test]
async fn signed_out_is_said_only_to_those_whose_session_has_ended() {
    let house = House::new().await;
    let mut nobody = Browser::default();
    for url in [
        house.url("/logout"),
        house.url("/callback/kc/logout?state=unknown-unknown-unknown"),
    ] {
        let seen = nobody.get(&house, &url).await;
        assert!(
            seen.status == 200 && !seen.body.contains("You are signed out"),
            "{}",
            seen.body
        );
        assert!(seen.headers.get("set-cookie").is_none());
    }
    // A hint whose session has ended already ends nothing, and sends the browser back all the same.
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    let url = logout_url(
        &house,
        &[
            ("id_token_hint", text(&first, "id_token")),
            ("post_logout_redirect_uri", BYE),
        ],
    );
    let seen = browser.get(&house, &url).await;
    through(&house, &mut browser, seen).await;
    let again = nobody.get(&house, &url).await;
    assert_eq!(again.location.as_deref(), Some(BYE));
    assert!(again.headers.get("set-cookie").is_none());
}
