//! The store or the IdP is away, or answers what it should not.

use reentry::domain::change::{Change, ChangeKind, Proof};
use reentry::domain::time::Span;
use serde_json::json;

use crate::house::{House, payload};
use crate::op::Word;
use crate::rp::{
    Browser, Seen, authorize_url, code, introspect, log_in, post, redeem, refresh, seen, text, tokens,
    userinfo,
};

fn unavailable(seen: &Seen) {
    assert_eq!(seen.status, 503, "{seen:?}");
    assert!(seen.headers.contains_key("retry-after"));
    let body = seen.json();
    let mut names: Vec<&String> = body.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["error", "trace_id"], "a trace id and nothing else");
    assert_eq!(body["error"], "temporarily_unavailable");
}

#[tokio::test]
async fn iss2_without_the_store_codes_and_refreshes_answer_503_and_consume_nothing() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    let waiting = code(&house, &mut browser, &[]).await;
    house.cut_store(true);
    for _ in 0..3 {
        unavailable(&redeem(&house, &waiting).await);
        unavailable(&refresh(&house, text(&first, "refresh_token")).await);
    }
    unavailable(&introspect(&house, text(&first, "refresh_token")).await);
    unavailable(&post(&house, "/revoke", &[("token", text(&first, "refresh_token"))]).await);
    unavailable(&post(&house, "/revoke", &[("token", text(&first, "access_token"))]).await);
    house.cut_store(false);
    assert_eq!(redeem(&house, &waiting).await.status, 200);
    assert_eq!(refresh(&house, text(&first, "refresh_token")).await.status, 200);
}

#[tokio::test]
async fn iss2_p5_without_the_store_what_is_self_contained_answers_none() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let access = text(&first, "access_token");
    house.cut_store(true);
    let live = introspect(&house, access).await.json();
    assert_eq!(live["active"], true);
    assert_eq!(live["recovery_scope"], "none");
    assert_eq!(live["scope"], "openid email profile");
    let info = userinfo(&house, access).await.json();
    assert_eq!(info["recovery_scope"], "none");
    assert_eq!(info["sub"], "alice");
    assert_eq!(info["email_verified"], false);
    house.cut_store(false);
    assert_eq!(
        introspect(&house, access).await.json()["recovery_scope"],
        "full",
        "right again"
    );
    assert_eq!(userinfo(&house, access).await.json()["recovery_scope"], "full");
}

#[tokio::test]
async fn iss2_without_the_store_a_browser_is_told_and_nobody_is_logged_in() {
    let house = House::new().await;
    let mut browser = Browser::default();
    code(&house, &mut browser, &[]).await;
    house.cut_store(true);
    for changes in [vec![], vec![("prompt", "none")], vec![("prompt", "login")]] {
        let seen = browser
            .clone()
            .get(&house, &authorize_url(&house, &changes))
            .await;
        assert_eq!(seen.error(), "temporarily_unavailable", "{changes:?}");
    }
    house.cut_store(false);
    let there = browser
        .get(&house, &authorize_url(&house, &[("prompt", "login")]))
        .await
        .location
        .unwrap();
    let back = seen(house.http.get(&there).send().await.unwrap())
        .await
        .location
        .unwrap();
    house.cut_store(true);
    let lost = browser.get(&house, &back).await;
    assert_eq!(
        lost.error(),
        "temporarily_unavailable",
        "a person gets no document"
    );
    house.cut_store(false);
    assert!(
        browser.get(&house, &back).await.query().contains_key("code"),
        "the state was not used up"
    );
}

#[tokio::test]
async fn an_idp_that_is_down_is_said_to_be_and_comes_back() {
    let house = House::new().await;
    house.op.down(true);
    let seen = log_in(&house, &mut Browser::default(), &[]).await;
    assert_eq!(seen.error(), "temporarily_unavailable");
    house.op.down(false);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    code(&house, &mut Browser::default(), &[]).await;
    house.op.down(true);
    code(&house, &mut Browser::default(), &[]).await;
    house.op.down(false);
    house.op.token_down(true);
    let seen = log_in(&house, &mut Browser::default(), &[]).await;
    assert_eq!(
        seen.error(),
        "temporarily_unavailable",
        "what is known of it stays in use"
    );
}

