//! People who live in a directory: a real `OpenLDAP` behind a real Keycloak, in each way that Keycloak may write to it.
//!
//! A directory's password has no id and no date in Keycloak, a directory that is away answers for nobody, and one that
//! may only be read refuses every change of an account. None of it may hold up anybody else (P15), and none of it may
//! make a token too strong (P1, P5).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "hooks/senders.rs"]
#[expect(dead_code, reason = "one sender is enough here")]
mod senders;
#[path = "e2e/world.rs"]
#[expect(dead_code, reason = "each suite uses its part of the world")]
mod world;

use std::time::{Duration, Instant};

use reentry_test_support::clock::{eventually, now_s};
use reentry_test_support::directory::Directory;
use reentry_test_support::keycloak::pages;
use reentry_test_support::rp::{RelyingParty, Reply};
use serde_json::json;

use senders::Sender;
use world::{
    ASKED, CHANGED, HELD, HOOK_SECRETS, PASSWORD, Setup, World, assert_says, browser, sign_in, tokens,
};

/// Everybody in the directory.
const PEOPLE: [&str; 3] = ["lena", "milo", "nora"];
const SOON: Duration = Duration::from_secs(20);
/// A poll, and what it does with what it finds, on a busy machine.
const POLL: Duration = Duration::from_secs(6);

async fn company(mode: &str) -> (World, Directory) {
    let world = World::start(Setup {
        timeout: "3s",
        ..Setup::default()
    })
    .await;
    let directory = Directory::start(&PEOPLE, PASSWORD);
    directory.federate(&world.realm, mode).await;
    // Looking for people is what makes Keycloak take them over.
    for name in PEOPLE {
        world.sub(name).await;
    }
    (world, directory)
}

/// "Forgot password?" through Keycloak's pages and mail, and a sign-in at `rp` with the new password: people of a
/// directory are not signed in by themselves after a reset.
async fn recover(world: &World, rp: &RelyingParty, user: &str) -> Reply {
    let mut browser = browser();
    let request = rp.authorization(ASKED);
    let page = browser.get(request.url.as_str()).await;
    let address = format!("{user}@example.com");
    let page = pages::forgot_password(&mut browser, &page, &world.mails, (user, &address), CHANGED).await;
    assert!(!page.is_stop(), "no automatic log-in: {}", page.describe());
    // Whoever signs in while the reset is still being taken in signs in once more: sessions of before it end.
    eventually("a sign-in after the reset", SOON, || async {
        let reply = sign_in(&mut world::browser(), rp, ASKED, user, CHANGED).await;
        (reply.status == 200).then_some(reply)
    })
    .await
}

/// What Keycloak's own tokens say of somebody, or that there are none.
async fn own_token(world: &World, user: &str, password: &str) -> String {
    let spa = world.keycloak_client("spa").await;
    let mut browser = browser();
    let request = spa.authorization(ASKED);
    let page = browser.get(request.url.as_str()).await;
    let page = pages::log_in(&mut browser, &page, user, password).await;
    if !page.is_stop() {
        return "no token".to_owned();
    }
    let reply = tokens(&mut browser, &spa, &request, page).await;
    match reply.status {
        200 => reply.access_claims()["recovery_scope"]
            .as_str()
            .unwrap_or("absent")
            .to_owned(),
        _ => "no token".to_owned(),
    }
}

/// Keycloak's own token of somebody comes to say this.
async fn comes_to_say(world: &World, user: &str, password: &str, says: &[&str]) {
    eventually("Keycloak's own token", SOON, || async {
        let found = own_token(world, user, password).await;
        says.contains(&found.as_str()).then_some(())
    })
    .await;
}

/// The owner follows the link of the notice and says "this was not me".
async fn report(world: &World, user: &str, subject: &str) {
    let mail = world
        .mails
        .wait_for(&format!("{user}@example.com"), subject, SOON)
        .await;
    let mut owner = browser();
    let look = owner.get(&mail.link("/cancel/")).await;
    let done = owner.submit(look.form("form")).await;
    assert_eq!(done.status, 200, "{}", done.describe());
}

