//! The store loses what it knew, and Keycloak's log what it told, under the built program with a real Keycloak and a
//! real Redis. In each: no token stronger than the hold at any instant, no notice twice and none missing, contested
//! back as contested, `/ready` stays 200.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "e2e/world.rs"]
#[expect(dead_code, reason = "each suite uses its part of the world")]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reentry_test_support::clock::eventually;
use reentry_test_support::mail::Mail;
use reentry_test_support::redis::Redis;
use reentry_test_support::rp::{RelyingParty, Reply};
use reqwest::Method;
use serde_json::{Value, json};

use world::{ASKED, CHANGED, PASSWORD, Setup, World, assert_says, browser, sign_in};

const SOON: Duration = Duration::from_secs(40);
/// From the subject of the notice that somebody tried to lift a restriction at the identity provider.
const KEPT: &str = "tried to take away";

/// An administrator sets a new password: a hold of 24 h, and a notice.
async fn set_password(world: &World, user: &str, password: &str) {
    let id = world.sub(user).await;
    let body = json!({ "type": "password", "value": password, "temporary": false });
    world
        .realm
        .put(&format!("users/{id}/reset-password"), &body)
        .await;
}

/// The same, and its notice was accepted.
async fn held(world: &World, user: &str) {
    set_password(world, user, CHANGED).await;
    world
        .mails
        .wait_for(&format!("{user}@example.com"), "password was", SOON)
        .await;
}

/// What a sign-in at the broker gives: the claim, or why not.
async fn signed_in(shop: &RelyingParty, user: &str, password: &str) -> Result<Reply, String> {
    let request = shop.authorization(ASKED);
    let mut browser = browser();
    let page = browser.get(request.url.as_str()).await;
    if page.is_stop() || page.status >= 400 {
        return Err(page.describe());
    }
    let page = reentry_test_support::keycloak::pages::log_in(&mut browser, &page, user, password).await;
    if !page.is_stop() || !page.stopped().query_pairs().any(|(k, _)| k == "code") {
        return Err(page.describe());
    }
    let code = shop.code(&request, page.stopped());
    let reply = shop.exchange(&code, &request.verifier).await;
    if reply.status == 200 {
        Ok(reply)
    } else {
        Err(format!("{reply:?}"))
    }
}

fn claim(reply: &Reply) -> String {
    let claims = reply.access_claims();
    claims["recovery_scope"].as_str().unwrap_or("absent").to_owned()
}