#[tokio::test]
async fn an_idp_that_answers_wrong_logs_nobody_in() {
    let house = House::new().await;
    for word in [
        Word {
            nonce: Some("another".to_owned()),
            ..Word::default()
        },
        Word {
            audience: "somebody else".to_owned(),
            ..Word::default()
        },
        Word {
            broken_signature: true,
            ..Word::default()
        },
        Word {
            expired: true,
            ..Word::default()
        },
        Word {
            no_id_token: true,
            ..Word::default()
        },
        Word {
            sub: "with\nbreak".to_owned(),
            ..Word::default()
        },
        Word {
            sub: String::new(),
            ..Word::default()
        },
        Word {
            more: json!({"iss": "https://another.example"}),
            ..Word::default()
        },
        Word {
            more: json!({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}),
            ..Word::default()
        },
    ] {
        house.op.say(&word);
        let mut browser = Browser::default();
        let seen = log_in(&house, &mut browser, &[]).await;
        assert!(
            ["server_error", "access_denied"].contains(&seen.error().as_str()),
            "{word:?}: {seen:?}"
        );
        assert!(!browser.cookies.contains_key("reentry_session"), "{word:?}");
    }
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_refused_rfc9207() {
    let house = House::new().await;
    for iss in [Some("https://another.example".to_owned()), None] {
        house.op.say(&Word {
            iss,
            ..Word::default()
        });
        let seen = log_in(&house, &mut Browser::default(), &[]).await;
        assert_eq!((seen.status, seen.location), (400, None));
    }
}

#[tokio::test]
async fn errors_of_the_idp_are_passed_on_when_they_are_known() {
    let house = House::new().await;
    for (theirs, ours) in [
        ("login_required", "login_required"),
        ("access_denied", "access_denied"),
        ("temporarily_unavailable", "temporarily_unavailable"),
        (
            "unmet_authentication_requirements",
            "unmet_authentication_requirements",
        ),
        ("invalid_scope", "access_denied"),
        ("<script>", "access_denied"),
    ] {
        house.op.say(&Word {
            error: Some(theirs.to_owned()),
            ..Word::default()
        });
        assert_eq!(log_in(&house, &mut Browser::default(), &[]).await.error(), ours);
    }
}

#[tokio::test]
async fn keys_of_the_idp_are_fetched_again_when_a_token_names_an_unknown_one() {
    let house = House::new().await;
    code(&house, &mut Browser::default(), &[]).await;
    let before = house.op.fetches();
    code(&house, &mut Browser::default(), &[]).await;
    assert_eq!(house.op.fetches(), before, "kept");
    house.op.publish_next();
    house.op.say(&Word {
        unpublished: true,
        auth_time: Some(house.now()),
        ..Word::default()
    });
    code(&house, &mut Browser::default(), &[]).await;
    assert_eq!(house.op.fetches(), before + 1);
}

#[tokio::test]
async fn p6_a_clock_that_goes_back_loosens_nothing() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    house.pass(Span::from_secs(100));
    house.reset(Some("kc-session-1")).await;
    house.pass(Span::from_secs(-200));
    let again = refresh(&house, text(&first, "refresh_token")).await.json();
    assert_eq!(
        payload(text(&again, "access_token"))["recovery_scope"],
        "read write"
    );
}

#[tokio::test]
async fn a_notice_only_change_leaves_tokens_whole() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let change = Change {
        proof: Proof::RecentLogin,
        ..house.change(ChangeKind::PasswordChanged)
    };
    house.hear(change).await;
    let again = refresh(&house, text(&first, "refresh_token")).await.json();
    assert_eq!(payload(text(&again, "access_token"))["recovery_scope"], "full");
}
