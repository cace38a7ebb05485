//! How often, and that nobody can be kept out by it.

use std::net::SocketAddr;
use std::time::Duration;

use reentry::app::listener::{Bounds, serve};
use reentry::config::limits::{Limits, Rate};
use reentry::config::server::{ForwardedBy, Network};
use reentry::http::peer::Proxies;
use reqwest::header;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::house::{BASE, House};
use crate::rp::{Browser, Seen, bank, code, seen, text, tokens};

/// A door of the house behind a proxy on loopback.
pub struct Door<'h> {
    house: &'h House,
    pub at: SocketAddr,
}

const FEW: Option<Rate> = Some(Rate {
    count: 3,
    per: Duration::from_mins(1),
});

fn few() -> Limits {
    Limits {
        login: FEW,
        callback: FEW,
        token_failures: FEW,
        account_failures: FEW,
        report: FEW,
        hooks: FEW,
        ..Limits::default()
    }
}

impl<'h> Door<'h> {
    pub async fn of(house: &'h House) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let proxies = Proxies {
            trusted: vec![Network::parse("127.0.0.0/8").unwrap()],
            header: ForwardedBy::XForwardedFor,
        };
        let router = reentry::http::public(house.context.clone().with_rates(few(), proxies));
        tokio::spawn(serve(
            listener,
            router,
            Bounds::default(),
            CancellationToken::new(),
        ));
        Self { house, at }
    }

    pub async fn ask(&self, method: reqwest::Method, from: &str, path: &str) -> Seen {
        let url = format!("http://{}{BASE}{path}", self.at);
        let request = self
            .house
            .http
            .request(method, url)
            .header("x-forwarded-for", from);
        seen(request.send().await.unwrap()).await
    }

    pub async fn get(&self, from: &str, path: &str) -> Seen {
        let url = format!("http://{}{BASE}{path}", self.at);
        let request = self.house.http.get(url).header("x-forwarded-for", from);
        seen(request.send().await.unwrap()).await
    }

    pub async fn post(&self, from: &str, path: &str, auth: Option<&str>, form: &[(&str, &str)]) -> Seen {
        let url = format!("http://{}{BASE}{path}", self.at);
        let mut request = self
            .house
            .http
            .post(url)
            .header("x-forwarded-for", from)
            .form(form);
        if let Some(auth) = auth {
            request = request.header(header::AUTHORIZATION, auth);
        }
        seen(request.send().await.unwrap()).await
    }
}

pub const ATTACKER: &str = "198.51.100.9";
pub const OWNER: &str = "192.0.2.1";

pub fn basic(id: &str, secret: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
    format!("Basic {text}")
}

pub fn too_often(seen: &Seen) {
    assert_eq!(seen.status, 429, "{seen:?}");
    let wait: u64 = seen.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn what_costs_something_is_limited_by_address() {
    let house = House::new().await;
    let door = Door::of(&house).await;
    let ask = "/authorize?client_id=nobody";
    for (path, usual) in [(ask, 400), ("/callback/kc?state=aaaaaaaaaaaaaaaaaaaaaaaa", 400)] {
        for i in 0..3 {
            // What stands left of the client's address anybody may have written.
            let from = format!("203.0.113.{i}, {ATTACKER}");
            assert_eq!(door.get(&from, path).await.status, usual);
        }
        let last = door.get(&format!("203.0.113.77, {ATTACKER}"), path).await;
        too_often(&last);
        assert_eq!(last.headers["content-type"], "application/problem+json");
        assert_eq!(last.json()["type"], "urn:reentry:problem:too-often");
        assert_eq!(
            door.get(OWNER, path).await.status,
            usual,
            "nobody else is touched"
        );
    }
    for i in 0..3 {
        let from = format!("2001:db8:1:2:{i}::1");
        assert_eq!(door.get(&from, ask).await.status, 400);
    }
    too_often(&door.get("2001:db8:1:2:ffff::1", ask).await);
    assert_eq!(door.get("2001:db8:1:3::1", ask).await.status, 400, "another /64");
    for _ in 0..3 {
        let report = door.post(ATTACKER, "/cancel/rubbish", None, &[]).await;
        assert!(![429, 500].contains(&report.status), "{report:?}");
    }
    too_often(&door.post(ATTACKER, "/cancel/rubbish", None, &[]).await);
    assert_ne!(door.post(OWNER, "/cancel/rubbish", None, &[]).await.status, 429);
    // A page that only shows is not limited, and what hangs on no address is not counted.
    assert_ne!(door.get(ATTACKER, "/cancel/rubbish").await.status, 429);
    for _ in 0..5 {
        assert_eq!(door.get("127.0.0.1", ask).await.status, 400);
    }
}

#[tokio::test]
async fn guessing_a_clients_secret_is_slowed_and_harms_nobody_else() {
    let house = House::new().await;
    let door = Door::of(&house).await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", "x"),
        ("redirect_uri", "y"),
    ];
    let wrong = basic("bank", "wrong");
    for _ in 0..3 {
        assert_eq!(
            door.post(ATTACKER, "/token", Some(&wrong), &form).await.status,
            401
        );
    }
    for path in ["/token", "/introspect", "/revoke"] {
        let answer = door.post(ATTACKER, path, Some(&wrong), &form).await;
        too_often(&answer);
        assert_eq!(answer.json()["error"], "temporarily_unavailable");
    }
    // The right secret is taken all the same: what it asks for is answered for itself.
    let right = door.post(ATTACKER, "/token", Some(&bank()), &form).await;
    assert_eq!(
        (right.status, right.json()["error"].clone()),
        (400, "invalid_grant".into())
    );
    // Names that nobody has are one bucket, however many of them.
    for i in 0..3 {
        let nobody = basic(&format!("nobody-{i}"), "x");
        assert_eq!(
            door.post(ATTACKER, "/token", Some(&nobody), &form).await.status,
            401
        );
    }
    too_often(
        &door
            .post(ATTACKER, "/token", Some(&basic("nobody-9", "x")), &form)
            .await,
    );
    // The bank itself, and another client at the very same address.
    let own = [
        ("grant_type", "refresh_token"),
        ("refresh_token", text(&first, "refresh_token")),
    ];
    assert_eq!(door.post(OWNER, "/token", Some(&bank()), &own).await.status, 200);
    let gate = basic("gate", "gate-secret");
    let token = [("token", text(&first, "access_token"))];
    assert_eq!(
        door.post(ATTACKER, "/introspect", Some(&gate), &token)
            .await
            .json()["active"],
        true
    );
}

