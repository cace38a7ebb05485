//! Open connections without number, and ones on which next to nothing arrives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reentry::app::listener::{Bounds, serve};
use reentry::config::limits::AtOnce;
use reentry::config::server::{ForwardedBy, Network};
use reentry::http::context::Limits;
use reentry::http::peer::Proxies;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::house::{BASE, House};
use crate::rp::{Browser, bank, text, tokens};

pub struct Door {
    pub at: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn door(house: &House, bounds: Bounds, body_time: Duration) -> Door {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let limits = Limits {
        body_time,
        ..Limits::default()
    };
    let router = reentry::http::public(house.context.clone().with_limits(limits));
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router, bounds, stop.clone()));
    Door { at, stop, task }
}

fn head(path: &str, more: &str) -> String {
    format!("GET {BASE}{path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n")
}

/// A request on a connection of its own, from somebody behind the proxy on loopback; the status.
async fn from(at: SocketAddr, who: &str, path: &str, kind: &str, auth: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!(
        "POST {BASE}{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: {who}\r\ncontent-type: {kind}\r\n\
         {auth}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let told = rest(&mut stream).await;
    let status = told.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.unwrap_or_else(|| panic!("{path}: {told}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_of_one_address_take_nobodys_place() {
    let house = House::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let limits = Limits {
        body_time: Duration::from_secs(30),
        at_once: AtOnce {
            requests: 48,
            introspections: 48,
            hooks: 48,
            reports: 48,
            ..AtOnce::default()
        },
        ..Limits::default()
    };
    let proxies = Proxies {
        trusted: vec![Network::parse("127.0.0.0/8").unwrap()],
        header: ForwardedBy::XForwardedFor,
    };
    let rates = reentry::config::limits::Limits::default();
    let context = house
        .context
        .clone()
        .with_limits(limits)
        .with_rates(rates, proxies);
    let stop = CancellationToken::new();
    tokio::spawn(serve(
        listener,
        reentry::http::public(context),
        Bounds::default(),
        stop,
    ));
    let given = tokens(&house, &mut Browser::default(), &[]).await;
    let (form, json) = ("application/x-www-form-urlencoded", "application/json");
    let routes = [
        ("/introspect", form),
        ("/token", form),
        ("/hooks/generic/kc/events", json),
        ("/cancel/rubbish", form),
        ("/account/sessions/end", form),
    ];
    let mut crowd = Vec::new();
    for (path, kind) in routes.into_iter().cycle().take(500) {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let head = format!(
            "POST {BASE}{path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 198.51.100.9\r\ncontent-type: {kind}\r\ncontent-length: 500\r\n\r\na"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        crowd.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let auth = format!("authorization: {}\r\n", bank());
    let asked = format!("token={}", text(&given, "access_token"));
    for n in 0..10 {
        let who = format!("192.0.2.{n}");
        assert_eq!(from(at, &who, "/introspect", form, &auth, &asked).await, 200);
        assert_eq!(
            from(at, &who, "/hooks/generic/kc/events", json, "", "{}").await,
            404
        );
        assert_eq!(from(at, &who, "/cancel/rubbish", form, "", "a=b").await, 404);
        assert_eq!(from(at, &who, "/token", form, "", "a=b").await, 401);
    }
    // Whoever has too many under way is told so, at once.
    let mut late = TcpStream::connect(at).await.unwrap();
    let head = format!(
        "POST {BASE}/token HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 198.51.100.9\r\ncontent-type: {form}\r\ncontent-length: 500\r\n\r\na"
    );
    late.write_all(head.as_bytes()).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(2), answer(&mut late))
        .await
        .unwrap();
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("retry-after:"), "{told}");
}

/// One request on a connection of its own; the status line.
async fn asked(at: SocketAddr) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream
        .write_all(head("/jwks", "connection: close\r\n").as_bytes())
        .await
        .unwrap();
    rest(&mut stream).await.lines().next().unwrap_or("").to_owned()
}

/// What still comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut octets = Vec::new();
    // A reset is a close too.
    let _ = stream.read_to_end(&mut octets).await;
    String::from_utf8_lossy(&octets).into_owned()
}

/// One answer with its body, on a connection that stays open.
async fn answer(stream: &mut TcpStream) -> String {
    let mut octets = Vec::new();
    let mut part = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&octets).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| {
                l.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse::<usize>()
                    .ok()
            });
            if body.len() >= length.unwrap() {
                return text;
            }
        }
        let read = stream.read(&mut part).await.unwrap();
        assert!(read > 0, "closed after {text}");
        octets.extend_from_slice(&part[..read]);
    }
}

