//! Tokens in a hold: what every issuance, introspection and userinfo says then, and afterwards.

use reentry::domain::change::{Change, ChangeKind};
use reentry::domain::time::Span;
use reentry::ports::idp::{Heard, Line};
use serde_json::json;

use crate::house::{House, SUB, payload};
use crate::op::Word;
use crate::rp::{
    Browser, authorize_url, code, introspect, log_in, post, redeem, refresh, text, tokens, userinfo,
};

const REDUCED: &str = "openid accounts:read email payees:write profile";
const WHOLE: &str = "openid accounts:read email payees:write profile transfers:write";

/// The hold of a consumer that nobody could be told about: its nominal 24 h.
const OVER: Span = Span::from_hours(25);

fn fresh_login(house: &House, sid: &str) {
    house.op.say(&Word {
        sid: sid.to_owned(),
        auth_time: Some(house.now()),
        ..house.op.word()
    });
}

#[tokio::test]
async fn iss2_a_token_after_a_reset_is_reduced_from_the_first_one_on() {
    let house = House::new().await;
    house.reset(None).await;
    house.pass(Span::from_secs(1));
    fresh_login(&house, "after");
    let tokens = tokens(&house, &mut Browser::default(), &[]).await;
    assert_eq!(tokens["scope"], REDUCED, "ISS-4");
    assert_eq!(tokens["expires_in"], 300, "ISS-5");
    let access = payload(text(&tokens, "access_token"));
    assert_eq!(access["recovery_scope"], "read write");
    assert_eq!(access["scope"], REDUCED);
    assert!(access["recovery_epoch"].as_i64().unwrap() >= house.now() - 1);
    assert!(access["recovery_until"].as_i64().unwrap() > house.now());
    assert!(access["recovery_ref"].as_str().unwrap().starts_with("rc_"));
    let id = payload(text(&tokens, "id_token"));
    for claim in [
        "recovery_scope",
        "recovery_epoch",
        "recovery_until",
        "recovery_ref",
    ] {
        assert_eq!(id[claim], access[claim]);
    }
}

#[tokio::test]
async fn the_login_time_check_sees_a_change_that_no_poll_has_brought_yet() {
    let house = House::new().await;
    let change = Change {
        session: Some("change-session".to_owned()),
        ..house.change(ChangeKind::PasswordReset)
    };
    house.admin.lines.lock().unwrap().push(Line {
        sub: SUB.to_owned(),
        heard: Heard::Change(change),
    });
    fresh_login(&house, "change-session");
    let tokens = tokens(&house, &mut Browser::default(), &[]).await;
    assert_eq!(
        payload(text(&tokens, "access_token"))["recovery_scope"],
        "read write"
    );
    assert_eq!(
        refresh(&house, text(&tokens, "refresh_token")).await.json()["scope"],
        REDUCED,
        "its session lives"
    );
}

#[tokio::test]
async fn iss6_sessions_and_families_of_before_are_gone_offline_ones_too() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let online = tokens(&house, &mut browser, &[]).await;
    let offline = tokens(
        &house,
        &mut browser,
        &[("scope", "openid accounts:read offline_access")],
    )
    .await;
    assert!(text(&offline, "scope").contains("offline_access"));
    house.pass(Span::from_secs(10));
    house.reset(None).await;
    for gone in [&online, &offline] {
        let answer = refresh(&house, text(gone, "refresh_token")).await;
        assert_eq!(
            (answer.status, answer.json()["error"].clone()),
            (400, json!("invalid_grant"))
        );
        assert_eq!(
            introspect(&house, text(gone, "access_token")).await.json(),
            json!({"active": false})
        );
        assert_eq!(
            introspect(&house, text(gone, "refresh_token")).await.json(),
            json!({"active": false})
        );
        assert_eq!(userinfo(&house, text(gone, "access_token")).await.status, 401);
    }
    let silent = browser
        .get(&house, &authorize_url(&house, &[("prompt", "none")]))
        .await;
    assert_eq!(silent.error(), "login_required");
}

