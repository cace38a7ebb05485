//! The main job through trouble, on real parts: servers that go away, a process that is killed, an administrator
//! who tampers, mail that is refused. Each test is named after what happens.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "e2e/world.rs"]
#[expect(dead_code, reason = "each suite uses its part of the world")]
mod world;

use std::time::{Duration, Instant};

use reentry_test_support::clock::eventually;
use reentry_test_support::keycloak::pages;
use reentry_test_support::mail::Behaviour;
use reentry_test_support::rp::{RelyingParty, Reply};
use serde_json::{Value, json};

use world::{ASKED, CHANGED, HELD, PASSWORD, Setup, World, assert_says, browser, sign_in};

const SOON: Duration = Duration::from_secs(20);

/// A password reset at Keycloak alone, past Reentry, as by somebody who never comes to the broker.
async fn reset_at_keycloak(world: &World, user: &str, password: &str) {
    let spa = world.keycloak_client("spa").await;
    let mut browser = browser();
    let page = browser.get(spa.authorization("openid").url.as_str()).await;
    let address = format!("{user}@example.com");
    pages::forgot_password(&mut browser, &page, &world.mails, (user, &address), password).await;
}

/// An administrator sets a new password.
async fn set_password(world: &World, user: &str) {
    let id = world.sub(user).await;
    let password = json!({ "type": "password", "value": CHANGED, "temporary": false });
    let path = format!("users/{id}/reset-password");
    world.realm.put(&path, &password).await;
}

/// How often somebody was told that the password was changed.
fn told(world: &World, user: &str) -> usize {
    let mails = world.mails.to(&format!("{user}@example.com"));
    let about = mails.iter().filter(|m| m.subject.contains("password was"));
    about.count()
}

/// What Keycloak's own token of a user says.
async fn own_token(spa: &RelyingParty, user: &str, password: &str) -> String {
    let reply = sign_in(&mut browser(), spa, ASKED, user, password)
        .await
        .expect_status(200);
    reply.access_claims()["recovery_scope"]
        .as_str()
        .unwrap_or("absent")
        .to_owned()
}

async fn refresh_until(shop: &RelyingParty, token: &str, status: u16) -> Reply {
    eventually("the status", SOON, || async {
        let reply = shop.refresh(token).await;
        (reply.status == status).then_some(reply)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak_down_at_start_and_again_in_the_middle_misses_nothing() {
    let mut world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let before = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);

    // In the middle: the reset happens while Reentry cannot see Keycloak.
    world.proxy.cut();
    reset_at_keycloak(&world, "ana", CHANGED).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(
        world
            .mails
            .to("ana@example.com")
            .iter()
            .all(|m| !m.subject.contains("changed"))
    );
    world.proxy.pass();
    world
        .mails
        .wait_for("ana@example.com", "password was", SOON)
        .await;
    let dead = refresh_until(&shop, before.text("refresh_token"), 400).await;
    assert_eq!(dead.error(), "invalid_grant");
    let after = sign_in(&mut browser(), &shop, ASKED, "ana", CHANGED)
        .await
        .expect_status(200);
    assert_says(&after, "read write", HELD);

    // At the start: it waits, says why, and catches up.
    world.proxy.cut();
    world.reentry.terminate(Duration::from_secs(30));
    reset_at_keycloak(&world, "carl", CHANGED).await;
    world.reentry.restart();
    world
        .reentry
        .wait_http(&format!("{}/live", world.operations), SOON)
        .await;
    let ready = reqwest::get(format!("{}/ready", world.operations)).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("company"));
    world.proxy.pass();
    world
        .reentry
        .wait_http(&format!("{}/ready", world.operations), SOON)
        .await;
    world
        .mails
        .wait_for("carl@example.com", "password was", SOON)
        .await;
}

// ISS-2, P5
#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_between_the_change_and_the_next_token() {
    let mut world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let spa = world.keycloak_client("spa").await;
    let first = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    let other = sign_in(&mut browser(), &shop, ASKED, "victor", PASSWORD)
        .await
        .expect_status(200);

    world.redis.kill9();
    let refused = shop.refresh(other.text("refresh_token")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    let blind = shop.introspect(other.text("access_token")).await;
    assert_eq!(
        (blind.status, blind.json["recovery_scope"].clone()),
        (200, json!("none")),
        "{blind:?}"
    );
    reset_at_keycloak(&world, "ana", CHANGED).await;

    world.redis.restart();
    let again = refresh_until(&shop, other.text("refresh_token"), 200).await;
    assert_says(&again, "full", ASKED);
    world
        .mails
        .wait_for("ana@example.com", "password was", SOON)
        .await;
    let dead = refresh_until(&shop, first.text("refresh_token"), 400).await;
    assert_eq!(dead.error(), "invalid_grant");
    let live = shop
        .introspect(again.text("access_token"))
        .await
        .expect_status(200);
    assert_eq!(live.json["recovery_scope"], "full");
    eventually("the hold at Keycloak", SOON, || async {
        (own_token(&spa, "ana", CHANGED).await == "read write").then_some(())
    })
    .await;
}

// P5: a flushed store looks like a first install and is not one.
#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_restricts() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let first = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    world.redis.cli(&["FLUSHALL"]);
    let refused = shop.refresh(first.text("refresh_token")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let blind = shop
        .introspect(first.text("access_token"))
        .await
        .expect_status(200);
    assert_eq!(blind.json["recovery_scope"], "none");
}

// P9
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_between_commit_and_delivery_still_tells_once() {
    let mut world = World::start(Setup::default()).await;
    world.mails.refuse("ana@example.com", 451);
    // Keycloak sends its own mails to the same sink: the reset has to get through.
    let id = world.sub("ana").await;
    let password = json!({ "type": "password", "value": CHANGED, "temporary": false });
    world
        .realm
        .put(&format!("users/{id}/reset-password"), &password)
        .await;
    eventually("the commit", SOON, || async {
        (world.mails.attempts() > 0).then_some(())
    })
    .await;
    world.reentry.kill9();
    world.mails.refuse_nobody();
    world.reentry.restart();
    world
        .mails
        .wait_for("ana@example.com", "password was", Duration::from_mins(1))
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let told = world.mails.to("ana@example.com");
    assert_eq!(told.len(), 1, "one change, one case, one notice: {told:?}");
}

// P2: a lift that comes late reads the record as it then is.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_lift_after_a_new_hold_lifts_nothing() {
    let world = World::start(Setup {
        quick: "6s",
        ..Setup::default()
    })
    .await;
    let spa = world.keycloak_client("spa").await;
    reset_at_keycloak(&world, "quinn", CHANGED).await;
    eventually("the hold", SOON, || async {
        (own_token(&spa, "quinn", CHANGED).await == "read write").then_some(())
    })
    .await;
    world.proxy.cut();
    tokio::time::sleep(Duration::from_secs(9)).await;
    // The hold is over and its lift waits. Now another change, with a longer tier.
    let id = world.sub("quinn").await;
    let roles = world.realm.get("roles/quick").await;
    world
        .realm
        .delete(&format!("users/{id}/role-mappings/realm"), Some(&json!([roles])))
        .await;
    reset_at_keycloak(&world, "quinn", PASSWORD).await;
    world.proxy.pass();
    world
        .mails
        .wait_for("quinn@example.com", "password was", SOON)
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(own_token(&spa, "quinn", PASSWORD).await, "read write");
}

