//! One address against the running program: nothing lasting comes of it, and everybody else is answered.

use std::time::Duration;

use futures_util::StreamExt as _;
use reentry_test_support::redis::Redis;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{SOON, reset_of, slow};
use crate::senders::Sender;
use crate::world::{ASKED, HOOK_SECRETS, PASSWORD, World, browser, sign_in};

const ATTACKER: &str = "198.51.100.9";

/// The same company behind a proxy that says for whom it asks, with a body's time long enough for the test.
async fn behind_a_proxy() -> World {
    let mut world = slow().await;
    let path = world.reentry.directory().join("reentry.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    let server = "server:\n  trusted_proxies: [127.0.0.0/8]\n  body_timeout: 90s\n";
    std::fs::write(&path, config.replacen("server:\n", server, 1)).unwrap();
    world.reentry.restart();
    let ready = format!("{}/ready", world.operations);
    world.reentry.wait_http(&ready, Duration::from_mins(1)).await;
    world
}

fn used(redis: &Redis) -> i64 {
    let info = redis.cli(&["INFO", "memory"]);
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().trim().parse().unwrap()
}

/// Sends all of them, some at once; how many were answered 429.
async fn flood(requests: impl Iterator<Item = reqwest::RequestBuilder>) -> usize {
    let sent = futures_util::stream::iter(requests.map(|request| async move {
        let status = request.send().await.unwrap().status().as_u16();
        assert!(status < 500, "{status}");
        usize::from(status == 429)
    }));
    sent.buffer_unordered(32)
        .fold(0, |all, one| async move { all + one })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_one_address_leaves_nothing_in_the_store_and_takes_nobodys_place() {
    let world = behind_a_proxy().await;
    let [shop, ..] = world.relying_parties().await;
    let given = sign_in(&mut browser(), &shop, ASKED, "ana", PASSWORD)
        .await
        .expect_status(200);
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let before = used(&world.redis);
    let account = format!("{}/account", world.issuer);
    let from = |request: reqwest::RequestBuilder, who: &str| request.header("x-forwarded-for", who);
    let heads = (0..5_000).map(|_| from(http.head(&account), ATTACKER));
    assert!(flood(heads).await > 4_000, "HEAD is limited like GET");
    let asked = shop.authorization(ASKED).url;
    let gets = (0..5_000).map(|n| {
        // Half of them from addresses that are free: each its own /64.
        let who = if n % 2 == 0 {
            ATTACKER.to_owned()
        } else {
            format!("2001:db8:{n:x}::1")
        };
        from(http.get(asked.clone()), &who)
    });
    assert!(flood(gets).await < 2_501, "others are not limited");
    let grown = used(&world.redis) - before;
    assert!(grown < 1024 * 1024, "the store has grown by {grown} octets");

    let address = world.issuer.trim_start_matches("http://").to_owned();
    let mut crowd = Vec::new();
    let doors = [
        ("/introspect", "application/x-www-form-urlencoded"),
        ("/token", "application/x-www-form-urlencoded"),
        ("/hooks/generic/company/events", "application/json"),
        ("/cancel/rubbish", "application/x-www-form-urlencoded"),
    ];
    for (path, kind) in doors.into_iter().cycle().take(1_200) {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nx-forwarded-for: {ATTACKER}\r\ncontent-type: {kind}\r\n\
             content-length: 900\r\n\r\na"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        crowd.push(stream);
    }
    for _ in 0..20 {
        let live = shop
            .introspect(given.text("access_token"))
            .await
            .expect_status(200);
        assert_eq!(live.json["active"], true);
    }
    let sender = Sender::new(&world, HOOK_SECRETS[0]);
    let body = reset_of(&world.sub("ana").await).to_string();
    assert_eq!(
        sender.push("msg_1", &body).await.0,
        204,
        "a pushed change is stored"
    );
    let mail = world.mails.wait_count("ana@example.com", 1, SOON).await;
    let report = from(http.post(mail[0].link("/cancel/")), ATTACKER)
        .send()
        .await
        .unwrap();
    assert_eq!(
        report.status(),
        200,
        "a good link is heard, also at the attacker's address"
    );
    let live = shop
        .introspect(given.text("access_token"))
        .await
        .expect_status(200);
    assert_eq!(live.json["active"], false, "frozen");
    drop(crowd);
}