#[tokio::test]
async fn iss6_the_session_of_the_change_itself_lives_and_is_reduced() {
    let house = House::new().await;
    let before = tokens(&house, &mut Browser::default(), &[]).await;
    house.pass(Span::from_secs(10));
    house.reset(Some("kc-session-1")).await;
    let answer = refresh(&house, text(&before, "refresh_token")).await.json();
    assert_eq!(answer["scope"], REDUCED);
    let live = introspect(&house, text(&before, "access_token")).await.json();
    assert_eq!(
        live["recovery_scope"], "read write",
        "ISS-8: a token of before says the hold"
    );
    assert_eq!(live["scope"], REDUCED);
    assert_eq!(
        userinfo(&house, text(&before, "access_token")).await.json()["recovery_scope"],
        "read write"
    );
}

#[tokio::test]
async fn iss6_a_session_at_the_idp_that_is_older_than_the_reset_opens_none_here() {
    let house = House::new().await;
    let before = house.now();
    house.pass(Span::from_secs(60));
    house.reset(None).await;
    house.pass(Span::from_secs(2));
    house.op.say(&Word {
        auth_time: Some(before),
        ..Word::default()
    });
    let answer = log_in(&house, &mut Browser::default(), &[]).await;
    assert_eq!(answer.error(), "login_required");
    assert_eq!(
        house.op.asked()["prompt"],
        "login",
        "a fresh log-in was demanded once"
    );
}

#[tokio::test]
async fn iss3_and_iss7_after_the_hold_a_refresh_is_whole_again_without_consent() {
    let house = House::new().await;
    house.flow.policy.rcu(|p| {
        let mut policy = reentry::domain::policy::Policy::clone(p);
        policy.lifetimes.session = Span::from_days(3);
        policy
    });
    house.reset(Some("kc-session-1")).await;
    let held = tokens(&house, &mut Browser::default(), &[]).await;
    assert_eq!(held["scope"], REDUCED);
    house.pass(OVER);
    let after = refresh(&house, text(&held, "refresh_token")).await.json();
    assert_eq!(after["scope"], WHOLE, "ISS-3: the consent was kept whole");
    let access = payload(text(&after, "access_token"));
    assert_eq!(access["recovery_scope"], "full");
    assert!(access.get("recovery_until").is_none() && access.get("recovery_ref").is_none());
    assert_eq!(
        access["sid"],
        payload(text(&held, "access_token"))["sid"],
        "ISS-7"
    );
}

#[tokio::test]
async fn iss8_a_token_from_the_hold_stays_what_it_was_after_it() {
    let house = House::new().await;
    house.flow.policy.rcu(|p| {
        let mut policy = reentry::domain::policy::Policy::clone(p);
        policy.lifetimes.session = Span::from_days(3);
        policy.lifetimes.access = Span::from_days(2);
        policy.lifetimes.restricted = Span::from_days(2);
        policy
    });
    house.reset(Some("kc-session-1")).await;
    let held = tokens(&house, &mut Browser::default(), &[]).await;
    house.pass(OVER);
    let live = introspect(&house, text(&held, "access_token")).await.json();
    assert_eq!(live["recovery_scope"], "read write");
    assert_eq!(live["scope"], REDUCED);
    let info = userinfo(&house, text(&held, "access_token")).await.json();
    assert_eq!(info["recovery_scope"], "read write");
}

#[tokio::test]
async fn iss7_fresh_login_tiers_become_whole_only_by_a_login_after_the_end() {
    let house = House::new().await;
    house.admin.roles.lock().unwrap().insert("boss".to_owned());
    house.flow.policy.rcu(|p| {
        let mut policy = reentry::domain::policy::Policy::clone(p);
        policy.lifetimes.session = Span::from_days(30);
        policy
    });
    house.reset(Some("kc-session-1")).await;
    let mut browser = Browser::default();
    let held = tokens(&house, &mut browser, &[]).await;
    assert_eq!(payload(text(&held, "access_token"))["recovery_scope"], "read");
    house.pass(Span::from_days(4));
    let after = refresh(&house, text(&held, "refresh_token")).await.json();
    assert_eq!(
        payload(text(&after, "access_token"))["recovery_scope"],
        "read",
        "no fresh log-in yet"
    );
    fresh_login(&house, "after");
    let fresh = tokens(&house, &mut browser, &[("prompt", "login")]).await;
    assert_eq!(payload(text(&fresh, "access_token"))["recovery_scope"], "full");
}

