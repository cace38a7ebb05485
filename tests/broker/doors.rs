//! What nobody proved costs nothing lasting: limits hang on the route for every method, whoever only looks changes
//! nothing, a log-in under way is kept by its browser alone, and the right thing is taken however much else fails.

use std::sync::atomic::Ordering;

use reentry::domain::subject::account::ContactKind;
use reentry::http::routes::{Listener, ROUTES};
use reqwest::{Method, header};

use crate::house::{House, REDIRECT};
use crate::limits::{ATTACKER, Door, OWNER, basic, too_often};
use crate::rp::{Browser, Seen, VERIFIER, authorize_url, bank, code, redeem, seen, text, tokens};

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"];

/// Every path of the public listener once, as somebody would ask for it who knows nothing.
fn paths() -> Vec<(&'static str, String)> {
    let public = ROUTES.iter().copied().flatten();
    let mut paths: Vec<&str> = public
        .filter(|r| r.listener == Listener::Public)
        .map(|r| r.path)
        .collect();
    paths.dedup();
    paths.sort_unstable();
    paths.dedup();
    let asked = |path: &str| {
        let path = path.replace("{upstream}", "kc").replace("{token}", "rubbish");
        let path = path.replace("{sub}", "alice").replace("{letter}", "x");
        if path == "/authorize" {
            format!("{path}?client_id=nobody")
        } else {
            path
        }
    };
    paths.into_iter().map(|path| (path, asked(path))).collect()
}

/// What the description of the limits says: whether what this method does at this path is counted by address.
fn is_limited(method: &str, path: &str) -> bool {
    match path {
        "/authorize"
        | "/account"
        | "/callback/{upstream}"
        | "/callback/{upstream}/logout"
        | "/cancel/{token}/mine" => true,
        // A page that only shows costs nothing.
        "/cancel/{token}" => !["GET", "HEAD"].contains(&method),
        _ => path.starts_with("/hooks/") || path.starts_with("/backchannel-logout/"),
    }
}

