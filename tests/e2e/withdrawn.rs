//! What Keycloak ends or takes away ends or goes here too (ISS-12, P16), on the real server.

use std::time::{Duration, Instant};

use reentry_test_support::browser::Browser;
use reentry_test_support::clock::now_s;
use reentry_test_support::rp::{RelyingParty, Reply};
use reqwest::Method;
use serde_json::json;

use crate::world::{ASKED, PASSWORD, Setup, World, browser, sign_in};

const OFFLINE: &str = "openid offline_access accounts:read";

async fn is_active(rp: &RelyingParty, reply: &Reply) -> bool {
    let answer = rp.introspect(reply.text("access_token")).await.expect_status(200);
    answer.json["active"] == true
}

/// A session with an offline family beside it.
async fn session(browser: &mut Browser, rp: &RelyingParty, user: &str) -> [Reply; 2] {
    let online = sign_in(browser, rp, ASKED, user, PASSWORD)
        .await
        .expect_status(200);
    let offline = sign_in(browser, rp, OFFLINE, user, PASSWORD)
        .await
        .expect_status(200);
    assert!(is_active(rp, &online).await && is_active(rp, &offline).await);
    [online, offline]
}

/// Dead in every respect, without a refresh having asked: by a line of the log, or by a logout token.
async fn assert_gone(rp: &RelyingParty, browser: &mut Browser, replies: &[Reply], within: Duration) {
    let since = Instant::now();
    while is_active(rp, &replies[0]).await || is_active(rp, &replies[replies.len() - 1]).await {
        assert!(since.elapsed() < within, "still active after {within:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for reply in replies {
        let refused = rp.refresh(reply.text("refresh_token")).await.expect_status(400);
        assert_eq!(refused.error(), "invalid_grant");
        assert_eq!(rp.userinfo(reply.text("access_token")).await.status, 401);
    }
    let silent = rp.authorization(ASKED).with("prompt", "none");
    let page = browser.get(silent.url.as_str()).await;
    assert_eq!(
        page.query("error").as_deref(),
        Some("login_required"),
        "{}",
        page.describe()
    );
}

/// A poll interval, and what a machine takes that has other things to do.
const SOON: Duration = Duration::from_secs(5);

fn has_role(reply: &Reply, role: &str) -> bool {
    let claims = reply.access_claims();
    claims["roles"]
        .as_array()
        .is_some_and(|roles| roles.contains(&json!(role)))
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_signed_out_everywhere_disabled_or_deleted_at_keycloak_ends_everything_here() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    for user in ["ana", "bea", "victor"] {
        let sub = world.sub(user).await;
        let mut own = browser();
        let replies = session(&mut own, &shop, user).await;
        let path = format!("users/{sub}");
        match user {
            "ana" => drop(world.realm.post(&format!("{path}/logout"), &json!({})).await),
            "bea" => world.realm.put(&path, &json!({ "enabled": false })).await,
            _ => drop(
                world
                    .realm
                    .call(Method::DELETE, &path, None)
                    .await
                    .expect_status(204),
            ),
        }
        assert_gone(&shop, &mut own, &replies, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_a_proven_logout_token_ends_its_session_at_once_though_nobody_polls() {
    let world = World::start(Setup {
        poll: "5m",
        ..Setup::default()
    })
    .await;
    let [shop, ..] = world.relying_parties().await;
    let mut own = browser();
    let online = sign_in(&mut own, &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    let sub = world.sub("ana").await;
    // Read while it is the only one: Keycloak dates sessions by the second.
    let sessions = world.realm.get(&format!("users/{sub}/sessions")).await;
    let [session] = sessions.as_array().unwrap().as_slice() else {
        panic!("one session: {sessions}");
    };
    let id = session["id"].as_str().unwrap();
    let other = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    world.realm.delete(&format!("sessions/{id}"), None).await;
    assert_gone(&shop, &mut own, &[online], SOON).await;
    assert!(is_active(&shop, &other).await, "another session of the account");
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_a_role_that_was_taken_away_is_gone_within_the_life_of_an_access_token() {
    let world = World::start(Setup {
        access: "5s",
        ..Setup::default()
    })
    .await;
    let [shop, office, _] = world.relying_parties().await;
    let first = sign_in(&mut browser(), &shop, ASKED, "quinn", PASSWORD)
        .await
        .expect_status(200);
    assert!(has_role(&first, "quick"), "{}", first.body);
    let admin = sign_in(
        &mut browser(),
        &office,
        "openid reentry:admin",
        "admin-one",
        PASSWORD,
    )
    .await
    .expect_status(200);
    let url = format!("{}/api/v1/audit", world.issuer);
    let may = |reply: Reply| {
        let call = reqwest::Client::new()
            .get(&url)
            .bearer_auth(reply.text("access_token"));
        async move { call.send().await.unwrap().status().as_u16() }
    };
    let admin = office
        .refresh(admin.text("refresh_token"))
        .await
        .expect_status(200);
    let refresh_token = admin.text("refresh_token").to_owned();
    assert_eq!(may(admin).await, 200);
    for (user, role) in [("quinn", "quick"), ("admin-one", "reentry-admin")] {
        let sub = world.sub(user).await;
        let role = world.realm.get(&format!("roles/{role}")).await;
        let path = format!("users/{sub}/role-mappings/realm");
        world.realm.delete(&path, Some(&json!([role]))).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let next = shop.refresh(first.text("refresh_token")).await.expect_status(200);
    assert!(!has_role(&next, "quick"), "{}", next.body);
    let admin = office.refresh(&refresh_token).await.expect_status(200);
    assert_eq!(may(admin).await, 403);
}

// Seen on 26.7.4: signing out all sessions sets the realm's not-before, which refuses offline tokens too.
#[tokio::test(flavor = "multi_thread")]
async fn p16_everybody_signed_out_at_keycloak_ends_everything_here_on_every_replica_and_after_a_restart() {
    let mut world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let client = world.realm.client_uuid("reentry-broker").await;
    for act in ["logout-all", "realm", "client"] {
        let mut own = browser();
        let replies = session(&mut own, &shop, "ana").await;
        // A not-before has whole seconds.
        tokio::time::sleep(Duration::from_secs(2)).await;
        match act {
            "logout-all" => drop(world.realm.post("logout-all", &json!({})).await),
            "realm" => world.realm.patch(json!({ "notBefore": now_s() })).await,
            _ => {
                let path = format!("clients/{client}");
                let mut saved = world.realm.get(&path).await;
                saved["notBefore"] = json!(now_s());
                world.realm.put(&path, &saved).await;
            }
        }
        let since = Instant::now();
        while is_active(&shop, &replies[0]).await || is_active(&shop, &replies[1]).await {
            assert!(since.elapsed() < SOON, "{act}: still active");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if act == "client" {
            world.reentry.restart();
            world
                .reentry
                .wait_http(&format!("{}/ready", world.operations), SOON * 6)
                .await;
        }
        for reply in &replies {
            let refused = shop.refresh(reply.text("refresh_token")).await.expect_status(400);
            assert_eq!(refused.error(), "invalid_grant", "{act}");
            assert_eq!(shop.userinfo(reply.text("access_token")).await.status, 401);
        }
        // The way in is open.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let again = session(&mut browser(), &shop, "ana").await;
        shop.refresh(again[1].text("refresh_token"))
            .await
            .expect_status(200);
    }
}
