//! What a decision costs: round trips to Redis, counted on the wire. And what is remembered of a token never says more
//! than is true now.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reentry::domain::time::Span;
use reentry::http::broker::known;
use reentry_test_support::redis::Redis;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::house::House;
use crate::rp::{Browser, introspect, post, refresh, text, tokens, userinfo};

/// What the supervisor of the connection asks by itself now and then.
const PULSE: &[u8] = b"*1\r\n$4\r\nROLE\r\n";

/// Passes everything on to Redis and counts what is sent there at once.
struct Wire {
    address: SocketAddr,
    flights: Arc<AtomicU64>,
}

impl Wire {
    async fn before(redis: &Redis) -> Self {
        let (target, flights) = (redis.address(), Arc::new(AtomicU64::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counted = Arc::clone(&flights);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(target).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&counted)));
            }
        });
        Self { address, flights }
    }

    fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// Round trips of what is done meanwhile.
    async fn count<T>(&self, work: impl Future<Output = T>) -> (u64, T) {
        let before = self.flights.load(Ordering::SeqCst);
        let done = work.await;
        (self.flights.load(Ordering::SeqCst) - before, done)
    }
}

async fn pass(client: TcpStream, server: TcpStream, flights: Arc<AtomicU64>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        if buffer[..length] != *PULSE {
            flights.fetch_add(1, Ordering::SeqCst);
        }
        if to_server.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_decision_is_one_round_trip_to_redis_and_a_refresh_two() {
    let redis = Redis::start();
    let wire = Wire::before(&redis).await;
    let house = House::on_redis(&wire.url()).await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let access = text(&first, "access_token");

    // Cold, then warm: the signature is remembered, the decision is made anew each time.
    assert!(house.context.known.is_empty());
    for visit in ["cold", "warm", "warm again"] {
        let (trips, seen) = wire.count(introspect(&house, access)).await;
        assert_eq!(seen.json()["recovery_scope"], "full");
        assert_eq!(trips, 1, "introspection, {visit}");
    }
    assert_eq!(house.context.known.len(), 1);
    let (trips, seen) = wire.count(userinfo(&house, access)).await;
    assert_eq!((trips, seen.status), (1, 200), "userinfo");
    let (trips, seen) = wire
        .count(introspect(&house, text(&first, "refresh_token")))
        .await;
    assert_eq!(
        (trips, &seen.json()["active"]),
        (1, &Value::Bool(true)),
        "of a refresh token"
    );

    // One reading and one script.
    let mut token = text(&first, "refresh_token").to_owned();
    for _ in 0..3 {
        let (trips, seen) = wire.count(refresh(&house, &token)).await;
        assert_eq!((trips, seen.status), (2, 200), "refresh: {}", seen.body);
        token = text(&seen.json(), "refresh_token").to_owned();
    }

    // Held: the record is there and longer, the round trip is one.
    let held = tokens(&house, &mut Browser::default(), &[]).await;
    house.pass(Span::from_secs(1));
    house.reset(Some("kc-session-1")).await;
    for visit in ["cold", "warm"] {
        let (trips, seen) = wire.count(introspect(&house, text(&held, "access_token"))).await;
        assert_eq!(
            (trips, &seen.json()["recovery_scope"]),
            (1, &Value::from("read write")),
            "held, {visit}"
        );
    }
}

/// Introspected once, so that its signature is remembered.
async fn remembered(house: &House) -> Value {
    let given = tokens(house, &mut Browser::default(), &[]).await;
    let seen = introspect(house, text(&given, "access_token")).await.json();
    assert_eq!(
        (&seen["active"], &seen["recovery_scope"]),
        (&Value::Bool(true), &Value::from("full"))
    );
    assert_eq!(house.context.known.len(), 1);
    given
}

async fn says(house: &House, given: &Value) -> Value {
    introspect(house, text(given, "access_token")).await.json()
}

// P1, ISS-8
#[tokio::test]
async fn p1_a_remembered_token_is_held_revoked_frozen_and_expired_like_any_other() {
    let house = House::new().await;
    let given = remembered(&house).await;
    house.pass(Span::from_secs(1));
    house.reset(Some("kc-session-1")).await;
    assert_eq!(says(&house, &given).await["recovery_scope"], "read write", "held");
    house.cut_store(true);
    assert_eq!(says(&house, &given).await["recovery_scope"], "none", "unreadable");
    house.cut_store(false);

    let house = House::new().await;
    let given = remembered(&house).await;
    let form = [("token", text(&given, "access_token"))];
    assert_eq!(post(&house, "/revoke", &form).await.status, 200);
    assert_eq!(
        says(&house, &given).await,
        serde_json::json!({ "active": false }),
        "revoked"
    );
    assert_eq!(userinfo(&house, text(&given, "access_token")).await.status, 401);

    let house = House::new().await;
    let given = remembered(&house).await;
    house.freeze().await;
    assert_eq!(
        says(&house, &given).await,
        serde_json::json!({ "active": false }),
        "frozen"
    );

    let house = House::new().await;
    let given = remembered(&house).await;
    house.pass(Span::from_secs(given["expires_in"].as_i64().unwrap()));
    assert_eq!(
        says(&house, &given).await,
        serde_json::json!({ "active": false }),
        "expired"
    );
    assert!(house.context.known.is_empty(), "and forgotten");
}

// P1: every octet of a token is part of its name.
#[tokio::test]
async fn p1_a_token_that_differs_in_one_octet_is_not_the_remembered_one() {
    let house = House::new().await;
    let given = remembered(&house).await;
    let access = text(&given, "access_token");
    for at in [0, access.find('.').unwrap() + 5, access.len() - 8] {
        let mut other = access.to_owned();
        let flipped = if other.as_bytes()[at] == b'A' { "B" } else { "A" };
        other.replace_range(at..=at, flipped);
        assert_eq!(introspect(&house, &other).await.json()["active"], false);
    }
    let longer = format!("{access}A");
    assert_eq!(introspect(&house, &longer).await.json()["active"], false);
    assert_eq!(
        house.context.known.len(),
        1,
        "what does not verify pushes nothing out"
    );
}

// A key that is withdrawn takes with it what it has signed, remembered or not.
#[tokio::test]
async fn p1_a_remembered_token_dies_with_its_key() {
    let house = House::new().await;
    let given = remembered(&house).await;
    let access = text(&given, "access_token");
    assert!(known::known(&house.context, access).is_some());
    let without = House::with_other_keys(&house);
    assert!(known::known(&without, access).is_none(), "its key is gone");
    assert!(without.known.is_empty(), "and forgotten");
}