/// A log-in of so long ago at an IdP whose clock is ten minutes ahead.
fn ahead(house: &House, ago: i64) -> Word {
    let theirs = house.now() + 600;
    let mut word = Word::default();
    word.more["iat"] = json!(theirs);
    word.more["exp"] = json!(theirs + 300);
    Word {
        auth_time: Some(theirs - ago),
        ..word
    }
}

// P6, ISS-6, contract section 4: no log-in is younger by a clock that is wrong.
#[tokio::test]
async fn keycloaks_clock_ahead_by_ten_minutes_makes_no_session_younger_than_a_change() {
    let house = House::new().await;
    for asked in [("prompt", "login"), ("max_age", "0"), ("max_age", "300")] {
        house.op.say(&ahead(&house, 540));
        let answer = log_in(&house, &mut Browser::default(), &[asked]).await;
        assert_eq!(
            answer.query().get("error").map(String::as_str),
            Some("login_required"),
            "{asked:?}: nine minutes are not fresh"
        );
    }
    house.pass(Span::from_secs(60));
    house.reset(None).await;
    house.pass(Span::from_secs(2));
    house.op.say(&ahead(&house, 62));
    let answer = log_in(&house, &mut Browser::default(), &[]).await;
    assert_eq!(answer.error(), "login_required", "it began before the change");
    house.op.say(&ahead(&house, 0));
    tokens(&house, &mut Browser::default(), &[]).await;
}

// P6, ISS-7
#[tokio::test]
async fn keycloaks_clock_ahead_by_ten_minutes_makes_no_log_in_one_after_the_end() {
    let house = House::new().await;
    house.admin.roles.lock().unwrap().insert("boss".to_owned());
    house.flow.policy.rcu(|p| {
        let mut policy = reentry::domain::policy::Policy::clone(p);
        policy.lifetimes.session = Span::from_days(30);
        policy
    });
    house.reset(None).await;
    house.pass(Span::from_mins(72 * 60 - 5));
    house.op.say(&ahead(&house, 0));
    let mut browser = Browser::default();
    let held = tokens(&house, &mut browser, &[]).await;
    assert_eq!(payload(text(&held, "access_token"))["recovery_scope"], "read");
    house.pass(Span::from_mins(6));
    let after = refresh(&house, text(&held, "refresh_token")).await.json();
    assert_eq!(
        payload(text(&after, "access_token"))["recovery_scope"],
        "read",
        "that log-in was before the end"
    );
    house.op.say(&ahead(&house, 0));
    let fresh = tokens(&house, &mut browser, &[("prompt", "login")]).await;
    assert_eq!(payload(text(&fresh, "access_token"))["recovery_scope"], "full");
}

#[tokio::test]
async fn iss3_a_request_of_which_nothing_is_left_is_invalid_scope_and_consumes_nothing() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let request = [("scope", "transfers:write")];
    let whole = tokens(&house, &mut browser, &request).await;
    let waiting = code(&house, &mut browser, &request).await;
    house.reset(Some("kc-session-1")).await;
    let refused = log_in(&house, &mut browser, &request).await;
    assert_eq!(refused.error(), "invalid_scope");
    assert_eq!(redeem(&house, &waiting).await.json()["error"], "invalid_scope");
    let token = text(&whole, "refresh_token");
    for _ in 0..3 {
        assert_eq!(refresh(&house, token).await.json()["error"], "invalid_scope");
    }
    house.pass(Span::from_hours(11));
    assert_eq!(
        introspect(&house, token).await.json()["active"],
        true,
        "nothing was consumed"
    );
    assert_eq!(introspect(&house, token).await.json()["scope"], "");
    let with_openid = tokens(&house, &mut browser, &[("scope", "openid transfers:write")]).await;
    assert_eq!(with_openid["scope"], "openid", "openid is never stripped");
}