/// Asks all the while, until it is told to stop: a token that must not be stronger, refresh tokens that must not live
/// again, and `/ready`.
struct Watch {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Watch {
    /// `held` is an access token of a held account; `ended` a refresh token of a session that has ended.
    fn over(world: &World, shop: &RelyingParty, held: &str, ended: &str) -> Self {
        let (halt, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let ready = format!("{}/ready", world.operations);
        let (shop, held, ended) = (
            shop.as_client(
                "shop",
                reentry_test_support::rp::ClientAuth::Basic("shop-secret-of-the-test".to_owned()),
                world::REDIRECT,
            ),
            held.to_owned(),
            ended.to_owned(),
        );
        let (end, count) = (Arc::clone(&halt), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut wrong = Vec::new();
            while !end.load(Ordering::SeqCst) {
                let live = shop.introspect(&held).await;
                let scope = live.json["recovery_scope"].as_str().unwrap_or("none");
                if live.json["active"] == true && !["none", "read", "read write"].contains(&scope) {
                    wrong.push(format!("too strong: {}", live.json));
                }
                let again = shop.refresh(&ended).await;
                if again.status == 200 {
                    wrong.push(format!("an ended session lives again: {}", again.json));
                }
                let ready = reqwest::get(&ready).await.map(|r| r.status().as_u16());
                if !matches!(ready, Ok(200)) {
                    wrong.push(format!("not ready: {ready:?}"));
                }
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            wrong
        });
        Self {
            stop: halt,
            asked,
            task,
        }
    }

    async fn nothing_wrong(self) {
        self.stop.store(true, Ordering::SeqCst);
        let wrong = self.task.await.unwrap();
        assert_eq!(wrong, Vec::<String>::new());
        assert!(
            self.asked.load(Ordering::SeqCst) > 20,
            "hardly anything was asked"
        );
    }
}

/// Waits until no partition is lost any more; sign-ins meanwhile are never stronger than the hold.
async fn rebuilt(shop: &RelyingParty, user: &str, password: &str) -> Reply {
    eventually("the rebuild", SOON, || async {
        match signed_in(shop, user, password).await {
            Ok(reply) => {
                let says = claim(&reply);
                assert!(says == "none" || says == "read write", "too strong: {says}");
                (says == "read write").then_some(reply)
            }
            Err(_) => None,
        }
    })
    .await
}

/// That it was a rebuild which helped, and is counted as one: when it is released, which is a moment after somebody may
/// have seen that.
async fn counted(world: &World) {
    eventually("the count of rebuilds", SOON, || async {
        let metrics = reqwest::get(format!("{}/metrics", world.operations))
            .await
            .unwrap();
        let text = metrics.text().await.unwrap();
        text.contains("reentry_rebuilds_total{outcome=\"done\"}")
            .then_some(())
    })
    .await;
}

fn about_passwords(world: &World, user: &str) -> usize {
    let mails = world.mails.to(&format!("{user}@example.com"));
    mails
        .iter()
        .filter(|m| m.subject.contains("password was"))
        .count()
}

/// The tokens of somebody to whom nothing happened: as old as her password.
async fn newcomer(world: &World, shop: &RelyingParty) -> Reply {
    let nora = json!({
        "username": "nora", "email": "nora@example.com", "emailVerified": true, "enabled": true,
        "firstName": "Nora", "lastName": "Tester",
        "credentials": [{ "type": "password", "value": PASSWORD, "temporary": false }],
    });
    world.realm.post("users", &nora).await;
    sign_in(&mut browser(), shop, ASKED, "nora", PASSWORD)
        .await
        .expect_status(200)
}

// P5, P8, P9, ISS-6, ISS-10
#[tokio::test(flavor = "multi_thread")]
async fn flushall_in_the_middle_of_a_hold_a_contest_and_with_live_sessions() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let nora = newcomer(&world, &shop).await;
    let before = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    held(&world, "ana").await;
    let ana = rebuilt_not_needed(&shop, "ana").await;
    // Carl says that it was not him.
    held(&world, "carl").await;
    let mail = world.mails.to("carl@example.com").remove(0);
    let mut owner = browser();
    let look = owner.get(&mail.link("/cancel/")).await;
    owner.submit(look.form("form")).await;
    world.mails.wait_for("carl@example.com", "frozen", SOON).await;
    let carl = world.sub("carl").await;
    let switched_off = || async {
        let user = world.realm.get(&format!("users/{carl}")).await;
        (user["enabled"] == false).then_some(())
    };
    eventually("carl to be switched off", SOON, switched_off).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = [
        about_passwords(&world, "ana"),
        world.mails.to("carl@example.com").len(),
    ];