/// A program that knows says that somebody's password was reset.
async fn pushed_reset(world: &World, user: &str) {
    let sub = world.sub(user).await;
    let now = jiff::Timestamp::from_second(i64::try_from(now_s()).unwrap()).unwrap();
    let event = json!({
        "type": "password_reset", "timestamp": now.to_string(),
        "data": { "sub": sub },
    });
    let (status, answer) = Sender::new(world, HOOK_SECRETS[0])
        .push(&format!("reset-of-{user}"), &event.to_string())
        .await;
    assert_eq!(status, 204, "{answer}");
}

async fn frozen(world: &World, rp: &RelyingParty, held: &Reply, user: &str, password: &str) {
    let nothing = rp.refresh(held.text("refresh_token")).await.expect_status(400);
    assert_eq!(nothing.error(), "invalid_grant");
    let over = rp.introspect(held.text("access_token")).await.expect_status(200);
    assert_eq!(over.json, json!({ "active": false }));
    let sub = world.sub(user).await;
    eventually("the end of the sessions at Keycloak", SOON, || async {
        let sessions = world.realm.get(&format!("users/{sub}/sessions")).await;
        (sessions == json!([])).then_some(())
    })
    .await;
    comes_to_say(world, user, password, &["none", "no token"]).await;
}

// rows A5, B1, B2, C3; P1
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_is_written_to_the_directory_holds_and_a_report_freezes() {
    let (world, _directory) = company("WRITABLE").await;
    let [shop, ..] = world.relying_parties().await;
    let before = sign_in(&mut browser(), &shop, ASKED, "lena", PASSWORD)
        .await
        .expect_status(200);
    assert_says(&before, "full", ASKED);
    let held = recover(&world, &shop, "lena").await.expect_status(200);
    assert_says(&held, "read write", HELD);
    let dead = shop
        .refresh(before.text("refresh_token"))
        .await
        .expect_status(400);
    assert_eq!(dead.error(), "invalid_grant");
    comes_to_say(&world, "lena", CHANGED, &["read write"]).await;
    report(&world, "lena", "password was").await;
    frozen(&world, &shop, &held, "lena", CHANGED).await;
}

// P1: Keycloak may not write there, but a hold needs no writing to the directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_a_read_only_directory_user_holds_and_a_report_freezes() {
    let (world, _directory) = company("READ_ONLY").await;
    let [shop, ..] = world.relying_parties().await;
    let before = sign_in(&mut browser(), &shop, ASKED, "milo", PASSWORD)
        .await
        .expect_status(200);
    assert_says(&before, "full", ASKED);
    pushed_reset(&world, "milo").await;
    let dead = shop
        .refresh(before.text("refresh_token"))
        .await
        .expect_status(400);
    assert_eq!(dead.error(), "invalid_grant");
    let held = sign_in(&mut browser(), &shop, ASKED, "milo", PASSWORD)
        .await
        .expect_status(200);
    assert_says(&held, "read write", HELD);
    comes_to_say(&world, "milo", PASSWORD, &["read write"]).await;
    report(&world, "milo", "password was").await;
    frozen(&world, &shop, &held, "milo", PASSWORD).await;
}

// P1: the new password stays in Keycloak, with an id and a date of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_stays_in_keycloak_holds() {
    let (world, _directory) = company("UNSYNCED").await;
    let [shop, ..] = world.relying_parties().await;
    sign_in(&mut browser(), &shop, ASKED, "nora", PASSWORD)
        .await
        .expect_status(200);
    let held = recover(&world, &shop, "nora").await.expect_status(200);
    assert_says(&held, "read write", HELD);
    comes_to_say(&world, "nora", CHANGED, &["read write"]).await;
}

// P15: whoever types a directory user's name at "Forgot password?" holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_user_in_the_log_holds_up_nobody() {
    let (world, _directory) = company("READ_ONLY").await;
    let [shop, ..] = world.relying_parties().await;
    sign_in(&mut browser(), &shop, ASKED, "lena", PASSWORD)
        .await
        .expect_status(200);
    let mut stranger = browser();
    let page = stranger.get(shop.authorization(ASKED).url.as_str()).await;
    pages::ask_for_reset(&mut stranger, &page, "lena").await;
    local_user_is_held(&world, "ana").await;
}