#[tokio::test]
async fn limits_hang_on_the_route_whatever_the_method() {
    let house = House::new().await;
    let door = Door::of(&house).await;
    let mut wrong = Vec::new();
    for (nth, (path, asked)) in paths().into_iter().enumerate() {
        for (mth, method) in METHODS.into_iter().enumerate() {
            let from = format!("198.18.{nth}.{mth}");
            let mut statuses = Vec::new();
            for _ in 0..4 {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                statuses.push(door.ask(method, &from, &asked).await.status);
            }
            let expected = if is_limited(method, path) { 429 } else { 0 };
            let limited = statuses.pop().filter(|last| *last == 429).unwrap_or(0);
            if statuses.contains(&429) || limited != expected {
                wrong.push(format!("{method} {path}: {statuses:?}, then {limited}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The URL of our callback to which the IdP sends the browser.
async fn way_back(house: &House, browser: &mut Browser, asked: &str) -> String {
    let begun = browser.get(house, asked).await;
    let there = begun.location.clone().unwrap_or_else(|| panic!("{begun:?}"));
    let there = seen(house.http.get(&there).send().await.unwrap()).await;
    there.location.clone().unwrap_or_else(|| panic!("{there:?}"))
}

fn written(house: &House) -> i64 {
    house.store.written.load(Ordering::SeqCst)
}

/// Head, and a page that is fetched ahead.
fn looks(house: &House, url: &str) -> [reqwest::RequestBuilder; 3] {
    [
        house.http.head(url),
        house.http.get(url).header("sec-purpose", "prefetch;prerender"),
        house.http.get(url).header("purpose", "prefetch"),
    ]
}

#[tokio::test]
async fn whoever_only_looks_changes_nothing_and_uses_nothing_up() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let given = tokens(&house, &mut browser, &[]).await;
    let fresh = authorize_url(&house, &[("prompt", "login")]);
    let back = way_back(&house, &mut browser, &fresh).await;
    let out = format!("/logout?id_token_hint={}", text(&given, "id_token"));
    let before = (written(&house), browser.cookies.clone());
    let mut urls: Vec<String> = paths().iter().map(|(_, asked)| house.url(asked)).collect();
    urls.extend([back.clone(), authorize_url(&house, &[]), house.url(&out), fresh]);
    for url in urls {
        for request in looks(&house, &url) {
            let answer = browser.send(request).await;
            assert_eq!(written(&house), before.0, "{url} stored something: {answer:?}");
            assert_eq!(browser.cookies, before.1, "{url} changed the browser: {answer:?}");
            assert!(answer.status < 500, "{url}: {answer:?}");
        }
    }
    let done = browser.get(&house, &back).await;
    assert!(done.query().contains_key("code"), "{done:?}");
}

#[tokio::test]
async fn a_log_in_that_nobody_finishes_leaves_nothing_in_the_store() {
    let house = House::new().await;
    let before = written(&house);
    for i in 0..50 {
        let prompt = if i % 2 == 0 { "" } else { "login" };
        let begun = Browser::default()
            .get(&house, &authorize_url(&house, &[("prompt", prompt)]))
            .await;
        assert_eq!(begun.status, 303);
        assert_eq!(
            Browser::default()
                .get(&house, &house.url("/account"))
                .await
                .status,
            303
        );
        // An answer that the IdP knows nothing of, and one without any log-in.
        let mut browser = Browser::default();
        let back = way_back(&house, &mut browser, &authorize_url(&house, &[])).await;
        browser.get(&house, &back.replace("code=", "code=x")).await;
        Browser::default().get(&house, &back).await;
    }
    assert_eq!(written(&house), before);
}

#[tokio::test]
async fn the_same_callback_again_goes_on_to_the_same_end() {
    let house = House::new().await;
    let mut browser = Browser::default();
    for prompt in ["", "login"] {
        let asked = authorize_url(&house, &[("prompt", prompt), ("state", "tab 7")]);
        browser.cookies.clear();
        let back = way_back(&house, &mut browser, &asked).await;
        let first = browser.get(&house, &back).await.query();
        for _ in 0..2 {
            let again = browser.get(&house, &back).await.query();
            assert_eq!((&again["state"], &again["iss"]), (&first["state"], &first["iss"]));
            assert_ne!(again["code"], first["code"], "a code of its own");
            assert_eq!(redeem(&house, &again["code"]).await.status, 200);
        }
        assert_eq!(
            redeem(&house, &first["code"]).await.status,
            200,
            "none harms another"
        );
    }
    // To one of our own pages as well.
    let mut browser = Browser::default();
    let back = way_back(&house, &mut browser, &house.url("/account")).await;
    for _ in 0..3 {
        let page = browser.get(&house, &back).await;
        assert_eq!(page.location, Some(house.url("/account")), "{page:?}");
    }
    // When the answer with the session was lost, the log-in is simply made again.
    let mut browser = Browser::default();
    let back = way_back(&house, &mut browser, &authorize_url(&house, &[])).await;
    browser.clone().get(&house, &back).await;
    let again = browser.get(&house, &back).await;
    assert!((300..400).contains(&again.status), "{again:?}");
}

#[tokio::test]
async fn another_browser_cannot_finish_it_is_shown_a_way_on_and_uses_nothing_up() {
    let house = House::new().await;
    let mut owner = Browser::default();
    let back = way_back(&house, &mut owner, &authorize_url(&house, &[])).await;
    let mut stranger = Browser::default();
    way_back(&house, &mut stranger, &authorize_url(&house, &[])).await;
    for browser in [&mut stranger, &mut Browser::default()] {
        let lost = browser.get(&house, &back).await;
        assert_eq!((lost.status, &lost.location), (400, &None));
        assert!(
            lost.body.contains(&house.url("/account")),
            "a way on: {}",
            lost.body
        );
    }
    assert!(owner.get(&house, &back).await.query().contains_key("code"));
}

#[tokio::test]
async fn many_tabs_do_not_fill_the_browser_and_the_latest_ones_finish() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let mut ways = Vec::new();
    for tab in 0..20 {
        house.pass(reentry::domain::time::Span::from_secs(1));
        let asked = authorize_url(&house, &[("state", &format!("tab-{tab}"))]);
        ways.push((tab, way_back(&house, &mut browser, &asked).await));
    }
    let carried: usize = browser.cookies.iter().map(|(n, v)| n.len() + v.len() + 3).sum();
    assert!(
        (100..7_500).contains(&carried),
        "{carried} octets with every request"
    );
    for (tab, back) in ways.iter().rev().take(3) {
        let done = browser.get(&house, back).await.query();
        assert_eq!(done["state"], format!("tab-{tab}"));
        assert!(done.contains_key("code"));
    }
    let oldest = browser.get(&house, &ways[0].1).await;
    assert_eq!(oldest.status, 400, "{oldest:?}");
}

#[tokio::test]
async fn a_long_request_travels_in_pieces_and_one_that_is_too_long_is_told_so() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let state = "s".repeat(1000);
    let hint = "h".repeat(1000);
    let claims = |length: usize| format!(r#"{{"id_token":{{"{}":null}}}}"#, "c".repeat(length));
    let some = claims(1_500);
    let long = [
        ("state", state.as_str()),
        ("login_hint", &hint),
        ("claims", &some),
    ];
    let back = way_back(&house, &mut browser, &authorize_url(&house, &long)).await;
    assert!(browser.cookies.len() > 1, "{:?}", browser.cookies.keys());
    for (name, value) in &browser.cookies {
        assert!(name.len() + value.len() <= 4_000, "{name}: {}", value.len());
    }
    let done = browser.get(&house, &back).await.query();
    assert_eq!(done["state"], state);
    assert_eq!(redeem(&house, &done["code"]).await.status, 200);
    let more = claims(3_900);
    let longest = [
        ("state", state.as_str()),
        ("login_hint", &hint),
        ("claims", &more),
    ];
    let mut browser = Browser::default();
    let told = browser.get(&house, &authorize_url(&house, &longest)).await;
    assert_eq!(
        (told.error(), &told.query()["state"]),
        ("invalid_request".to_owned(), &state)
    );
    assert!(told.query()["error_description"].contains("too long"), "{told:?}");
    assert!(browser.cookies.is_empty());
}

#[tokio::test]
async fn the_right_secret_is_taken_however_many_wrong_ones_come_from_the_same_address() {
    let house = House::new().await;
    let door = Door::of(&house).await;
    let mut browser = Browser::default();
    let waiting = code(&house, &mut browser, &[]).await;
    let first = tokens(&house, &mut browser, &[]).await;
    let access = [("token", text(&first, "access_token"))];
    let wrong = basic("bank", "wrong");
    for _ in 0..3 {
        door.post(ATTACKER, "/introspect", Some(&wrong), &access).await;
    }
    too_often(&door.post(ATTACKER, "/introspect", Some(&wrong), &access).await);
    let live = door.post(ATTACKER, "/introspect", Some(&bank()), &access).await;
    assert_eq!((live.status, live.json()["active"].clone()), (200, true.into()));
    let form = [
        ("grant_type", "authorization_code"),
        ("code", waiting.as_str()),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    assert_eq!(
        door.post(ATTACKER, "/token", Some(&bank()), &form).await.status,
        200
    );
    let gone = [("token", text(&first, "refresh_token"))];
    assert_eq!(
        door.post(ATTACKER, "/revoke", Some(&bank()), &gone).await.status,
        200
    );
    too_often(&door.post(ATTACKER, "/revoke", Some(&wrong), &gone).await);
}

#[tokio::test]
async fn a_good_link_and_a_browser_with_a_session_are_heard_where_others_used_everything_up() {
    let house = House::new().await;
    let door = Door::of(&house).await;
    let mut browser = Browser::default();
    tokens(&house, &mut browser, &[]).await;
    let session = browser.cookies["reentry_session"].clone();
    let ask = async |path: &str, cookie: Option<&str>| -> Seen {
        let url = format!("http://{}{}{path}", door.at, crate::house::BASE);
        let mut request = house.http.get(url).header("x-forwarded-for", ATTACKER);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, format!("reentry_session={cookie}"));
        }
        seen(request.send().await.unwrap()).await
    };
    for _ in 0..3 {
        ask("/account", None).await;
    }
    too_often(&ask("/account", None).await);
    assert_eq!(ask("/account", Some(&session)).await.status, 200);
    too_often(&ask("/account", Some(&format!("{session}x").replace('.', "A."))).await);
    let query = authorize_url(&house, &[]);
    let query = query.split_once("/authorize").unwrap().1;
    let given = ask(&format!("/authorize{query}"), Some(&session)).await;
    assert!(given.query().contains_key("code"), "{given:?}");
    for _ in 0..3 {
        door.post(ATTACKER, "/cancel/rubbish", None, &[]).await;
    }
    too_often(&door.post(ATTACKER, "/cancel/rubbish", None, &[]).await);
    let link = house.link(ContactKind::Email, "alice@example.com").await;
    let heard = door.post(ATTACKER, &format!("/cancel/{link}"), None, &[]).await;
    assert_eq!(heard.status, 303, "{heard:?}");
    assert_ne!(door.get(OWNER, "/account").await.status, 429);
}