    let watch = Watch::over(
        &world,
        &shop,
        ana.text("access_token"),
        before.text("refresh_token"),
    );
    world.redis.cli(&["FLUSHALL"]);
    let dead = shop.refresh(nora.text("refresh_token")).await;
    assert_ne!(dead.status, 200, "{dead:?}");
    // While it is lost something happens: that is told.
    set_password(&world, "bea", CHANGED).await;
    rebuilt(&shop, "ana", CHANGED).await;
    let again = eventually("nora's partition", SOON, || async {
        let reply = signed_in(&shop, "nora", PASSWORD).await.ok()?;
        (claim(&reply) != "none").then_some(reply)
    })
    .await;
    assert_says(&again, "full", ASKED);
    let dead = shop.refresh(nora.text("refresh_token")).await.expect_status(400);
    assert_eq!(dead.error(), "invalid_grant");
    assert!(
        switched_off().await.is_some(),
        "carl's freeze stays at the identity provider"
    );
    assert!(signed_in(&shop, "carl", CHANGED).await.is_err());
    world
        .mails
        .wait_for("bea@example.com", "password was", SOON)
        .await;
    eventually("bea's partition", SOON, || async {
        let reply = signed_in(&shop, "bea", CHANGED).await.ok()?;
        let says = claim(&reply);
        assert!(says == "none" || says == "read write", "too strong: {says}");
        (says == "read write").then_some(())
    })
    .await;
    // Contested came back as contested: an administrator who switches the account on changes nothing here.
    let mut user = world.realm.get(&format!("users/{carl}")).await;
    user["enabled"] = json!(true);
    world.realm.put(&format!("users/{carl}"), &user).await;
    match signed_in(&shop, "carl", CHANGED).await {
        Ok(reply) => panic!("frozen, and signed in: {}", reply.access_claims()),
        Err(why) => assert!(!why.contains("\"code\""), "{why}"),
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    watch.nothing_wrong().await;
    // What the administrator tried just now is told; nothing of before is told again.
    let of_before = |mails: Vec<Mail>| {
        let kept = |m: &&Mail| !m.subject.contains(KEPT);
        mails.iter().filter(kept).count()
    };
    let again = [
        about_passwords(&world, "ana"),
        of_before(world.mails.to("carl@example.com")),
    ];
    assert_eq!(again, told, "nobody is told twice");
    counted(&world).await;
    assert_eq!(about_passwords(&world, "bea"), 1);
    // A link from before the loss still freezes: its case has the same name.
    let mail = world.mails.to("ana@example.com").remove(0);
    let look = owner.get(&mail.link("/cancel/")).await;
    let done = owner.submit(look.form("form")).await;
    assert_eq!(done.status, 200, "{}", done.describe());
    world.mails.wait_for("ana@example.com", "frozen", SOON).await;
}

/// A sign-in of a held account.
async fn rebuilt_not_needed(shop: &RelyingParty, user: &str) -> Reply {
    let reply = signed_in(shop, user, CHANGED).await.unwrap();
    assert_eq!(claim(&reply), "read write");
    reply
}

/// Every key with its value, as a backup has it.
fn snapshot(redis: &Redis) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut connection = connection(redis);
    let names: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    let dump = |name: Vec<u8>, connection: &mut redis::Connection| {
        let value: Option<Vec<u8>> = redis::cmd("DUMP").arg(&name).query(connection).unwrap();
        value.map(|value| (name, value))
    };
    names
        .into_iter()
        .filter_map(|name| dump(name, &mut connection))
        .collect()
}

/// Puts a backup back, at once.
fn restore(redis: &Redis, backup: &[(Vec<u8>, Vec<u8>)]) {
    let mut all = redis::pipe();
    all.atomic().cmd("FLUSHALL");
    for (name, value) in backup {
        all.cmd("RESTORE").arg(name).arg(0).arg(value);
    }
    all.exec(&mut connection(redis)).unwrap();
}

fn connection(redis: &Redis) -> redis::Connection {
    redis::Client::open(redis.url())
        .unwrap()
        .get_connection()
        .unwrap()
}

/// Puts the records of before back of those accounts whose record is another one now, without any key, and takes away
/// the second witness, as somebody does who can write to Redis.
fn put_records_back(redis: &Redis, backup: &[(Vec<u8>, Vec<u8>)]) -> usize {
    let mut connection = connection(redis);
    let mut put = 0;
    for (name, value) in backup.iter().filter(|(n, _)| n.windows(3).any(|w| w == b":s:")) {
        let now: Option<Vec<u8>> = redis::cmd("DUMP").arg(name).query(&mut connection).unwrap();
        if now.as_ref() == Some(value) {
            continue;
        }
        let mut restore = redis::cmd("RESTORE");
        restore.arg(name).arg(0).arg(value).arg("REPLACE");
        restore.exec(&mut connection).unwrap();
        let due = [&name[..8], b":due"].concat();
        redis::cmd("DEL").arg(due).exec(&mut connection).unwrap();
        put += 1;
    }
    put
}

// P5, P15
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_before_that_is_put_back_lifts_nothing_is_an_alarm_and_is_made_anew() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    for user in ["ana", "bea"] {
        let reply = sign_in(&mut browser(), &shop, ASKED, user, PASSWORD).await;
        assert_says(&reply.expect_status(200), "full", ASKED);
    }
    // What follows a log-in is stored by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let backup = snapshot(&world.redis);
    held(&world, "ana").await;
    let ana = rebuilt_not_needed(&shop, "ana").await;
    assert_eq!(put_records_back(&world.redis, &backup), 1);
    let again = shop.refresh(ana.text("refresh_token")).await;
    assert!(again.status != 200 || claim(&again) != "full", "{again:?}");
    // Somebody else, meanwhile.
    let bea = signed_in(&shop, "bea", PASSWORD).await.unwrap();
    assert_says(&bea, "full", ASKED);
    rebuilt(&shop, "ana", CHANGED).await;
    let metrics = reqwest::get(format!("{}/metrics", world.operations))
        .await
        .unwrap();
    let text = metrics.text().await.unwrap();
    assert!(text.contains("reentry_accounts_altered_total 1"), "{text}");
    assert_eq!(about_passwords(&world, "ana"), 1, "nobody is told twice");
    let exported = world.run(&["audit", "export"]);
    assert!(exported.contains("store_altered"), "{exported}");
}