/// A local user's reset by an administrator shows in Keycloak's own tokens a poll later.
async fn local_user_is_held(world: &World, user: &str) {
    let sub = world.sub(user).await;
    let password = json!({ "type": "password", "value": CHANGED, "temporary": false });
    let start = Instant::now();
    world
        .realm
        .put(&format!("users/{sub}/reset-password"), &password)
        .await;
    eventually("the hold", POLL, || async {
        let groups = world.realm.get(&format!("users/{sub}/groups")).await;
        groups.to_string().contains("hold.read.write").then_some(())
    })
    .await;
    println!("{user} was held {:?} after the reset", start.elapsed());
}

// P5, P15: the directory is away in the middle of a hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_away_restricts_its_own_people_and_nobody_else() {
    let (world, mut directory) = company("WRITABLE").await;
    let [shop, ..] = world.relying_parties().await;
    let held = recover(&world, &shop, "lena").await.expect_status(200);
    assert_says(&held, "read write", HELD);
    let other = sign_in(&mut browser(), &shop, ASKED, "milo", PASSWORD)
        .await
        .expect_status(200);
    assert_says(&other, "full", ASKED);
    comes_to_say(&world, "lena", CHANGED, &["read write"]).await;
    let (lena, milo) = (world.sub("lena").await, world.sub("milo").await);

    directory.stop();
    // Both turn up in the log while nobody can read them.
    for sub in [&lena, &milo] {
        let _ = world
            .realm
            .call(reqwest::Method::POST, &format!("users/{sub}/logout"), None)
            .await;
    }
    pushed_report_while_away(&world).await;
    local_user_is_held(&world, "ana").await;
    let again = shop.refresh(held.text("refresh_token")).await;
    if again.status == 200 {
        let says = again.access_claims()["recovery_scope"].clone();
        assert!(
            says == "read write" || says == "none",
            "never more than before: {says}"
        );
    }
    local_user_is_held(&world, "bea").await;

    directory.resume();
    // What was reported meanwhile is done once the directory answers again.
    comes_to_say(&world, "lena", CHANGED, &["none", "no token"]).await;
    let whole = eventually("milo is read again", SOON * 2, || async {
        let reply = sign_in(&mut browser(), &shop, ASKED, "milo", PASSWORD).await;
        (reply.status == 200 && reply.access_claims()["recovery_scope"] == "full").then_some(reply)
    })
    .await;
    assert_says(&whole, "full", ASKED);
}

/// The owner of the held account reports while the directory is away: the freeze is stored at once.
async fn pushed_report_while_away(world: &World) {
    report(world, "lena", "password was").await;
}

// P16: somebody whose entry was removed from the directory gets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_removed_from_the_directory_gets_nothing() {
    let (world, directory) = company("READ_ONLY").await;
    let [shop, ..] = world.relying_parties().await;
    let before = sign_in(&mut browser(), &shop, ASKED, "nora", PASSWORD)
        .await
        .expect_status(200);
    directory.remove("nora");
    // Keycloak notices when somebody asks for the account.
    let gone = world.realm.get("users?exact=true&username=nora").await;
    assert_eq!(gone, json!([]));
    assert_eq!(own_token(&world, "nora", PASSWORD).await, "no token");
    local_user_is_held(&world, "ana").await;
    let _ = before;
}

// row C1, P8: an address that changes in the directory, without a line in any log, is found at the next log-in; also of
// an account that nothing was ever told of but its first log-in.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_changed_in_the_directory_is_found_at_the_next_log_in() {
    let (world, directory) = company("READ_ONLY").await;
    let [shop, ..] = world.relying_parties().await;
    sign_in(&mut browser(), &shop, ASKED, "nora", PASSWORD)
        .await
        .expect_status(200);
    directory.set_mail("nora", "thief@example.net");
    let provider = world
        .realm
        .get("components?type=org.keycloak.storage.UserStorageProvider")
        .await;
    let provider = provider[0]["id"].as_str().unwrap();
    let sync = format!("user-storage/{provider}/sync?action=triggerFullSync");
    world.realm.post(&sync, &json!({})).await;
    let held = sign_in(&mut browser(), &shop, ASKED, "nora", PASSWORD)
        .await
        .expect_status(200);
    assert_says(&held, "read write", HELD);
    world.mails.wait_for("nora@example.com", "address", SOON).await;
}