// "A victim cannot be locked out by an attacker from another address."
#[tokio::test]
async fn failures_of_an_account_keep_its_owner_out_of_nothing() {
    let house = House::new().await;
    let door = Door::of(&house).await;
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    let stolen = [
        ("grant_type", "refresh_token"),
        ("refresh_token", text(&first, "refresh_token")),
    ];
    let thief = basic("legacy", "legacy-secret");
    for i in 0..3 {
        let from = format!("198.51.100.{i}");
        let answer = door.post(&from, "/token", Some(&thief), &stolen).await;
        assert_eq!(
            (answer.status, answer.json()["error"].clone()),
            (400, "invalid_grant".into())
        );
    }
    let answer = door.post("198.51.100.77", "/token", Some(&thief), &stolen).await;
    too_often(&answer);
    // The owner refreshes, signs in, and redeems a code meanwhile, wherever they are.
    for from in [OWNER, "198.51.100.77"] {
        let waiting = code(&house, &mut browser, &[]).await;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", waiting.as_str()),
            ("redirect_uri", crate::house::REDIRECT),
            ("code_verifier", crate::rp::VERIFIER),
        ];
        assert_eq!(door.post(from, "/token", Some(&bank()), &form).await.status, 200);
    }
    assert_eq!(
        door.post(OWNER, "/token", Some(&bank()), &stolen).await.status,
        200
    );
    too_often(&door.post("198.51.100.78", "/token", Some(&thief), &stolen).await);
}

#[tokio::test]
async fn a_public_clients_refresh_is_never_kept_out_even_at_the_attackers_address() {
    let house = House::new().await;
    let door = Door::of(&house).await;
    let spa = [("client_id", "spa"), ("redirect_uri", "https://spa.example/cb")];
    let mut browser = Browser::default();
    let waiting = code(
        &house,
        &mut browser,
        &[spa[0], spa[1], ("scope", "openid accounts:read")],
    )
    .await;
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "spa"),
        ("code", waiting.as_str()),
        ("redirect_uri", "https://spa.example/cb"),
        ("code_verifier", crate::rp::VERIFIER),
    ];
    let first = door.post(ATTACKER, "/token", None, &form).await.json();
    let guess = [
        ("grant_type", "authorization_code"),
        ("client_id", "spa"),
        ("code", "x"),
        ("redirect_uri", "y"),
    ];
    for _ in 0..3 {
        assert_eq!(door.post(ATTACKER, "/token", None, &guess).await.status, 400);
    }
    too_often(&door.post(ATTACKER, "/token", None, &guess).await);
    let own = [
        ("grant_type", "refresh_token"),
        ("client_id", "spa"),
        ("refresh_token", text(&first, "refresh_token")),
    ];
    assert_eq!(door.post(ATTACKER, "/token", None, &own).await.status, 200);
}

// row "rate limits": a flood of one hook
#[tokio::test]
async fn a_flood_of_one_hook_is_429_with_retry_after_and_others_go_on() {
    let house = House::new().await;
    let door = Door::of(&house).await;
    let hooks = [
        "/hooks/extension/kc/events",
        "/hooks/generic/kc/events",
        "/backchannel-logout/kc",
    ];
    let usual = async |from: &str, path: &str| {
        let answer = door.post(from, path, None, &[("logout_token", "x")]).await;
        assert!(
            [400, 404, 415].contains(&answer.status),
            "{path} from {from}: {answer:?}"
        );
    };
    for (at, flooded) in hooks.iter().enumerate() {
        let attacker = format!("198.51.100.{at}");
        for i in 0..3 {
            usual(&format!("203.0.113.{i}, {attacker}"), flooded).await;
        }
        for _ in 0..20 {
            let answer = door
                .post(&attacker, flooded, None, &[("logout_token", "x")])
                .await;
            too_often(&answer);
            assert_eq!(answer.headers["content-type"], "application/problem+json");
            assert_eq!(answer.json()["type"], "urn:reentry:problem:too-often");
        }
        // Whichever IdP it names: the flood is one.
        too_often(
            &door
                .post(&attacker, &flooded.replace("/kc", "/second"), None, &[])
                .await,
        );
        // The same hook from elsewhere, the other hooks from the same server, and everything else from it.
        usual(&format!("192.0.2.{at}"), flooded).await;
        for other in hooks.iter().filter(|other| *other != flooded) {
            usual(&attacker, other).await;
        }
        let ask = door.get(&attacker, "/authorize?client_id=nobody").await;
        assert_eq!(ask.status, 400);
    }
}