#[tokio::test(flavor = "multi_thread")]
async fn reentry_full_granted_to_a_held_user_is_taken_back_at_once() {
    let world = World::start(Setup::default()).await;
    let spa = world.keycloak_client("spa").await;
    reset_at_keycloak(&world, "ana", CHANGED).await;
    eventually("the hold", SOON, || async {
        (own_token(&spa, "ana", CHANGED).await == "read write").then_some(())
    })
    .await;
    let id = world.sub("ana").await;
    let full = world.realm.get("roles/reentry-full").await;
    world
        .realm
        .post(&format!("users/{id}/role-mappings/realm"), &json!([full]))
        .await;
    eventually("the hold again", SOON, || async {
        let roles = world
            .realm
            .get(&format!("users/{id}/role-mappings/realm/composite"))
            .await;
        let names: Vec<&str> = roles
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|r| r["name"].as_str())
            .collect();
        (!names.contains(&"reentry-full")).then_some(())
    })
    .await;
    assert_eq!(own_token(&spa, "ana", CHANGED).await, "read write");
}

// row C14
#[tokio::test(flavor = "multi_thread")]
async fn smtp_refusing_delays_the_notice_and_loses_nothing() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let id = world.sub("carl").await;
    world.mails.behave(Behaviour::RefuseRecipient(421));
    let password = json!({ "type": "password", "value": CHANGED, "temporary": false });
    world
        .realm
        .put(&format!("users/{id}/reset-password"), &password)
        .await;
    eventually("some tries", SOON, || async {
        (world.mails.attempts() >= 2).then_some(())
    })
    .await;
    let held = sign_in(&mut browser(), &shop, ASKED, "carl", CHANGED)
        .await
        .expect_status(200);
    assert_says(&held, "read write", HELD);
    world.mails.behave(Behaviour::Accept);
    world
        .mails
        .wait_for("carl@example.com", "password was", Duration::from_mins(1))
        .await;
}