// P5, P9, ISS-6
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_old_snapshot_gives_back_no_token_and_tells_nobody_twice() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let before = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    let nora = newcomer(&world, &shop).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let backup = snapshot(&world.redis);
    // What nora gave back stands in no log of Keycloak's.
    let revoked = nora.text("refresh_token");
    shop.revoke(revoked).await.expect_status(200);
    held(&world, "ana").await;
    let ana = rebuilt_not_needed(&shop, "ana").await;
    let watch = Watch::over(
        &world,
        &shop,
        ana.text("access_token"),
        before.text("refresh_token"),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    restore(&world.redis, &backup);
    rebuilt(&shop, "ana", CHANGED).await;
    let dead = eventually("nora's partition", SOON, || async {
        let reply = shop.refresh(revoked).await;
        (reply.status != 503).then_some(reply)
    })
    .await;
    assert_eq!(dead.status, 400, "what was revoked lives again: {dead:?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    watch.nothing_wrong().await;
    assert_eq!(about_passwords(&world, "ana"), 1, "told once");
    counted(&world).await;
}

// P5, P9, ISS-6: a replica is promoted to which the last writes never came.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_acknowledged_writes_restricts_until_they_are_rebuilt() {
    let mut world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let port = world.redis.port().to_string();
    let replica = Redis::options()
        .arg("--replicaof")
        .arg("127.0.0.1")
        .arg(&port)
        .arg("--repl-diskless-sync-delay")
        .arg("0")
        .start();
    let before = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    eventually("the replica to follow", SOON, || async {
        let info = replica.cli(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // From here on nothing reaches it.
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    held(&world, "ana").await;
    let ana = rebuilt_not_needed(&shop, "ana").await;
    let watch = Watch::over(
        &world,
        &shop,
        ana.text("access_token"),
        before.text("refresh_token"),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.redis.kill9();
    replica.cli(&["CONFIG", "SET", "port", &port]);
    rebuilt(&shop, "ana", CHANGED).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    watch.nothing_wrong().await;
    assert_eq!(about_passwords(&world, "ana"), 1, "told once");
    counted(&world).await;
}

async fn purge(world: &World) {
    for log in ["events", "admin-events"] {
        let reply = world.realm.call(Method::DELETE, log, None).await;
        assert!((200..300).contains(&reply.status), "{log}: {}", reply.status);
    }
}

// P10: time is shortened by the configuration: what is an hour there is half a minute here.
#[tokio::test(flavor = "multi_thread")]
async fn keycloak_gone_for_an_hour_and_its_events_purged_meanwhile() {
    let world = World::start(Setup {
        reconcile: "2s",
        ..Setup::default()
    })
    .await;
    let [shop, ..] = world.relying_parties().await;
    let before = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    eventually("the snapshots", SOON, || async {
        world.reentry.output().contains("reconciled").then_some(())
    })
    .await;
    world.proxy.cut();
    set_password(&world, "ana", CHANGED).await;
    let id = world.sub("bea").await;
    let mut user = world.realm.get(&format!("users/{id}")).await;
    user["email"] = json!("new-bea@example.com");
    world.realm.put(&format!("users/{id}"), &user).await;
    purge(&world).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.proxy.pass();
    // Said loudly, and found by what Keycloak itself has.
    world
        .mails
        .wait_for("ana@example.com", "password was", SOON)
        .await;
    world
        .mails
        .wait_for("bea@example.com", "e-mail address of your account", SOON)
        .await;
    assert!(
        world.reentry.output().contains("lost lines that were just there"),
        "nobody said that the log lost lines: {}",
        world.reentry.output()
    );
    let dead = shop
        .refresh(before.text("refresh_token"))
        .await
        .expect_status(400);
    assert_eq!(dead.error(), "invalid_grant");
    let after = signed_in(&shop, "ana", CHANGED).await.unwrap();
    assert_eq!(claim(&after), "read write");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(about_passwords(&world, "ana"), 1, "told once");
}

async fn admin_events(world: &World, on: bool) {
    let mut config: Value = world.realm.get("events/config").await;
    config["adminEventsEnabled"] = json!(on);
    world.realm.put("events/config", &config).await;
}

fn says(world: &World, text: &str) -> bool {
    world.reentry.output().contains(text)
}

// P5, P10: what Keycloak says nothing about.
#[tokio::test(flavor = "multi_thread")]
async fn reconcile_finds_a_silent_change_a_group_that_was_taken_away_and_defaults_out_of_step() {
    let world = World::start(Setup {
        reconcile: "2s",
        ..Setup::default()
    })
    .await;
    let [shop, ..] = world.relying_parties().await;
    held(&world, "carl").await;
    let carl = world.sub("carl").await;
    let hold_group = || async {
        let groups = world.realm.get(&format!("users/{carl}/groups")).await;
        let all = groups.as_array().unwrap();
        let held = all.iter().find(|g| g["name"] == "hold.read.write");
        held.map(|g| g["id"].as_str().unwrap().to_owned())
    };
    let group = eventually("carl's hold at Keycloak", SOON, hold_group).await;
    eventually("the snapshots", SOON, || async {
        says(&world, "reconciled").then_some(())
    })
    .await;
    admin_events(&world, false).await;
    set_password(&world, "ana", CHANGED).await;
    world
        .mails
        .wait_for("ana@example.com", "password was", SOON)
        .await;
    let ana = signed_in(&shop, "ana", CHANGED).await.unwrap();
    assert_eq!(claim(&ana), "read write");
    // Somebody takes the group away, and no line says so.
    let path = format!("users/{carl}/groups/{group}");
    world.realm.delete(&path, None).await;
    assert_eq!(hold_group().await, None);
    eventually("the hold again", Duration::from_mins(1), hold_group).await;
    assert!(says(&world, "not held as it should be"));
    // A role more for everybody: held accounts lose it, and somebody has to know.
    world.realm.post("roles", &json!({ "name": "newsletter" })).await;
    let role = world.realm.get("roles/newsletter").await;
    let default = world.realm.get("").await["defaultRole"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world
        .realm
        .post(&format!("roles-by-id/{default}/composites"), &json!([role]))
        .await;
    eventually("the alarm", SOON, || async {
        says(&world, "`reentry-held-defaults` is out of step").then_some(())
    })
    .await;
    assert!(says(&world, "newsletter"));
    assert_eq!(about_passwords(&world, "ana"), 1, "told once");
}