/// How long the other side lets a connection live on which `trickle` is written every 50 ms.
async fn lives(stream: &mut TcpStream, trickle: &[u8]) -> Duration {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(8), "never closed");
        let written = stream.write_all(trickle).await;
        let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 64])).await;
        if written.is_err() || matches!(read, Ok(Ok(0) | Err(_))) {
            return began.elapsed();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_open_connections_keep_nobody_out() {
    const CROWD: usize = 10_000;
    const PLACES: usize = 4_096;
    let enough = Bounds {
        connections: CROWD + PLACES + 512,
        ..Bounds::default()
    };
    assert_eq!(
        enough.within_files(),
        enough,
        "this machine allows too few open files"
    );
    let house = House::new().await;
    let bounds = Bounds {
        connections: PLACES,
        head: Duration::from_mins(2),
        ..Bounds::default()
    };
    let door = door(&house, bounds, Duration::from_secs(5)).await;
    let mut crowd = Vec::with_capacity(CROWD);
    for i in 0..CROWD {
        let mut stream = TcpStream::connect(door.at).await.unwrap();
        match i % 3 {
            0 => {}
            1 => stream.write_all(b"GET /jwks HTT").await.unwrap(),
            _ => stream.write_all(head("/jwks", "").as_bytes()).await.unwrap(),
        }
        crowd.push(stream);
        if i % 1000 == 999 {
            let began = Instant::now();
            assert_eq!(asked(door.at).await, "HTTP/1.1 200 OK", "with {i} open");
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
    }
    // The youngest were not sacrificed, the oldest were.
    let youngest = crowd.last_mut().unwrap();
    let open = tokio::time::timeout(Duration::from_millis(100), youngest.read(&mut [0; 16])).await;
    assert!(!matches!(open, Ok(Ok(0) | Err(_))), "{open:?}");
    let closed = tokio::time::timeout(Duration::from_secs(2), rest(&mut crowd[0])).await;
    assert_eq!(closed.unwrap(), "");
    drop(crowd);
    assert_eq!(asked(door.at).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn when_every_place_is_busy_a_connection_is_told_so() {
    let house = House::new().await;
    let bounds = Bounds {
        connections: 2,
        ..Bounds::default()
    };
    let door = door(&house, bounds, Duration::from_secs(3)).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(door.at).await.unwrap();
        let head = format!(
            "POST {BASE}/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 9\r\n\r\na="
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        busy.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut late = TcpStream::connect(door.at).await.unwrap();
    let told = rest(&mut late).await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("retry-after: 1"), "{told}");
    for stream in &mut busy {
        stream.write_all(b"b&c=ddd").await.unwrap();
        assert!(
            answer(stream).await.starts_with("HTTP/1.1 401 "),
            "those under way are answered"
        );
    }
    assert_eq!(asked(door.at).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn slow_loris_is_cut_off() {
    let house = House::new().await;
    let bounds = Bounds {
        head: Duration::from_millis(400),
        rest: Duration::from_millis(900),
        ..Bounds::default()
    };
    let door = door(&house, bounds, Duration::from_millis(400)).await;
    // Nothing at all, a head by the octet, and a second head by the octet.
    let mut silent = TcpStream::connect(door.at).await.unwrap();
    let lived = lives(&mut silent, b"").await;
    assert!(lived < Duration::from_millis(1500), "{lived:?}");
    let mut slow = TcpStream::connect(door.at).await.unwrap();
    slow.write_all(b"GET /jwks HTTP/1.1\r\nhost: ").await.unwrap();
    let lived = lives(&mut slow, b"x").await;
    assert!(lived < Duration::from_millis(1500), "{lived:?}");
    let mut second = TcpStream::connect(door.at).await.unwrap();
    second.write_all(head("/jwks", "").as_bytes()).await.unwrap();
    answer(&mut second).await;
    let lived = lives(&mut second, b"G").await;
    assert!(lived < Duration::from_millis(1500), "{lived:?}");
    // A body by the octet is answered, and the connection closed.
    for (path, kind, said) in [
        ("/token", "application/x-www-form-urlencoded", "invalid_request"),
        (
            "/hooks/generic/main/events",
            "application/json",
            "urn:reentry:problem:",
        ),
        (
            "/hooks/extension/main/events",
            "application/json",
            "urn:reentry:problem:",
        ),
        (
            "/backchannel-logout/main",
            "application/x-www-form-urlencoded",
            "invalid_request",
        ),
    ] {
        let mut body = TcpStream::connect(door.at).await.unwrap();
        let head = format!(
            "POST {BASE}{path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: 1000\r\n\r\na="
        );
        body.write_all(head.as_bytes()).await.unwrap();
        let began = Instant::now();
        let (mut read, mut write) = body.into_split();
        let trickle = tokio::spawn(async move {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut octets = Vec::new();
        let all = tokio::time::timeout(Duration::from_secs(8), read.read_to_end(&mut octets)).await;
        assert!(
            all.is_ok(),
            "{path}: a body by the octet is waited for without end"
        );
        let text = String::from_utf8_lossy(&octets);
        assert!(text.starts_with("HTTP/1.1 408 "), "{path}: {text}");
        assert!(text.contains(said), "{path}: {text}");
        assert!(
            began.elapsed() < Duration::from_millis(1500),
            "{path}: {:?}",
            began.elapsed()
        );
        trickle.abort();
    }
}

#[tokio::test]
async fn a_connection_rests_no_longer_than_it_may() {
    let house = House::new().await;
    let bounds = Bounds {
        head: Duration::from_millis(300),
        rest: Duration::from_millis(700),
        age: Duration::from_secs(2),
        ..Bounds::default()
    };
    let door = door(&house, bounds, Duration::from_secs(5)).await;
    let mut stream = TcpStream::connect(door.at).await.unwrap();
    let began = Instant::now();
    let mut answers = 0;
    // Within its rest it stays, also longer than a head may take; then it is too old.
    while began.elapsed() < Duration::from_secs(6) {
        if stream.write_all(head("/jwks", "").as_bytes()).await.is_err() {
            break;
        }
        let mut part = [0; 8192];
        if stream.read(&mut part).await.unwrap_or(0) == 0 {
            break;
        }
        answers += 1;
        tokio::time::sleep(Duration::from_millis(450)).await;
    }
    assert!(
        (3..=10).contains(&answers),
        "{answers} answers in {:?}",
        began.elapsed()
    );
    let mut idle = TcpStream::connect(door.at).await.unwrap();
    idle.write_all(head("/jwks", "").as_bytes()).await.unwrap();
    answer(&mut idle).await;
    let began = Instant::now();
    rest(&mut idle).await;
    let lived = began.elapsed();
    assert!((600..1500).contains(&lived.as_millis()), "{lived:?}");
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_closes_what_rests() {
    let house = House::new().await;
    let door = door(&house, Bounds::default(), Duration::from_secs(5)).await;
    let mut resting = TcpStream::connect(door.at).await.unwrap();
    resting.write_all(head("/jwks", "").as_bytes()).await.unwrap();
    answer(&mut resting).await;
    let mut silent = TcpStream::connect(door.at).await.unwrap();
    let mut busy = TcpStream::connect(door.at).await.unwrap();
    let head = format!(
        "POST {BASE}/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 4\r\n\r\na="
    );
    busy.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    door.stop.cancel();
    let soon = Duration::from_secs(1);
    tokio::time::timeout(soon, rest(&mut resting)).await.unwrap();
    tokio::time::timeout(soon, rest(&mut silent)).await.unwrap();
    assert!(!door.task.is_finished(), "a request is under way");
    assert!(
        TcpStream::connect(door.at).await.is_err(),
        "nothing new is accepted"
    );
    busy.write_all(b"bb").await.unwrap();
    let told = rest(&mut busy).await;
    assert!(told.starts_with("HTTP/1.1 401 "), "{told}");
    tokio::time::timeout(soon, door.task).await.unwrap().unwrap();
}

// RFC 9112 §3.2: what two readers could send to two places is answered by neither.
#[tokio::test]
async fn a_request_names_its_host_once() {
    let house = House::new().await;
    let door = door(&house, Bounds::default(), Duration::from_secs(5)).await;
    for (version, hosts, good) in [
        ("1.1", "host: localhost\r\n", true),
        ("1.1", "", false),
        ("1.1", "host: localhost\r\nhost: elsewhere\r\n", false),
        ("1.0", "", true),
    ] {
        let mut stream = TcpStream::connect(door.at).await.unwrap();
        let request = format!("GET {BASE}/jwks HTTP/{version}\r\n{hosts}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        assert_eq!(
            status,
            if good { "200" } else { "400" },
            "HTTP/{version} {hosts:?}: {answer}"
        );
    }
    door.stop.cancel();
}