// P1, P9, P10: two processes on one store, and the one that polls stands still in the middle of a poll.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_polling_the_leader_paused_for_longer_than_its_lease_and_then_woken() {
    // What it asked Keycloak before it fell asleep is answered still when it wakes.
    let world = World::start(Setup {
        timeout: "2m",
        ..Setup::default()
    })
    .await;
    let [shop, ..] = world.relying_parties().await;
    let before = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    let other = world.replica().await;
    let leader = || world.redis.cli(&["HGET", "re:{control}:lease:poll:company", "o"]);
    // How far the log of administrators' acts has been read.
    let read = || -> i64 {
        let cursor = world.redis.cli(&["GET", "re:{control}:setting:cursor:company"]);
        // Behind its MAC.
        let (_, cursor) = cursor.split_once('.').unwrap();
        let cursor: Value = serde_json::from_str(cursor).unwrap();
        cursor["admin"]["at"].as_i64().unwrap()
    };
    let first = leader();

    world.proxy.hang();
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.reentry.signal("STOP");
    // Its questions are answered while it sleeps, with bea's change among the answers and without ana's.
    set_password(&world, "bea").await;
    world.proxy.pass();
    tokio::time::sleep(Duration::from_secs(1)).await;
    set_password(&world, "ana").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(leader(), first);
    assert_eq!(
        told(&world, "bea") + told(&world, "ana"),
        0,
        "nobody polls under another's lease"
    );
    for user in ["bea@example.com", "ana@example.com"] {
        let until = Duration::from_mins(1);
        world.mails.wait_for(user, "password was", until).await;
    }
    let second = leader();
    assert_ne!(second, first, "the other took over");
    let live = reqwest::Client::new()
        .post(format!("{}/introspect", other.public))
        .basic_auth("shop", Some("shop-secret-of-the-test"))
        .form(&[("token", before.text("access_token"))])
        .send()
        .await
        .unwrap();
    let live: Value = live.json().await.unwrap();
    assert_eq!(live, json!({ "active": false }), "ISS-10");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let there = read();

    world.reentry.signal("CONT");
    let live = shop
        .introspect(before.text("access_token"))
        .await
        .expect_status(200);
    assert_eq!(live.json, json!({ "active": false }), "from the first moment on");
    let woken = Instant::now();
    while woken.elapsed() < Duration::from_secs(6) {
        assert!(read() >= there, "the woken one took the cursor back");
        assert_eq!(leader(), second, "the lease is the other's");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let dead = shop
        .refresh(before.text("refresh_token"))
        .await
        .expect_status(400);
    assert_eq!(dead.error(), "invalid_grant");
    set_password(&world, "carl").await;
    world
        .mails
        .wait_for("carl@example.com", "password was", SOON)
        .await;
    let after = sign_in(&mut browser(), &shop, ASKED, "ana", CHANGED)
        .await
        .expect_status(200);
    assert_says(&after, "read write", HELD);
    for operations in [&world.operations, &other.operations] {
        let ready = reqwest::get(format!("{operations}/ready")).await.unwrap();
        assert_eq!(ready.status(), 200);
    }
    for user in ["ana", "bea", "carl"] {
        assert_eq!(told(&world, user), 1, "{user} is told once");
    }
}

/// Waits until Keycloak itself holds an account, and gives how long that took.
async fn held_at_keycloak(world: &World, sub: &str, since: Instant) -> Duration {
    eventually("its hold at Keycloak", SOON, || async {
        let groups = world.realm.get(&format!("users/{sub}/groups")).await;
        let held = |group: &Value| {
            group["path"]
                .as_str()
                .is_some_and(|path| path.starts_with("/reentry/hold."))
        };
        groups.as_array().unwrap().iter().any(held).then_some(())
    })
    .await;
    since.elapsed()
}

// P15: an ordinary user makes his own account unreadable, among a thousand others.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_gives_himself_a_name_that_is_no_text_keeps_nobody_from_being_held() {
    let world = World::start(Setup {
        poll: "4s",
        crowd: 1_000,
        ..Setup::default()
    })
    .await;
    let spa = world.keycloak_client("spa").await;
    let own = sign_in(&mut browser(), &spa, "openid", "bea", PASSWORD)
        .await
        .expect_status(200);
    // Nobody reads that account by its name any more but Reentry.
    let (bea, victor) = (world.sub("bea").await, world.sub("victor").await);
    let account = format!("{}/account", world.realm.issuer());
    let poisoned = r#"{"username":"bea","email":"bea@example.com","firstName":"bea","lastName":"\ud83d"}"#;
    let answer = reqwest::Client::new()
        .post(&account)
        .bearer_auth(own.text("access_token"))
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(poisoned)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 204, "{}", answer.text().await.unwrap());
    // In reach of every poll by now.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let since = Instant::now();
    set_password(&world, "victor").await;
    let took = held_at_keycloak(&world, &victor, since).await;
    println!("held after {took:?}, with a poll every 4 s");
    assert!(
        took <= Duration::from_secs(5),
        "one poll interval and a second: {took:?}"
    );
    // His own account is read like any other.
    let since = Instant::now();
    let password = json!({ "type": "password", "value": CHANGED, "temporary": false });
    let path = format!("users/{bea}/reset-password");
    world.realm.put(&path, &password).await;
    held_at_keycloak(&world, &bea, since).await;
    world
        .mails
        .wait_for("bea@example.com", "password was", SOON)
        .await;
    let ready = reqwest::get(format!("{}/ready", world.operations)).await.unwrap();
    assert_eq!(ready.status(), 200);
    assert!(!world.run(&["audit", "export"]).contains("account_unreadable"));
}
