//! The main job, end to end: a real Keycloak with its own forms and mails, a real Redis, the built program.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "e2e/world.rs"]
#[expect(dead_code, reason = "each suite uses its part of the world")]
mod world;

#[path = "e2e/withdrawn.rs"]
mod withdrawn;

use std::time::Duration;

use reentry_test_support::clock::eventually;
use reentry_test_support::keycloak::pages;
use reentry_test_support::rp::{ClientAuth, RelyingParty, Reply, words};
use serde_json::{Value, json};

use world::{
    ASKED, CHANGED, HELD, LogsIn, PASSWORD, REDIRECT, Setup, World, assert_says, browser, scope_set, sign_in,
    tokens,
};

const MAIL: Duration = Duration::from_secs(15);

/// "Forgot password?" from a relying party's sign-in, through Keycloak's pages and mail, to the tokens of the
/// automatic log-in.
async fn recover(world: &World, rp: &RelyingParty, user: &str, password: &str) -> Reply {
    let mut browser = browser();
    let request = rp.authorization(ASKED);
    let page = browser.get(request.url.as_str()).await;
    let address = format!("{user}@example.com");
    let page = pages::forgot_password(&mut browser, &page, &world.mails, (user, &address), password).await;
    tokens(&mut browser, rp, &request, page).await
}

// rows A5, B1, B2, B8, C3, C11, C12; ISS-1 to ISS-8
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_reduces_the_first_token_and_ends_the_old_session() {
    let world = World::start(Setup::default()).await;
    let [shop, office, app] = world.relying_parties().await;

    let mut old_browser = browser();
    let before = sign_in(&mut old_browser, &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    assert_says(&before, "full", ASKED);
    let refreshed = shop
        .refresh(before.text("refresh_token"))
        .await
        .expect_status(200);
    assert_says(&refreshed, "full", ASKED);
    for rp in [&office, &app] {
        let reply = sign_in(&mut browser(), rp, ASKED, "ana", PASSWORD)
            .await
            .expect_status(200);
        assert_says(&reply, "full", ASKED);
    }

    let first = recover(&world, &shop, "ana", CHANGED).await.expect_status(200);
    assert_says(&first, "read write", HELD);
    assert_eq!(scope_set(first.text("scope")), HELD);
    let claims = first.access_claims();
    assert!(claims["recovery_until"].as_i64().unwrap() > claims["iat"].as_i64().unwrap());
    assert!(claims["recovery_epoch"].as_i64().unwrap() > 1_700_000_000);
    assert!(claims["recovery_ref"].as_str().unwrap().len() <= 36);
    assert!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 300,
        "ISS-5"
    );

    // Its own session lives and its refresh is reduced; the sessions of before are dead.
    let again = shop.refresh(first.text("refresh_token")).await.expect_status(200);
    assert_says(&again, "read write", HELD);
    assert_eq!(again.access_claims()["sid"], claims["sid"], "ISS-7");
    let dead = shop
        .refresh(refreshed.text("refresh_token"))
        .await
        .expect_status(400);
    assert_eq!(dead.error(), "invalid_grant");
    let old = shop
        .introspect(refreshed.text("access_token"))
        .await
        .expect_status(200);
    assert_eq!(old.json, json!({ "active": false }));
    let silent = shop.authorization(ASKED).with("prompt", "none");
    let page = old_browser.get(silent.url.as_str()).await;
    assert_eq!(
        page.query("error").as_deref(),
        Some("login_required"),
        "{}",
        page.describe()
    );

    let live = shop
        .introspect(again.text("access_token"))
        .await
        .expect_status(200);
    assert_eq!(
        (live.json["active"].clone(), live.json["recovery_scope"].clone()),
        (json!(true), json!("read write"))
    );
    let info = shop.userinfo(again.text("access_token")).await.expect_status(200);
    assert_eq!(info.json["recovery_scope"], "read write");

    // Everyone known before is told at once, with a link that a mail scanner may open.
    let mail = world
        .mails
        .wait_for("ana@example.com", "password was", MAIL)
        .await;
    let link = mail.link("/cancel/");
    let look = browser().get(&link).await;
    assert_eq!(look.header("referrer-policy"), Some("no-referrer"));
    assert_says(
        &shop.refresh(again.text("refresh_token")).await.expect_status(200),
        "read write",
        HELD,
    );
}