#[tokio::test]
async fn iss4_offline_access_is_not_given_in_a_hold_and_does_not_come_back_after_it() {
    let house = House::new().await;
    house.reset(Some("kc-session-1")).await;
    let asked = [("scope", "openid accounts:read offline_access")];
    let held = tokens(&house, &mut Browser::default(), &asked).await;
    assert_eq!(
        held["scope"], "openid accounts:read",
        "the request succeeds without it"
    );
    house.pass(Span::from_hours(11));
    let token = refresh(&house, text(&held, "refresh_token")).await.json();
    house.pass(Span::from_hours(2));
    let ended = refresh(&house, text(&token, "refresh_token")).await;
    assert_eq!(ended.json()["error"], "invalid_grant", "it ends with its session");

    fresh_login(&house, "later");
    house.pass(OVER);
    fresh_login(&house, "later");
    let whole = tokens(&house, &mut Browser::default(), &asked).await;
    assert_eq!(whole["scope"], "openid accounts:read offline_access");
    house.pass(Span::from_hours(20));
    let later = refresh(&house, text(&whole, "refresh_token")).await;
    assert_eq!(later.status, 200, "it outlives its session: {}", later.body);
}

#[tokio::test]
async fn iss4_offline_access_that_a_hold_kept_back_stays_back_after_the_hold() {
    let house = House::new().await;
    house.flow.policy.rcu(|p| {
        let mut policy = reentry::domain::policy::Policy::clone(p);
        policy.lifetimes.session = Span::from_hours(40);
        policy
    });
    house.reset(Some("kc-session-1")).await;
    let asked = [("scope", "openid accounts:read offline_access")];
    let held = tokens(&house, &mut Browser::default(), &asked).await;
    house.pass(OVER);
    let after = refresh(&house, text(&held, "refresh_token")).await.json();
    assert_eq!(
        after["scope"], "openid accounts:read",
        "ended with the session, also after the hold"
    );
    house.pass(Span::from_hours(20));
    assert_eq!(
        refresh(&house, text(&after, "refresh_token")).await.json()["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn p1_a_hold_that_lands_between_code_and_token_is_in_the_token() {
    let house = House::new().await;
    let waiting = code(
        &house,
        &mut Browser::default(),
        &[("scope", "openid transfers:write offline_access")],
    )
    .await;
    house.reset(Some("kc-session-1")).await;
    let tokens = redeem(&house, &waiting).await.json();
    assert_eq!(tokens["scope"], "openid");
    assert_eq!(
        payload(text(&tokens, "access_token"))["recovery_scope"],
        "read write"
    );
}

#[tokio::test]
async fn p1_a_cut_that_lands_between_code_and_token_ends_the_code() {
    let house = House::new().await;
    let waiting = code(&house, &mut Browser::default(), &[]).await;
    house.pass(Span::from_secs(1));
    house.reset(None).await;
    assert_eq!(redeem(&house, &waiting).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn contract3_in_a_contact_hold_no_address_is_verified() {
    let house = House::new().await;
    house.op.say(&Word {
        more: json!({"email": "new@example.com", "email_verified": true, "phone_number": "+1", "phone_number_verified": true}),
        auth_time: Some(house.now()),
        ..Word::default()
    });
    let before = tokens(&house, &mut Browser::default(), &[]).await;
    assert_eq!(payload(text(&before, "id_token"))["email_verified"], true);
    let change = Change {
        session: Some("kc-session-1".to_owned()),
        ..house.change(ChangeKind::EmailChanged)
    };
    house.hear(change).await;
    let held = refresh(&house, text(&before, "refresh_token")).await.json();
    for token in ["id_token", "access_token"] {
        let claims = payload(text(&held, token));
        assert_eq!(claims["email"], "new@example.com");
        assert_eq!(claims["email_verified"], false);
    }
    assert_eq!(
        userinfo(&house, text(&before, "access_token")).await.json()["email_verified"],
        false
    );
}

#[tokio::test]
async fn iss4_roles_and_groups_are_reduced_by_their_maps() {
    let house = House::new().await;
    house
        .admin
        .roles
        .lock()
        .unwrap()
        .extend(["viewer", "payer", "unmapped"].map(str::to_owned));
    house
        .admin
        .groups
        .lock()
        .unwrap()
        .extend(["/staff", "/board"].map(str::to_owned));
    let before = tokens(&house, &mut Browser::default(), &[]).await;
    let whole = payload(text(&before, "access_token"));
    assert_eq!(whole["roles"], json!(["payer", "unmapped", "viewer"]));
    for same in [
        payload(text(&before, "id_token")),
        userinfo(&house, text(&before, "access_token")).await.json(),
        introspect(&house, text(&before, "access_token")).await.json(),
    ] {
        assert_eq!(same["roles"], whole["roles"], "ISS-13");
        assert_eq!(same["groups"], whole["groups"], "ISS-13");
    }
    house.reset(Some("kc-session-1")).await;
    let held = refresh(&house, text(&before, "refresh_token")).await.json();
    let access = payload(text(&held, "access_token"));
    assert_eq!(access["roles"], json!(["viewer"]));
    assert_eq!(access["groups"], json!(["/staff"]));
    for live in [
        payload(text(&held, "id_token")),
        userinfo(&house, text(&before, "access_token")).await.json(),
        introspect(&house, text(&before, "access_token")).await.json(),
    ] {
        assert_eq!(live["roles"], json!(["viewer"]), "ISS-8");
        assert_eq!(live["groups"], json!(["/staff"]), "ISS-8");
    }
}

#[tokio::test]
async fn iss10_a_frozen_account_gets_nothing_anywhere() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let before = tokens(&house, &mut browser, &[]).await;
    let waiting = code(&house, &mut browser, &[]).await;
    house.freeze().await;
    assert_eq!(redeem(&house, &waiting).await.json()["error"], "invalid_grant");
    assert_eq!(
        refresh(&house, text(&before, "refresh_token")).await.json()["error"],
        "invalid_grant"
    );
    assert_eq!(
        introspect(&house, text(&before, "access_token")).await.json(),
        json!({"active": false})
    );
    assert_eq!(userinfo(&house, text(&before, "access_token")).await.status, 401);
    house.pass(Span::from_secs(5));
    fresh_login(&house, "new");
    let refused = log_in(&house, &mut browser, &[]).await;
    assert_eq!(refused.error(), "access_denied");
}

#[tokio::test]
async fn contract10_a_client_that_cannot_honour_a_hold_gets_no_token_and_the_person_a_page() {
    let house = House::new().await;
    let changes = [("client_id", "old"), ("scope", "openid accounts:read")];
    let mut browser = Browser::default();
    let waiting = code(&house, &mut browser, &changes).await;
    house.reset(Some("kc-session-1")).await;
    let page = log_in(&house, &mut browser, &changes).await;
    assert_eq!(page.status, 403);
    assert!(
        page.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html"),
        "{page:?}"
    );
    assert!(page.body.contains("account"), "{}", page.body);
    assert!(page.body.contains("See what is limited"));
    let form = [
        ("grant_type", "authorization_code"),
        ("code", waiting.as_str()),
        ("redirect_uri", crate::house::REDIRECT),
        ("code_verifier", crate::rp::VERIFIER),
        ("client_id", "old"),
        ("client_secret", "old-secret"),
    ];
    let request = house.http.post(house.url("/token")).form(&form);
    let answer = crate::rp::seen(request.send().await.unwrap()).await;
    assert_eq!(answer.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn iss2_a_login_whose_check_had_no_answer_says_none_until_one_comes() {
    let house = House::new().await;
    house.admin.down.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    assert_eq!(first["scope"], "openid email profile");
    assert_eq!(payload(text(&first, "access_token"))["recovery_scope"], "none");
    let second = refresh(&house, text(&first, "refresh_token")).await.json();
    assert_eq!(payload(text(&second, "access_token"))["recovery_scope"], "none");
    house.admin.down.store(false, std::sync::atomic::Ordering::SeqCst);
    house.admin.roles.lock().unwrap().insert("viewer".to_owned());
    let third = refresh(&house, text(&second, "refresh_token")).await.json();
    let access = payload(text(&third, "access_token"));
    assert_eq!(access["recovery_scope"], "full");
    assert_eq!(access["roles"], json!(["viewer"]));
    let asked = house.admin.asked.load(std::sync::atomic::Ordering::SeqCst);
    refresh(&house, text(&third, "refresh_token")).await;
    assert_eq!(
        house.admin.asked.load(std::sync::atomic::Ordering::SeqCst),
        asked,
        "once answered, not asked again"
    );
}

#[tokio::test]
async fn prompt_none_in_a_hold_succeeds_with_the_reduced_token() {
    let house = House::new().await;
    let mut browser = Browser::default();
    house.reset(Some("kc-session-1")).await;
    code(&house, &mut browser, &[]).await;
    let silent = browser
        .get(&house, &authorize_url(&house, &[("prompt", "none")]))
        .await
        .query();
    let tokens = redeem(&house, &silent["code"]).await.json();
    assert_eq!(tokens["scope"], REDUCED);
    let acr = [
        ("prompt", "none"),
        (
            "claims",
            r#"{"id_token":{"acr":{"essential":true,"value":"gold"}}}"#,
        ),
    ];
    let unmet = browser.get(&house, &authorize_url(&house, &acr)).await;
    assert_eq!(unmet.error(), "unmet_authentication_requirements");
}

#[tokio::test]
async fn the_admin_scope_gives_the_audience_of_the_api_while_the_hold_allows_it() {
    let house = House::new().await;
    let changes = [("client_id", "console"), ("scope", "openid reentry:admin")];
    let form = |code: &str| {
        [
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", crate::house::REDIRECT.to_owned()),
            ("code_verifier", crate::rp::VERIFIER.to_owned()),
            ("client_id", "console".to_owned()),
            ("client_secret", "console-secret".to_owned()),
        ]
    };
    let mut browser = Browser::default();
    for (held, audience) in [(false, house.url("/api")), (true, "console".to_owned())] {
        if held {
            house.reset(Some("kc-session-1")).await;
        }
        let code = code(&house, &mut browser, &changes).await;
        let request = house.http.post(house.url("/token")).form(&form(&code));
        let tokens = crate::rp::seen(request.send().await.unwrap()).await.json();
        assert_eq!(payload(text(&tokens, "access_token"))["aud"], audience);
    }
    let bank = log_in(&house, &mut browser, &[("scope", "reentry:admin")]).await;
    assert_eq!(
        bank.error(),
        "invalid_scope",
        "only for clients that are allowed it"
    );
}

#[tokio::test]
async fn a_refresh_may_narrow_and_never_widen() {
    let house = House::new().await;
    let first = tokens(
        &house,
        &mut Browser::default(),
        &[("scope", "openid accounts:read payees:write")],
    )
    .await;
    let ask = |token: String, scope: &'static str| {
        let house = &house;
        async move {
            let form = [
                ("grant_type", "refresh_token"),
                ("refresh_token", &token),
                ("scope", scope),
            ];
            post(house, "/token", &form).await
        }
    };
    let wide = ask(text(&first, "refresh_token").to_owned(), "openid transfers:write").await;
    assert_eq!(wide.json()["error"], "invalid_scope");
    let narrow = ask(text(&first, "refresh_token").to_owned(), "openid accounts:read")
        .await
        .json();
    assert_eq!(narrow["scope"], "openid accounts:read");
    let again = refresh(&house, text(&narrow, "refresh_token")).await.json();
    assert_eq!(
        again["scope"], "openid accounts:read payees:write",
        "the grant is what it was"
    );
}
