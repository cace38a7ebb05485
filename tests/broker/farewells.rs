//! Back-channel log-out: every relying party of a session that ended is told, whatever another one does.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use reentry::domain::time::Span;
use reentry::flow::deliver;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::house::{House, header, payload};
use crate::rp::{Browser, code, redeem, seen, text, tokens};

/// What a relying party was told.
#[derive(Clone, Default)]
struct Party {
    told: Arc<Mutex<Vec<String>>>,
    traced: Arc<Mutex<Vec<String>>>,
    status: Arc<Mutex<u16>>,
    then: Arc<Mutex<Option<Cut>>>,
    uri: String,
}

/// What happens once when somebody was told.
type Cut = Box<dyn FnOnce() + Send>;

impl Party {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let party = Self {
            uri: format!("http://{}/backchannel-logout", listener.local_addr().unwrap()),
            status: Arc::new(Mutex::new(200)),
            ..Self::default()
        };
        let (told, status) = (Arc::clone(&party.told), Arc::clone(&party.status));
        let (traced, then) = (Arc::clone(&party.traced), Arc::clone(&party.then));
        let take = move |headers: HeaderMap, body: String| async move {
            let status = *status.lock().unwrap();
            let trace = headers.get("traceparent").map(|v| v.to_str().unwrap().to_owned());
            traced.lock().unwrap().extend(trace);
            if status == 0 {
                tokio::time::sleep(Duration::from_mins(1)).await;
            }
            told.lock()
                .unwrap()
                .push(body.strip_prefix("logout_token=").unwrap().to_owned());
            if let Some(then) = then.lock().unwrap().take() {
                then();
            }
            StatusCode::from_u16(status).unwrap()
        };
        let router = Router::new().route("/backchannel-logout", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        party
    }

