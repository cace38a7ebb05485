//! Hooks on the built program beside a real Keycloak: pushed changes, wake-ups, and everything somebody could send
//! there who should not. What is refused is refused with a clear 4xx, and nothing is stored.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "e2e/world.rs"]
#[expect(dead_code, reason = "each suite uses its part of the world")]
mod world;

#[path = "hooks/attack.rs"]
mod attack;
#[path = "hooks/senders.rs"]
mod senders;

use std::time::Duration;

use reentry_test_support::clock::{env, eventually, now_ms, now_s};
use reentry_test_support::keycloak::pages;
use reentry_test_support::receiver::{Manner, Received};
use serde_json::{Value, json};

use senders::{Catcher, EXTENSION_SECRET, RealmKey, Sender, bearer, hmac_hex};
use world::{
    ASKED, CHANGED, HELD, HOOK_SECRETS, PASSWORD, RECEIVER_SECRETS, Setup, World, assert_says, browser,
    sign_in,
};

const SOON: Duration = Duration::from_secs(20);

/// A world that reads its log so rarely that only a wake-up explains haste.
async fn slow() -> World {
    World::start(Setup {
        poll: "5m",
        ..Setup::default()
    })
    .await
}

fn at(offset: i64) -> String {
    let millis = i64::try_from(now_ms()).unwrap() + offset * 1000;
    jiff::Timestamp::from_millisecond(millis).unwrap().to_string()
}

fn reset_of(sub: &str) -> Value {
    json!({ "type": "password_reset", "timestamp": at(-1), "data": { "sub": sub, "proof": "message" } })
}