// ISS-3, ISS-7, ISS-8
#[tokio::test(flavor = "multi_thread")]
async fn after_the_hold_the_next_refresh_is_whole_without_a_new_consent() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let held = recover(&world, &shop, "quinn", CHANGED).await.expect_status(200);
    assert_says(&held, "read write", HELD);
    let token_of_the_hold = held.text("access_token").to_owned();
    let mut refresh_token = held.text("refresh_token").to_owned();
    let mut last = held;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        last = shop.refresh(&refresh_token).await.expect_status(200);
        last.text("refresh_token").clone_into(&mut refresh_token);
        if last.access_claims()["recovery_scope"] == "full" {
            break;
        }
        assert_says(&last, "read write", HELD);
    }
    assert_says(&last, "full", ASKED);
    let stale = shop.introspect(&token_of_the_hold).await.expect_status(200);
    assert_eq!(
        stale.json["recovery_scope"], "read write",
        "ISS-8: the stricter of what it says and what is true"
    );
    assert_eq!(scope_set(stale.text("scope")), HELD);
}

// row B8; contract section 3, profile "Keycloak token mode"
#[tokio::test(flavor = "multi_thread")]
async fn keycloaks_own_tokens_are_reduced_within_a_poll() {
    let world = World::start(Setup {
        force_login: true,
        ..Setup::default()
    })
    .await;
    let (spa, narrow) = (
        world.keycloak_client("spa").await,
        world.keycloak_client("narrow").await,
    );
    let consenting = world.keycloak_client("consenting").await;
    let robot = spa.as_client(
        "robot",
        reentry_test_support::rp::ClientAuth::Basic("robot-secret".to_owned()),
        REDIRECT,
    );

    let consented = sign_in(&mut browser(), &consenting, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    let before = sign_in(&mut browser(), &spa, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    for reply in [&consented, &before] {
        assert_says(reply, "full", ASKED);
    }

    // Force login after reset: the reset ends on a page, not in a session.
    let mut other = browser();
    let page = other.get(spa.authorization(ASKED).url.as_str()).await;
    let page = pages::forgot_password(
        &mut other,
        &page,
        &world.mails,
        ("ana", "ana@example.com"),
        CHANGED,
    )
    .await;
    assert!(!page.is_stop(), "no automatic log-in: {}", page.describe());
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let asked = format!("{ASKED} offline_access");
    let in_hold = format!("{HELD} offline_access reentry-hold.read.write");
    for rp in [&spa, &narrow, &consenting] {
        let reply = sign_in(&mut browser(), rp, &asked, "ana", CHANGED)
            .await
            .expect_status(200);
        assert_says(&reply, "read write", &in_hold);
        assert_eq!(reply.id_claims()["recovery_scope"], "read write");
        let again = rp.refresh(reply.text("refresh_token")).await.expect_status(200);
        assert_says(&again, "read write", &in_hold);
    }
    let dead = spa.refresh(before.text("refresh_token")).await;
    assert_eq!((dead.status, dead.error()), (400, "invalid_grant"));
    let machine = robot
        .client_credentials("openid payments:write")
        .await
        .expect_status(200);
    assert_eq!(
        machine.access_claims()["recovery_scope"],
        "full",
        "nobody changed the robot"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloaks_own_tokens_are_whole_again_after_the_hold() {
    let world = World::start(Setup {
        force_login: true,
        quick: "12s",
        ..Setup::default()
    })
    .await;
    let spa = world.keycloak_client("spa").await;
    let mut other = browser();
    let page = other.get(spa.authorization(ASKED).url.as_str()).await;
    pages::forgot_password(
        &mut other,
        &page,
        &world.mails,
        ("quinn", "quinn@example.com"),
        CHANGED,
    )
    .await;
    let consenting = world.keycloak_client("consenting").await;
    eventually("the hold", Duration::from_secs(5), || async {
        let reply = sign_in(&mut browser(), &spa, ASKED, "quinn", CHANGED)
            .await
            .expect_status(200);
        (reply.access_claims()["recovery_scope"] == "read write").then_some(())
    })
    .await;
    // Sessions of the second in which the change became known end with it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut session = browser();
    let held = sign_in(&mut session, &spa, ASKED, "quinn", CHANGED)
        .await
        .expect_status(200);
    assert!(!words(held.access_claims()["scope"].as_str().unwrap()).contains(&"payments:write"));
    let mut refresh_token = held.text("refresh_token").to_owned();
    let whole = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let reply = spa.refresh(&refresh_token).await.expect_status(200);
        reply.text("refresh_token").clone_into(&mut refresh_token);
        if reply.access_claims()["recovery_scope"] == "full" {
            break reply;
        }
    };
    // At a refresh Keycloak gives no scope that the session was not given at its log-in, so those come back with
    // the next authorization request: single sign-on, nothing asked, no consent.
    assert_eq!(whole.access_claims()["recovery_scope"], "full");
    let silent = spa.authorization(ASKED).with("prompt", "none");
    let page = session.get(silent.url.as_str()).await;
    let again = tokens(&mut session, &spa, &silent, page).await.expect_status(200);
    assert_says(&again, "full", ASKED);
    let reply = sign_in(&mut browser(), &consenting, ASKED, "quinn", CHANGED)
        .await
        .expect_status(200);
    assert_eq!(reply.access_claims()["recovery_scope"], "full");
}

// row C3; domain table, "password changed"
#[tokio::test(flavor = "multi_thread")]
async fn a_voluntary_change_holds_no_consumer_and_tells_them() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let spa = world.keycloak_client("spa").await;
    let mut browser = browser();
    sign_in(&mut browser, &spa, ASKED, "victor", PASSWORD)
        .await
        .expect_status(200);
    let request = spa.authorization(ASKED).with("kc_action", "UPDATE_PASSWORD");
    let page = browser.get(request.url.as_str()).await;
    let page = pages::set_new_password(&mut browser, &page, CHANGED, false).await;
    assert!(page.is_stop(), "{}", page.describe());
    world
        .mails
        .wait_for("victor@example.com", "password was", MAIL)
        .await;
    let reply = sign_in(&mut world::browser(), &shop, ASKED, "victor", CHANGED)
        .await
        .expect_status(200);
    assert_says(&reply, "full", ASKED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_holds_nobody() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let invited = json!({
        "username": "ivy", "email": "ivy@example.com", "emailVerified": true, "enabled": true,
        "firstName": "Ivy", "lastName": "Tester", "requiredActions": ["UPDATE_PASSWORD"],
    });
    let known = || world.redis.cli(&["KEYS", "re:{*}:a:*"]).lines().count();
    let before = known();
    let id = world.realm.post("users", &invited).await;
    // Whoever had no password is known to have had none; a person needs longer for the mail than a poll takes.
    eventually("the first snapshot", MAIL, || async {
        (known() > before).then_some(())
    })
    .await;
    world
        .realm
        .put(
            &format!("users/{id}/execute-actions-email"),
            &json!(["UPDATE_PASSWORD"]),
        )
        .await;
    let mail = world
        .mails
        .wait_for("ivy@example.com", "update your account", MAIL)
        .await;
    let mut browser = browser();
    let page = pages::open_action_link(&mut browser, &mail.link("action-token")).await;
    pages::set_new_password(&mut browser, &page, PASSWORD, false).await;
    let reply = sign_in(&mut world::browser(), &shop, ASKED, "ivy", PASSWORD)
        .await
        .expect_status(200);
    assert_says(&reply, "full", ASKED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrators_reset_password_holds() {
    let world = World::start(Setup::default()).await;
    let [shop, ..] = world.relying_parties().await;
    let before = sign_in(&mut browser(), &shop, ASKED, "carl", PASSWORD)
        .await
        .expect_status(200);
    let id = world.sub("carl").await;
    let password = json!({ "type": "password", "value": CHANGED, "temporary": false });
    world
        .realm
        .put(&format!("users/{id}/reset-password"), &password)
        .await;
    world
        .mails
        .wait_for("carl@example.com", "password was", MAIL)
        .await;
    let reply = sign_in(&mut browser(), &shop, ASKED, "carl", CHANGED)
        .await
        .expect_status(200);
    assert_says(&reply, "read write", HELD);
    let dead = shop
        .refresh(before.text("refresh_token"))
        .await
        .expect_status(400);
    assert_eq!(dead.error(), "invalid_grant");
}

/// An administrator's token for the admin API.
async fn admin_token(office: &RelyingParty, user: &str) -> String {
    let scope = "openid reentry:admin";
    let reply = sign_in(&mut browser(), office, scope, user, PASSWORD)
        .await
        .expect_status(200);
    reply.text("access_token").to_owned()
}

async fn thaw(world: &World, token: &str, sub: &str, finding: &str) -> (u16, Value) {
    let url = format!("{}/api/v1/subjects/company/{sub}/thaw", world.issuer);
    let sent = reqwest::Client::new()
        .post(url)
        .bearer_auth(token)
        .json(&json!({ "finding": finding }))
        .send()
        .await;
    let response = sent.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

// rows A10, C1, C10, H3, I3, N8; P4, P7, P11; ISS-10
#[tokio::test(flavor = "multi_thread")]
async fn a_report_from_the_removed_address_freezes_until_two_administrators_thaw() {
    let world = World::start(Setup::default()).await;
    let [shop, office, _] = world.relying_parties().await;
    let id = world.sub("bea").await;

    // The address changes shortly before; the old one is told.
    let mut user = world.realm.get(&format!("users/{id}")).await;
    user["email"] = json!("new-bea@example.com");
    world.realm.put(&format!("users/{id}"), &user).await;
    world
        .mails
        .wait_for("bea@example.com", "e-mail address of your account", MAIL)
        .await;
    world.mails.clear();

    // Then the password is reset by way of the new address: both are told, only the old one gets a link.
    let mut attacker = browser();
    let request = shop.authorization(ASKED);
    let page = attacker.get(request.url.as_str()).await;
    let page = pages::forgot_password(
        &mut attacker,
        &page,
        &world.mails,
        ("bea", "new-bea@example.com"),
        CHANGED,
    )
    .await;
    let taken = tokens(&mut attacker, &shop, &request, page)
        .await
        .expect_status(200);
    assert_says(&taken, "read write", HELD);
    let to_old = world
        .mails
        .wait_for("bea@example.com", "password was", MAIL)
        .await;
    let to_new = world
        .mails
        .wait_for("new-bea@example.com", "password was", MAIL)
        .await;
    assert!(!to_new.text.contains("/cancel/"), "{}", to_new.text);

    // The owner says so: GET looks, POST freezes.
    let mut owner = browser();
    let look = owner.get(&to_old.link("/cancel/")).await;
    shop.refresh(taken.text("refresh_token")).await.expect_status(200);
    let done = owner.submit(look.form("form")).await;
    assert_eq!(done.status, 200, "{}", done.describe());
    let refused = shop
        .introspect(taken.text("access_token"))
        .await
        .expect_status(200);
    assert_eq!(refused.json, json!({ "active": false }));
    let nothing = shop.refresh(taken.text("refresh_token")).await.expect_status(400);
    assert_eq!(nothing.error(), "invalid_grant");
    let request = shop.authorization(ASKED);
    eventually(
        "the account to be closed at Keycloak",
        Duration::from_secs(10),
        || async { (world.realm.get(&format!("users/{id}")).await["enabled"] == false).then_some(()) },
    )
    .await;
    let page = browser().get(request.url.as_str()).await;
    let page = pages::log_in(&mut browser(), &page, "bea", CHANGED).await;
    assert!(!page.is_stop(), "nobody gets in: {}", page.describe());
    world.mails.wait_for("bea@example.com", "frozen", MAIL).await;

    // One administrator alone cannot, nor twice, nor the same finding by none; two can.
    let (one, two) = (
        admin_token(&office, "admin-one").await,
        admin_token(&office, "admin-two").await,
    );
    assert_eq!(thaw(&world, &one, &id, "owner").await.0, 200);
    assert_eq!(thaw(&world, &one, &id, "owner").await.0, 409);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(
        world.realm.get(&format!("users/{id}")).await["enabled"],
        false,
        "one alone cannot"
    );
    assert_eq!(thaw(&world, &two, &id, "owner").await.0, 200);

    // With finding `owner` the attacker's password is gone, the address is back, and a `read` hold follows.
    eventually("the thaw", Duration::from_secs(20), || async {
        let user = world.realm.get(&format!("users/{id}")).await;
        (user["enabled"] == true).then_some(user)
    })
    .await;
    let user = world.realm.get(&format!("users/{id}")).await;
    assert_eq!(user["email"], "bea@example.com");
    let credentials = world.realm.get(&format!("users/{id}/credentials")).await;
    assert_eq!(credentials.as_array().unwrap().len(), 0, "{credentials:#}");
    let request = shop.authorization(ASKED);
    let mut owner = browser();
    let page = owner.get(request.url.as_str()).await;
    let page = pages::forgot_password(
        &mut owner,
        &page,
        &world.mails,
        ("bea", "bea@example.com"),
        PASSWORD,
    )
    .await;
    let back = tokens(&mut owner, &shop, &request, page).await.expect_status(200);
    assert_says(&back, "read", "openid profile email accounts:read");
}

// P11: nobody thaws their own account.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_cannot_thaw_their_own_account() {
    let world = World::start(Setup::default()).await;
    let [_, office, _] = world.relying_parties().await;
    let one = admin_token(&office, "admin-one").await;
    let id = world.sub("admin-one").await;
    let (status, problem) = thaw(&world, &one, &id, "owner").await;
    assert!((400..500).contains(&status), "{status} {problem}");
}

fn lines(value: &Value) -> Vec<String> {
    serde_json::to_string_pretty(value)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wire_is_idempotent_and_undo_takes_back_exactly_what_it_made() {
    let world = World::start(Setup {
        force_login: true,
        ..Setup::default()
    })
    .await;
    let arguments = world::wire_arguments(world.setup());
    let with = |flag: &'static str| {
        let mut all = arguments.clone();
        all.push(flag);
        all
    };
    let second = world.run(&with("--yes"));
    assert!(second.contains("nothing to change"), "{second}");
    let checked = world.try_run(&with("--check"));
    assert_eq!(checked.0, 0, "{}", checked.1);
    // What four roles do not show is said, with what to do, and is no reason to fail.
    let says_blind = || {
        let (_, text) = world.try_run(&["doctor", "--config", "reentry.yaml", "--json"]);
        // Warnings about the configuration follow.
        let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let found = values.next().unwrap().unwrap();
        let of_company = |f: &&Value| f["part"] == "upstream company";
        let ours: Vec<&Value> = found["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(of_company)
            .collect();
        assert_eq!(ours[0]["level"], "good", "{ours:?}");
        ours.iter()
            .any(|f| f["level"] == "warn" && f["text"].as_str().unwrap().contains("--view-clients"))
    };
    assert!(says_blind());
    let mut seeing = with("--view-clients");
    seeing.push("--yes");
    let given = world.run(&seeing);
    assert!(given.contains("role realm-management/view-clients"), "{given}");
    assert!(!says_blind());
    assert_eq!(world.try_run(&with("--check")).0, 0, "it may stay");
    let mut undo = with("--undo");
    undo.push("--yes");
    world.run(&undo);
    let undone = world.realm.export().await;
    let (before, after) = (lines(&world.before), lines(&undone));
    let gone: Vec<&String> = before.iter().filter(|l| !after.contains(l)).collect();
    let new: Vec<&String> = after.iter().filter(|l| !before.contains(l)).collect();
    assert!(undone == world.before, "gone: {gone:#?} new: {new:#?}");
}

// Relying parties stay at Keycloak, and administrators alone log in here: that is enough to end a freeze (rows H3, I3).
#[tokio::test(flavor = "multi_thread")]
async fn token_mode_with_a_client_for_administrators_ends_a_freeze() {
    let world = World::start(Setup {
        logs_in: LogsIn::Administrators,
        ..Setup::default()
    })
    .await;
    let checked = world.run(&["config", "check", "--config", "reentry.yaml"]);
    assert!(checked.contains("can be used"), "{checked}");
    let post = ClientAuth::Post("back-office-secret-of-the-test".to_owned());
    let office = RelyingParty::discover(&world.issuer, "back-office", post, REDIRECT).await;
    let spa = world.keycloak_client("spa").await;
    let id = world.sub("ana").await;
    recover(&world, &spa, "ana", CHANGED).await;
    let mail = eventually("the notice", MAIL, || async {
        let mails = world.mails.to("ana@example.com");
        mails
            .into_iter()
            .rev()
            .find(|mail| mail.text.contains("/cancel/"))
    })
    .await;
    let http = reqwest::Client::new();
    let frozen = http.post(mail.link("/cancel/")).send().await.unwrap();
    assert_eq!(frozen.status(), 200, "frozen");
    for who in ["admin-one", "admin-two"] {
        let token = admin_token(&office, who).await;
        let (status, body) = thaw(&world, &token, &id, "unfounded").await;
        assert_eq!(status, 200, "{who}: {body}");
    }
    eventually("the end of the freeze at Keycloak", MAIL, || async {
        let user = world.realm.get(&format!("users/{id}")).await;
        (user["enabled"] == true).then_some(())
    })
    .await;
    let mut browser = browser();
    let reply = sign_in(&mut browser, &spa, ASKED, "ana", CHANGED)
        .await
        .expect_status(200);
    assert_eq!(reply.access_claims()["recovery_scope"], "read");
}

// `doctor` proves what people would notice first: the broker client's secret and address (contract section 5).
#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_a_wrong_secret_of_the_broker_and_an_address_that_is_not_registered() {
    let world = World::start(Setup::default()).await;
    let examine = || {
        let (_, text) = world.try_run(&["doctor", "--config", "reentry.yaml", "--json"]);
        // What is said on standard error follows the document.
        let mut documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let found = documents.next().unwrap().unwrap();
        let all = found["findings"].as_array().unwrap().clone();
        let of_broker = |f: &&Value| f["part"] == "upstream company broker";
        all.iter().find(of_broker).expect("it is looked at").clone()
    };
    let found = examine();
    assert_eq!(found["level"], "good", "{found}");
    // `wire --yes` kept the file that was there, and gave the client its secret.
    let kept = std::fs::read_to_string(world.reentry.directory().join("broker-secret")).unwrap();
    assert_eq!(kept, "broker-secret-of-the-test");
    let clients = world.realm.get("clients?clientId=reentry-broker").await;
    let mut client = clients[0].clone();
    let uuid = client["id"].as_str().unwrap().to_owned();
    let uris = client["redirectUris"].clone();
    client["redirectUris"] = json!(["https://elsewhere.example/callback"]);
    world.realm.put(&format!("clients/{uuid}"), &client).await;
    let found = examine();
    assert!(
        found["level"] == "bad" && found["text"].as_str().unwrap().contains("valid redirect URIs"),
        "{found}"
    );
    client["redirectUris"] = uris;
    client["secret"] = json!("another-secret-than-the-file-holds");
    world.realm.put(&format!("clients/{uuid}"), &client).await;
    let found = examine();
    assert!(
        found["level"] == "bad" && found["text"].as_str().unwrap().contains("its secret"),
        "{found}"
    );
}

// Relying parties stay at Keycloak: no broker, no clients of ours. Holds come to Keycloak's own tokens all the same.
#[tokio::test(flavor = "multi_thread")]
async fn token_mode_alone_starts_and_holds_at_keycloak() {
    let world = World::start(Setup {
        logs_in: LogsIn::Nobody,
        ..Setup::default()
    })
    .await;
    let checked = world.run(&["config", "check", "--config", "reentry.yaml"]);
    assert!(checked.contains("can be used"), "{checked}");
    let (_, doctor) = world.try_run(&["doctor", "--config", "reentry.yaml", "--json"]);
    assert!(!doctor.contains("\"bad\""), "{doctor}");

    let spa = world.keycloak_client("spa").await;
    let before = sign_in(&mut browser(), &spa, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    assert_eq!(before.access_claims()["recovery_scope"], "full");
    recover(&world, &spa, "ana", CHANGED).await;
    eventually("the hold at Keycloak", MAIL, || async {
        let reply = sign_in(&mut browser(), &spa, ASKED, "ana", CHANGED)
            .await
            .expect_status(200);
        (reply.access_claims()["recovery_scope"] == "read write").then_some(())
    })
    .await;

    // The link of the message works, and pages say where the owner has to go.
    let mail = eventually("the notice", MAIL, || async {
        let mails = world.mails.to("ana@example.com");
        mails
            .into_iter()
            .rev()
            .find(|mail| mail.text.contains("/cancel/"))
    })
    .await;
    let http = reqwest::Client::new();
    let link = mail.link("/cancel/");
    assert_eq!(http.get(&link).send().await.unwrap().status(), 200);
    let account = http
        .get(format!("{}/account", world.issuer))
        .send()
        .await
        .unwrap();
    assert_eq!(account.status(), 404);
    assert!(account.text().await.unwrap().contains("There is no sign-in here"));
    assert_eq!(http.post(&link).send().await.unwrap().status(), 200, "frozen");
}