    fn answers(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

/// A house whose bank and robot take back-channel log-out; the single-page application does not.
async fn house() -> (House, Party, Party) {
    let (bank, robot) = (Party::start().await, Party::start().await);
    let (at_bank, at_robot) = (bank.uri.clone(), robot.uri.clone());
    let house = House::with(|settings| {
        settings.clients.get_mut("bank").unwrap().backchannel_logout_uri = Some(at_bank);
        settings.clients.get_mut("away").unwrap().upstreams.clear();
        settings.clients.get_mut("away").unwrap().backchannel_logout_uri = Some(at_robot);
    })
    .await;
    (house, bank, robot)
}

/// The outbox is worked off once.
async fn work(house: &House) {
    deliver::round(&house.flow, "test", &CancellationToken::new())
        .await
        .unwrap();
    deliver::round(&house.flow, "test", &CancellationToken::new())
        .await
        .unwrap();
}

/// One session of which the bank, another client and the application have tokens; the bank's.
async fn everywhere(house: &House, browser: &mut Browser) -> serde_json::Value {
    let first = tokens(house, browser, &[]).await;
    for (client, redirect) in [
        ("away", crate::house::REDIRECT),
        ("spa", "https://spa.example/cb"),
    ] {
        let scope = ("scope", "openid accounts:read");
        let waiting = code(
            house,
            browser,
            &[("client_id", client), ("redirect_uri", redirect), scope],
        )
        .await;
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", &waiting),
            ("redirect_uri", redirect),
            ("code_verifier", crate::rp::VERIFIER),
        ];
        let answer = seen(
            house
                .http
                .post(house.url("/token"))
                .form(&form)
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    first
}

#[tokio::test]
async fn a_change_that_ends_sessions_is_told_to_every_relying_party() {
    let (house, bank, robot) = house().await;
    let first = everywhere(&house, &mut Browser::default()).await;
    work(&house).await;
    assert!(
        bank.told().is_empty() && robot.told().is_empty(),
        "nothing has ended"
    );
    house.pass(Span::from_secs(10));
    house.reset(None).await;
    work(&house).await;
    assert_eq!((bank.told().len(), robot.told().len()), (1, 1));
    for (token, client) in [(&bank.told()[0], "bank"), (&robot.told()[0], "away")] {
        let (head, body) = (header(token), payload(token));
        assert_eq!(
            (head["typ"].as_str(), head["alg"].as_str()),
            (Some("logout+jwt"), Some("RS256"))
        );
        let set: serde_json::Value = serde_json::from_str(
            &seen(house.http.get(house.url("/jwks")).send().await.unwrap())
                .await
                .body,
        )
        .unwrap();
        assert!(
            set["keys"]
                .as_array()
                .unwrap()
                .iter()
                .any(|k| k["kid"] == head["kid"])
        );
        assert_eq!(
            (body["aud"].as_str(), body["iss"].as_str()),
            (Some(client), Some(house.issuer.as_str()))
        );
        assert_eq!(body["sub"], "alice");
        assert_eq!(body["sid"], payload(text(&first, "id_token"))["sid"]);
        assert_eq!(
            body["events"],
            json!({"http://schemas.openid.net/event/backchannel-logout": {}})
        );
        assert_eq!(body["iat"], house.now());
        assert!(body["exp"].as_i64().unwrap() - house.now() <= 120);
        assert!(body["jti"].as_str().unwrap().len() > 8);
        assert!(
            body.get("nonce").is_none(),
            "forbidden in a logout token (section 2.4)"
        );
        // It is no token for anything else.
        assert_eq!(crate::rp::userinfo(&house, token).await.status, 401);
    }
    work(&house).await;
    assert_eq!((bank.told().len(), robot.told().len()), (1, 1), "once");
}

// P9: what arrived is known to have, although the store could not take that down just then.
#[tokio::test]
async fn what_arrived_is_not_sent_again_when_the_store_was_away_just_then() {
    let (house, bank, _) = house().await;
    everywhere(&house, &mut Browser::default()).await;
    house.pass(Span::from_secs(10));
    house.reset(None).await;
    let store = Arc::clone(&house.store);
    *bank.then.lock().unwrap() = Some(Box::new(move || store.down.store(true, Ordering::SeqCst)));
    while bank.told().is_empty() {
        let round = deliver::round(&house.flow, "test", &CancellationToken::new()).await;
        assert_eq!(round.is_err(), !bank.told().is_empty(), "{round:?}");
    }
    house.store.down.store(false, Ordering::SeqCst);
    work(&house).await;
    assert_eq!(bank.told().len(), 1);
}

#[tokio::test]
async fn the_session_of_the_change_itself_lives_and_nobody_is_told() {
    let (house, bank, _) = house().await;
    everywhere(&house, &mut Browser::default()).await;
    house.pass(Span::from_secs(10));
    house.reset(Some("kc-session-1")).await;
    work(&house).await;
    assert!(bank.told().is_empty());
}

#[tokio::test]
async fn a_log_out_an_end_by_the_owner_and_a_freeze_are_told() {
    let (house, bank, robot) = house().await;
    let mut browser = Browser::default();
    let first = everywhere(&house, &mut browser).await;
    let url = format!(
        "{}?id_token_hint={}",
        house.url("/logout"),
        text(&first, "id_token")
    );
    browser.get(&house, &url).await;
    work(&house).await;
    assert_eq!((bank.told().len(), robot.told().len()), (1, 1), "log-out");
    let mut browser = Browser::default();
    let second = everywhere(&house, &mut browser).await;
    let sid = payload(text(&second, "id_token"))["sid"]
        .as_str()
        .unwrap()
        .to_owned();
    reentry::flow::account::end_session(&house.flow, &House::subject(), &sid)
        .await
        .unwrap();
    work(&house).await;
    assert_eq!(
        (bank.told().len(), robot.told().len()),
        (2, 2),
        "the owner's page"
    );
    assert_eq!(payload(&bank.told()[1])["sid"], sid.as_str());
    everywhere(&house, &mut Browser::default()).await;
    house.freeze().await;
    for _ in 0..3 {
        work(&house).await;
    }
    assert_eq!((bank.told().len(), robot.told().len()), (3, 3), "a freeze");
    let kinds: std::collections::BTreeSet<String> = bank
        .told()
        .iter()
        .map(|t| payload(t)["jti"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.len(), 3, "every token has a name of its own");
}

#[tokio::test]
async fn a_relying_party_that_fails_or_hangs_keeps_no_other_waiting_and_is_tried_again() {
    let (house, bank, robot) = house().await;
    robot.answers(500);
    everywhere(&house, &mut Browser::default()).await;
    house.pass(Span::from_secs(10));
    house.reset(None).await;
    work(&house).await;
    assert_eq!(bank.told().len(), 1);
    assert_eq!(robot.told().len(), 1, "it failed");
    work(&house).await;
    assert_eq!(robot.told().len(), 1, "not at once again");
    robot.answers(0);
    house.pass(Span::from_secs(30));
    let before = std::time::Instant::now();
    work(&house).await;
    assert!(
        before.elapsed() < Duration::from_secs(20),
        "a hanging one is left after its deadline"
    );
    robot.answers(204);
    // The attempt that hangs holds its lane until its deadline, by the real clock.
    for _ in 0..60 {
        house.pass(Span::from_mins(10));
        work(&house).await;
        if robot.told().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!((bank.told().len(), robot.told().len()), (1, 2));
    house.pass(Span::from_hours(2));
    work(&house).await;
    assert_eq!(robot.told().len(), 2, "it has taken it");
}

// CORS: scripts of a public client's origins, and of nobody else.
#[tokio::test]
async fn scripts_of_a_clients_origins_may_read_tokens_and_userinfo() {
    let house = House::with(|settings| {
        let spa = settings.clients.get_mut("spa").unwrap();
        spa.origins.insert("https://spa.example".to_owned());
    })
    .await;
    let allowed = |seen: &crate::rp::Seen| {
        let header = seen.headers.get("access-control-allow-origin");
        header.map(|h| h.to_str().unwrap().to_owned())
    };
    for (path, origin, expected) in [
        ("/token", "https://spa.example", Some("https://spa.example")),
        ("/userinfo", "https://spa.example", Some("https://spa.example")),
        ("/token", "https://evil.example", None),
        ("/token", "null", None),
        ("/introspect", "https://spa.example", None),
        ("/authorize", "https://spa.example", None),
        ("/jwks", "https://evil.example", Some("*")),
        (
            "/.well-known/openid-configuration",
            "https://evil.example",
            Some("*"),
        ),
    ] {
        let request = house
            .http
            .request(reqwest::Method::OPTIONS, house.url(path))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization");
        let answer = seen(request.send().await.unwrap()).await;
        assert_eq!(allowed(&answer).as_deref(), expected, "{path} {origin}");
        assert_eq!(
            answer.status == 204,
            expected.is_some(),
            "{path} {origin}: {answer:?}"
        );
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    }
    let ask = async |client: &str, origin: &str| {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", "x"),
            ("client_id", client),
        ];
        let request = house
            .http
            .post(house.url("/token"))
            .header("origin", origin)
            .form(&form);
        seen(request.send().await.unwrap()).await
    };
    assert_eq!(
        allowed(&ask("spa", "https://spa.example").await).as_deref(),
        Some("https://spa.example")
    );
    assert_eq!(
        allowed(&ask("away", "https://spa.example").await),
        None,
        "another client's"
    );
    assert_eq!(allowed(&ask("spa", "https://evil.example").await), None);
    let mut browser = Browser::default();
    let waiting = code(&house, &mut browser, &[]).await;
    let first = redeem(&house, &waiting).await.json();
    let request = house
        .http
        .get(house.url("/userinfo"))
        .bearer_auth(text(&first, "access_token"));
    let theirs = seen(
        request
            .header("origin", "https://spa.example")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!((theirs.status, allowed(&theirs)), (200, None), "the bank's token");
}

// row "traceparent is passed on": by whom the session was ended, also when it has to be said again
#[tokio::test]
async fn a_logout_token_carries_the_trace_of_the_request_that_ended_the_session() {
    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (house, bank, robot) = house().await;
    let mut browser = Browser::default();
    let first = everywhere(&house, &mut browser).await;
    bank.answers(503);
    let url = format!(
        "{}?id_token_hint={}",
        house.url("/logout"),
        text(&first, "id_token")
    );
    let request = house
        .http
        .get(&url)
        .header("traceparent", format!("00-{ID}-00f067aa0ba902b7-01"));
    browser.send(request).await;
    work(&house).await;
    bank.answers(200);
    // All of the store is looked through once in a while only, by the real clock.
    for _ in 0..60 {
        house.pass(Span::from_mins(1));
        work(&house).await;
        if bank.told().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let steps = |party: &Party| -> Vec<(String, String)> {
        let traced = party.traced.lock().unwrap();
        let parts = traced
            .iter()
            .map(|line| line.split('-').map(str::to_owned).collect());
        parts.map(|p: Vec<String>| (p[1].clone(), p[2].clone())).collect()
    };
    let (at_bank, at_robot) = (steps(&bank), steps(&robot));
    assert!(at_bank.len() >= 2, "said again: {at_bank:?}");
    let all: Vec<_> = at_bank.iter().chain(&at_robot).collect();
    assert!(all.iter().all(|(id, _)| id == ID), "{all:?}");
    let spans: std::collections::BTreeSet<&String> = all.iter().map(|(_, span)| span).collect();
    assert_eq!(
        spans.len(),
        all.len(),
        "each delivery is a step of its own: {all:?}"
    );
    // What nobody asked for has a trace too, and another one.
    everywhere(&house, &mut Browser::default()).await;
    house.pass(Span::from_secs(10));
    house.reset(None).await;
    work(&house).await;
    let last = steps(&bank).pop().unwrap();
    assert!(last.0 != ID && last.0.len() == 32, "{last:?}");
}