/// What Reentry counts under a metric, all labels together.
async fn counted(world: &World, name: &str) -> u64 {
    let text = reqwest::get(format!("{}/metrics", world.operations))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

async fn changes(world: &World) -> u64 {
    counted(world, "reentry_changes_total").await
}

/// Asserts that nothing was stored by what was sent and that it is a problem document of this code.
#[track_caller]
fn assert_problem(what: &str, (status, body): &(u16, Value), expected: u16, code: &str) {
    assert_eq!(*status, expected, "{what}: {body}");
    if *status != 404 && *status != 413 {
        assert!(body["detail"].is_string(), "{what}: {body}");
    }
    assert_eq!(
        body["type"],
        format!("urn:reentry:problem:{code}"),
        "{what}: {body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_program_can_push_a_change_and_a_repetition_is_stored_once() {
    let world = slow().await;
    let [shop, ..] = world.relying_parties().await;
    let before = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    let sender = Sender::new(&world, HOOK_SECRETS[1]);
    let body = reset_of(&world.sub("ana").await).to_string();
    assert_eq!(sender.push("msg_1", &body).await.0, 204);
    // The answer got lost: the sender repeats with the same id, a new time, and a secret that takes over.
    let newer = Sender::new(&world, HOOK_SECRETS[0]);
    assert_eq!(newer.push("msg_1", &body).await.0, 204);
    assert_eq!(changes(&world).await, 1, "stored once");
    let dead = shop
        .refresh(before.text("refresh_token"))
        .await
        .expect_status(400);
    assert_eq!(dead.error(), "invalid_grant", "ISS-6");
    let mails = world.mails.wait_count("ana@example.com", 1, SOON).await;
    assert!(mails[0].subject.contains("password was"), "{}", mails[0].subject);
    let after = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    assert_says(&after, "read write", HELD);
    // The IdP's own id of an event makes the same change one, whoever tells of it, under whatever message.
    let sub = world.sub("carl").await;
    let named = |id: &str| {
        let mut body = reset_of(&sub);
        body["data"]["event_id"] = json!(id);
        body.to_string()
    };
    assert_eq!(sender.push("msg_2", &named("e-1")).await.0, 204);
    assert_eq!(sender.push("msg_3", &named("e-1")).await.0, 204);
    assert_eq!(changes(&world).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_change_is_not_acknowledged_while_the_store_is_away() {
    let mut world = slow().await;
    let sender = Sender::new(&world, HOOK_SECRETS[0]);
    let body = reset_of(&world.sub("bea").await).to_string();
    world.redis.kill9();
    let (status, answer) = sender.push("msg_1", &body).await;
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer["trace_id"].is_string() && answer.get("detail").is_none(),
        "{answer}"
    );
    world.redis.restart();
    eventually("the repetition to be taken", SOON, || async {
        (sender.push("msg_1", &body).await.0 == 204).then_some(())
    })
    .await;
    assert_eq!(changes(&world).await, 1);
    world
        .mails
        .wait_for("bea@example.com", "password was", SOON)
        .await;
}

/// `text` with the word PLACE in it replaced by octets that are no UTF-8.
fn bad_utf8(text: &str) -> Vec<u8> {
    let (before, after) = text.split_once("PLACE").unwrap();
    [before.as_bytes(), &[0xff, 0xfe], after.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one list of what is refused, told to one server"
)]
async fn wrong_signature_replay_huge_body_bad_utf8_and_duplicate_members_at_the_generic_hook() {
    let world = slow().await;
    let sender = Sender::new(&world, HOOK_SECRETS[0]);
    let sub = world.sub("ana").await;
    let good = reset_of(&sub).to_string();
    let stranger = Sender::new(&world, "whsec_c3RyYW5nZXIgc3RyYW5nZXIgc3RyYW5nZXIgc3RyYW4=");
    assert_problem(
        "wrong signature",
        &stranger.push("m", &good).await,
        401,
        "unauthorized",
    );
    let now = now_s();
    let headers = sender.headers("m", now, good.as_bytes());
    let other = good.replace("password_reset", "email_changed");
    assert_problem(
        "another body",
        &sender.send(&headers, other.as_bytes()).await,
        401,
        "unauthorized",
    );
    for missing in 0..headers.len() {
        let mut some = headers.clone();
        let (name, _) = some.remove(missing);
        assert_problem(
            name,
            &sender.send(&some, good.as_bytes()).await,
            400,
            "bad-request",
        );
        let mut twice = headers.clone();
        twice.push(headers[missing].clone());
        assert_problem(
            name,
            &sender.send(&twice, good.as_bytes()).await,
            400,
            "bad-request",
        );
    }
    // What was right when it was recorded.
    let mut then = reset_of(&sub);
    then["timestamp"] = json!(at(-361));
    let then = then.to_string();
    for (what, at, body) in [("replay", now - 360, &then), ("future", now + 360, &good)] {
        let headers = sender.headers("m", at, body.as_bytes());
        assert_problem(
            what,
            &sender.send(&headers, body.as_bytes()).await,
            401,
            "unauthorized",
        );
    }
    for at in ["soon", "-1", "1e9", "99999999999999999999", ""] {
        let headers = sender.headers_at("m", at, good.as_bytes());
        assert_problem(
            at,
            &sender.send(&headers, good.as_bytes()).await,
            400,
            "bad-request",
        );
    }
    let long = "m".repeat(101);
    for id in ["a b", "a.b", long.as_str()] {
        assert_problem(id, &sender.push(id, &good).await, 400, "bad-request");
    }
    let malformed: [(&str, Vec<u8>); 9] = [
        (
            "bad UTF-8",
            bad_utf8(&good.replace("\"sub\":", "\"origin\":\"PLACE\",\"sub\":")),
        ),
        ("empty", Vec::new()),
        ("not JSON", b"type=password_reset".to_vec()),
        ("a list", format!("[{good}]").into_bytes()),
        ("two documents", format!("{good}{good}").into_bytes()),
        (
            "duplicate members",
            good.replace("\"data\":", "\"type\":\"email_changed\",\"data\":")
                .into_bytes(),
        ),
        (
            "duplicate members inside",
            good.replace("\"sub\":", "\"sub\":\"x\",\"sub\":").into_bytes(),
        ),
        (
            "unknown member",
            good.replace("\"data\":", "\"priority\":1,\"data\":").into_bytes(),
        ),
        (
            "a proof that lightens",
            good.replace("\"message\"", "\"eligible_factor\"").into_bytes(),
        ),
    ];
    for (what, body) in malformed {
        let headers = sender.headers("m", now_s(), &body);
        assert_problem(what, &sender.send(&headers, &body).await, 400, "bad-request");
    }
    let deep = "{\"a\":".repeat(5_000);
    assert_problem("deep", &sender.push("m", &deep).await, 400, "bad-request");
    let mut nobody = reset_of("00000000-0000-0000-0000-000000000000");
    assert_problem(
        "unknown account",
        &sender.push("m", &nobody.to_string()).await,
        422,
        "invalid-event",
    );
    nobody["data"]["sub"] = json!("../admin");
    assert_problem(
        "a path",
        &sender.push("m", &nobody.to_string()).await,
        422,
        "invalid-event",
    );
    let mut later = reset_of(&sub);
    later["timestamp"] = json!(at(3_600));
    assert_problem(
        "an event to come",
        &sender.push("m", &later.to_string()).await,
        422,
        "invalid-event",
    );
    let huge = format!("{{\"type\":\"{}\"}}", "x".repeat(2 * 1024 * 1024));
    let (status, _) = sender.push("m", &huge).await;
    assert_eq!(status, 413, "huge body");
    let mut elsewhere = Sender::new(&world, HOOK_SECRETS[0]);
    for upstream in ["nobody", "UPPER", "%2e%2e", "company%00"] {
        elsewhere.url = format!("{}/hooks/generic/{upstream}/events", world.issuer);
        assert_problem(upstream, &elsewhere.push("m", &good).await, 404, "not-found");
    }
    let mut plain = Sender::new(&world, HOOK_SECRETS[0]);
    plain.content_type = "text/plain";
    assert_problem(
        "another type",
        &plain.push("m", &good).await,
        415,
        "unsupported-media-type",
    );
    assert_eq!(changes(&world).await, 0, "nothing was stored");
    assert_eq!(world.mails.to("ana@example.com").len(), 0);
    // What was recorded is of no use once its time has passed; until then it changes nothing.
    assert_eq!(sender.send(&headers, good.as_bytes()).await.0, 204);
    assert_eq!(sender.send(&headers, good.as_bytes()).await.0, 204);
    assert_eq!(changes(&world).await, 1);
}

/// A reset at Keycloak that the poller will not see for minutes.
async fn unseen_reset(world: &World, user: &str) {
    let spa = world.keycloak_client("spa").await;
    let mut browser = browser();
    let page = browser.get(spa.authorization("openid").url.as_str()).await;
    let address = format!("{user}@example.com");
    pages::forgot_password(&mut browser, &page, &world.mails, (user, &address), CHANGED).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(
        !world
            .mails
            .to(&address)
            .iter()
            .any(|mail| mail.subject.contains("password was")),
        "nobody has told Reentry yet"
    );
}

fn event(user: &str, uid: &str) -> String {
    json!({
        "uid": uid, "id": uid, "time": now_ms(), "type": "access.UPDATE_CREDENTIAL",
        "authDetails": { "userId": user }, "details": { "credential_type": "password" }, "unknown": [1, 2],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn phase_two_webhook_wakes_the_poller_and_is_never_believed() {
    let world = slow().await;
    let sender = Sender::extension(&world);
    let ana = world.sub("ana").await;
    // It says that ana's password was changed. It was not: nothing happens.
    let lie = event(&ana, "lie");
    assert_eq!(
        sender
            .send(&[hmac_hex(EXTENSION_SECRET, &lie)], lie.as_bytes())
            .await
            .0,
        204
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(changes(&world).await, 0, "never believed by itself");
    unseen_reset(&world, "ana").await;
    let true_one = event(&world.sub("bea").await, "word");
    assert_eq!(
        sender
            .send(&[hmac_hex(EXTENSION_SECRET, &true_one)], true_one.as_bytes())
            .await
            .0,
        204
    );
    world
        .mails
        .wait_for("ana@example.com", "password was", SOON)
        .await;
    // The same by a token of the realm.
    unseen_reset(&world, "carl").await;
    let signed = event(&world.sub("carl").await, "token");
    let token = bearer(&world, signed.as_bytes(), "hook-audience").await;
    assert_eq!(
        sender
            .send(&[("authorization", format!("Bearer {token}"))], signed.as_bytes())
            .await
            .0,
        204
    );
    world
        .mails
        .wait_for("carl@example.com", "password was", SOON)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one list of what is refused, told to one server"
)]
async fn wrong_signature_replay_huge_body_bad_utf8_and_duplicate_members_at_the_phase_two_webhook() {
    let world = slow().await;
    let sender = Sender::extension(&world);
    let good = event(&world.sub("ana").await, "one");
    let refused = "unauthorized";
    assert_problem("no proof", &sender.send(&[], good.as_bytes()).await, 401, refused);
    let other = hmac_hex("another secret than ours", &good);
    assert_problem(
        "wrong signature",
        &sender.send(&[other], good.as_bytes()).await,
        401,
        refused,
    );
    let mine = hmac_hex(EXTENSION_SECRET, &good);
    let changed = good.replace("password", "otp");
    assert_problem(
        "another body",
        &sender.send(std::slice::from_ref(&mine), changed.as_bytes()).await,
        401,
        refused,
    );
    let twice = sender.send(&[mine.clone(), mine.clone()], good.as_bytes()).await;
    assert_problem("twice", &twice, 400, "bad-request");
    for wrong in ["", "zz", "sha256=00", &"0".repeat(40), &mine.1.to_uppercase()] {
        let (status, body) = sender
            .send(&[("x-keycloak-signature", wrong.to_owned())], good.as_bytes())
            .await;
        assert!(matches!(status, 400 | 401), "{wrong}: {status} {body}");
    }
    for (what, minutes) in [("old", -30_i64), ("future", 30)] {
        let mut event: Value = serde_json::from_str(&good).unwrap();
        event["time"] = json!(i64::try_from(now_ms()).unwrap() + minutes * 60_000);
        let event = event.to_string();
        let sent = sender
            .send(&[hmac_hex(EXTENSION_SECRET, &event)], event.as_bytes())
            .await;
        assert_problem(what, &sent, 401, refused);
    }
    let malformed: [(&str, Vec<u8>); 5] = [
        ("bad UTF-8", bad_utf8(&good.replace("\"password\"", "\"PLACE\""))),
        (
            "duplicate members",
            good.replace("\"time\":", "\"uid\":\"x\",\"time\":").into_bytes(),
        ),
        (
            "duplicate members that nobody knows",
            good.replace("\"unknown\":", "\"unknown\":1,\"unknown\":")
                .into_bytes(),
        ),
        ("no id", b"{\"time\":1}".to_vec()),
        ("no time", b"{\"uid\":\"x\"}".to_vec()),
    ];
    for (what, body) in malformed {
        let sent = sender
            .send(&[senders::hmac_of(EXTENSION_SECRET, &body)], &body)
            .await;
        assert_problem(what, &sent, 400, "bad-request");
    }
    let stranger = good.replace("\"uid\":\"one\"", "\"uid\":\"two\",\"realmName\":\"other\"");
    let sent = sender
        .send(&[hmac_hex(EXTENSION_SECRET, &stranger)], stranger.as_bytes())
        .await;
    assert_problem("another realm", &sent, 422, "invalid-event");
    // Tokens, each about this body and signed by the realm.
    let bearer_of = |token: String| [("authorization", format!("Bearer {token}"))];
    let key = RealmKey::add(&world).await;
    let claims = |body: &[u8]| {
        let about = json!({ "request_body_sha256": senders::sha256(body) });
        key.claims("hook-audience", &about)
    };
    for (what, token) in key.spoiled(&claims(good.as_bytes())) {
        let (status, body) = sender.send(&bearer_of(token), good.as_bytes()).await;
        assert!(matches!(status, 400 | 401), "{what}: {status} {body}");
    }
    let about_another = key.sign(&claims(b"{}"));
    assert_problem(
        "about another body",
        &sender.send(&bearer_of(about_another), good.as_bytes()).await,
        401,
        refused,
    );
    let huge = format!("{{\"uid\":\"{}\"}}", "x".repeat(2 * 1024 * 1024));
    assert_eq!(
        sender
            .send(&[hmac_hex(EXTENSION_SECRET, &huge)], huge.as_bytes())
            .await
            .0,
        413,
        "huge body"
    );
    let mut elsewhere = Sender::extension(&world);
    elsewhere.url = format!("{}/hooks/extension/nobody/events", world.issuer);
    assert_problem(
        "upstream",
        &elsewhere.send(std::slice::from_ref(&mine), good.as_bytes()).await,
        404,
        "not-found",
    );
    assert_eq!(woken(&world).await, 0, "nobody was woken");
    assert_eq!(
        sender.send(std::slice::from_ref(&mine), good.as_bytes()).await.0,
        204
    );
    assert_problem(
        "replay",
        &sender.send(&[mine], good.as_bytes()).await,
        409,
        "replayed",
    );
    assert_eq!((woken(&world).await, changes(&world).await), (1, 0));
    // The same hand makes a good token: it is what was wrong that was refused.
    let next = event(&world.sub("ana").await, "next");
    let token = bearer_of(key.sign(&claims(next.as_bytes())));
    assert_eq!(sender.send(&token, next.as_bytes()).await.0, 204);
    assert_problem(
        "replay",
        &sender.send(&token, next.as_bytes()).await,
        409,
        "replayed",
    );
}

/// How often a hook woke the poller.
async fn woken(world: &World) -> u64 {
    let text = reqwest::get(format!("{}/metrics", world.operations))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let lines = text.lines().filter(|line| line.contains("outcome=\"woken\""));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

// contract section 5; OpenID Connect Back-Channel Logout 1.0
#[tokio::test(flavor = "multi_thread")]
async fn keycloaks_own_back_channel_logout_wakes_the_poller() {
    let world = slow().await;
    let [shop, ..] = world.relying_parties().await;
    sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    unseen_reset(&world, "ana").await;
    // `wire` registered the address at the broker's client; Keycloak calls it when an administrator ends sessions.
    let ana = world.sub("ana").await;
    world.realm.post(&format!("users/{ana}/logout"), &json!({})).await;
    world
        .mails
        .wait_for("ana@example.com", "password was", SOON)
        .await;
    assert!(woken(&world).await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_signature_replay_huge_body_bad_utf8_and_duplicate_members_at_back_channel_logout() {
    let world = slow().await;
    let [shop, ..] = world.relying_parties().await;
    // Keycloak's real token, caught on its way.
    let catcher = Catcher::start().await;
    let uuid = world.realm.client_uuid("reentry-broker").await;
    let mut client = world.realm.get(&format!("clients/{uuid}")).await;
    assert_eq!(
        client["attributes"]["backchannel.logout.url"],
        format!("{}/backchannel-logout/company", world.issuer),
        "registered by `wire`"
    );
    client["attributes"]["backchannel.logout.url"] = json!(catcher.url);
    world.realm.put(&format!("clients/{uuid}"), &client).await;
    let reply = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    let ana = world.sub("ana").await;
    world.realm.post(&format!("users/{ana}/logout"), &json!({})).await;
    let token = catcher.token().await;
    let send = async |form: &[(&str, &str)]| -> (u16, Value) {
        let url = format!("{}/backchannel-logout/company", world.issuer);
        let response = reqwest::Client::new().post(url).form(form).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    };
    let wrong = |what: &str, (status, body): &(u16, Value)| {
        assert_eq!(*status, 400, "{what}: {body}");
        assert_eq!(body["error"], "invalid_request", "{what}: {body}");
        assert!(body["error_description"].is_string(), "{what}: {body}");
    };
    let key = RealmKey::add(&world).await;
    let about = |jti: &str| {
        let event = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
        let more = json!({ "sub": ana, "jti": jti, "typ": "Logout", "events": event });
        key.claims("reentry-broker", &more)
    };
    for (what, token) in key.spoiled(&about("spoiled")) {
        wrong(what, &send(&[("logout_token", &token)]).await);
    }
    for (what, name, value) in [
        ("recorded", "iat", json!(now_s() - 600)),
        ("no event", "events", json!({})),
        ("a nonce", "nonce", json!("n")),
        ("of another kind", "typ", json!("Bearer")),
        ("no id", "jti", Value::Null),
    ] {
        let mut claims = about("wrong");
        claims[name] = value;
        wrong(what, &send(&[("logout_token", &key.sign(&claims))]).await);
    }
    wrong("nothing", &send(&[]).await);
    wrong("empty", &send(&[("logout_token", "")]).await);
    wrong(
        "duplicate members",
        &send(&[("logout_token", &token), ("logout_token", &token)]).await,
    );
    // Tokens of the realm that are no logout tokens.
    wrong(
        "an ID token of ours",
        &send(&[("logout_token", reply.text("id_token"))]).await,
    );
    let access = bearer(&world, b"{}", "reentry-broker").await;
    wrong(
        "an access token for us",
        &send(&[("logout_token", &access)]).await,
    );
    let logout_of_another = bearer(&world, b"{}", "elsewhere").await;
    wrong(
        "for another",
        &send(&[("logout_token", &logout_of_another)]).await,
    );
    let raw = async |body: Vec<u8>, kind: &'static str, upstream: &str| {
        let url = format!("{}/backchannel-logout/{upstream}", world.issuer);
        let answer = reqwest::Client::new()
            .post(url)
            .header("content-type", kind)
            .body(body)
            .send()
            .await;
        answer.unwrap().status().as_u16()
    };
    let form = "application/x-www-form-urlencoded";
    let beside = |more: &[u8]| [format!("logout_token={token}&x=").as_bytes(), more].concat();
    for octets in [b"%ff%fe".as_slice(), &[0xff, 0xfe]] {
        assert_eq!(raw(beside(octets), form, "company").await, 400, "bad UTF-8");
    }
    let huge = beside(&vec![b'x'; 2 * 1024 * 1024]);
    assert_eq!(raw(huge, form, "company").await, 413, "huge body");
    assert_eq!(raw(b"{}".to_vec(), "application/json", "company").await, 415);
    assert_eq!(
        raw(format!("logout_token={token}").into_bytes(), form, "nobody").await,
        404
    );
    assert_eq!(woken(&world).await, 0, "nobody was woken");
    assert_eq!(send(&[("logout_token", &token)]).await.0, 200);
    wrong("replay", &send(&[("logout_token", &token)]).await);
    assert_eq!((woken(&world).await, changes(&world).await), (1, 0));
    // The same hand makes a good token: it is what was wrong that was refused.
    let good = key.sign(&about("good"));
    assert_eq!(send(&[("logout_token", &good)]).await.0, 200);
    wrong("replay", &send(&[("logout_token", &good)]).await);
}

/// What the library of the Standard Webhooks project says about a message.
fn verified(received: &Received, secret: &str) -> Value {
    use std::io::Write as _;
    let python = env("REENTRY_TEST_PYTHON").unwrap();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/clients/standardwebhooks_verify.py"
    );
    let mut child = std::process::Command::new(python)
        .arg(script)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let body = String::from_utf8(received.body.clone()).unwrap();
    let given = json!({ "secret": secret, "headers": received.headers, "body": body });
    child
        .stdin
        .take()
        .unwrap()
        .write_all(given.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

// rows "webhooks" and "traceparent": the section `webhooks` of a real configuration, to the very receiver
#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_is_told_is_good_to_the_specifications_own_library() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let world = World::start(Setup {
        poll: "5m",
        webhooks: true,
        ..Setup::default()
    })
    .await;
    let sender = Sender::new(&world, HOOK_SECRETS[0]);
    let sub = world.sub("ana").await;
    let body = reset_of(&sub).to_string();
    let mut headers = sender.headers("msg_1", now_s(), body.as_bytes());
    headers.push(("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")));
    // It fails at first: the message comes again under the same id, with a new time and a new signature.
    world.receiver.behave(Manner::Status(500));
    assert_eq!(sender.send(&headers, body.as_bytes()).await.0, 204);
    world.receiver.wait_count(1, SOON).await;
    world.receiver.behave(Manner::Take);
    let received = world.receiver.wait_count(2, SOON).await;
    let told: Vec<&Received> = received.iter().collect();
    assert_eq!(told[0].headers["webhook-id"], told[1].headers["webhook-id"]);
    for one in &told {
        assert_eq!(one.line, "POST /hook?team=7 HTTP/1.1");
        for secret in RECEIVER_SECRETS {
            let taken = &verified(one, secret)["taken"];
            assert_eq!(
                (&taken["type"], &taken["data"]["sub"]),
                (&json!("hold.started"), &json!(sub))
            );
            assert_eq!(taken["data"]["upstream"], "company");
        }
        let parts: Vec<&str> = one.headers["traceparent"].split('-').collect();
        assert_eq!(
            (parts.len(), parts[1]),
            (4, TRACE),
            "the trace of what was pushed"
        );
    }
    let spans: Vec<&str> = told
        .iter()
        .map(|one| &one.headers["traceparent"][36..52])
        .collect();
    assert_ne!(spans[0], spans[1], "each try is a step of its own");
    // Nobody else's secret, and nothing that was changed on the way.
    let refused = |received: &Received, secret: &str| verified(received, secret)["refused"].is_string();
    assert!(refused(told[1], HOOK_SECRETS[0]));
    let mut forged = told[1].clone();
    forged.body.push(b' ');
    assert!(refused(&forged, RECEIVER_SECRETS[0]));
    let mut replayed = told[1].clone();
    replayed
        .headers
        .insert("webhook-timestamp".to_owned(), (now_s() - 600).to_string());
    assert!(refused(&replayed, RECEIVER_SECRETS[0]));
    // A report freezes the account, and the receiver is told of that too; of what it did not ask for it is not.
    let mail = world.mails.wait_count("ana@example.com", 1, SOON).await;
    let link = mail[0].link("/cancel/");
    reqwest::Client::new().post(link).send().await.unwrap();
    let received = world.receiver.wait_count(3, SOON).await;
    let frozen = verified(&received[2], RECEIVER_SECRETS[0]);
    assert_eq!(frozen["taken"]["type"], "account.contested", "{frozen}");
    assert_ne!(
        received[2].headers["webhook-id"],
        received[1].headers["webhook-id"]
    );
    let trace = &received[2].headers["traceparent"];
    assert!(
        trace.len() == 55 && !trace.contains(TRACE),
        "the trace of the report: {trace}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.receiver.received().len(), 3, "each once");
}
