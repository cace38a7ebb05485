//! Outbound webhooks: what goes over the wire, and what the client never does.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reentry::domain::event::{Event, EventKind};
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::{Span, Timestamp};
use reentry::notify::outbound::{Client, Limits};
use reentry::notify::webhook::{Gone, Receiver as Target, SigningSecret, Webhooks};
use reentry::ports::notifier::{Announcement, Notifier, NotifyError, Outgoing};
use reentry::ports::outbound::{Outbound, OutboundError, Post};
use reentry::ports::trace::{self, Trace};
use reentry_test_support::receiver::{Manner, Receiver};

const NEW: [u8; 24] = [7; 24];
const OLD: [u8; 32] = [9; 32];

/// A client that reaches the hosts named, with deadlines for a test.
fn client(allowed: &[&str]) -> Client {
    Client::new(Limits {
        allowed: allowed.iter().map(|h| (*h).to_owned()).collect(),
        connect: Duration::from_millis(500),
        total: Duration::from_millis(1500),
        ..Limits::default()
    })
    .unwrap()
}

fn post(url: &str) -> Post<'_> {
    Post {
        url,
        content_type: "application/json",
        headers: Vec::new(),
        body: b"{}".to_vec(),
    }
}

struct NoNotices;

#[async_trait]
impl Notifier for NoNotices {
    async fn deliver(&self, _: &Outgoing<'_>) -> Result<(), NotifyError> {
        Err(NotifyError::Never("not here".to_owned()))
    }
}

/// Webhooks with one receiver, `crm`, at `url`.
fn webhooks(url: &str, allowed: &[&str]) -> Webhooks {
    let target = Target {
        url: url.to_owned(),
        secrets: [&NEW[..], &OLD[..]]
            .into_iter()
            .map(|s| SigningSecret::new(s).unwrap())
            .collect(),
        events: BTreeSet::from([EventKind::HoldStarted]),
    };
    Webhooks {
        notices: Arc::new(NoNotices),
        outbound: Arc::new(client(allowed)),
        receivers: BTreeMap::from([("crm".to_owned(), target)]),
        patience: Span::from_days(7),
        gone: Gone::default(),
    }
}

async fn announce(webhooks: &Webhooks, at: i64) -> Result<(), NotifyError> {
    let subject = Subject::new(UpstreamId::parse("kc").unwrap(), "ana").unwrap();
    let event = Event {
        kind: EventKind::HoldStarted,
        at: Timestamp::from_secs(1_795_252_320),
        case: Some("rc_1".to_owned()),
        details: BTreeMap::from([("allowed".to_owned(), "read write".to_owned())]),
    };
    let announcement = Announcement {
        receiver: "crm",
        id: "event:rc_1:hold_started:password_reset",
        subject: &subject,
        event: &event,
        now: Timestamp::from_secs(at),
    };
    webhooks.announce(&announcement).await
}

#[tokio::test]
async fn an_event_is_signed_by_every_secret_and_has_one_id_at_every_try() {
    let receiver = Receiver::start();
    let webhooks = webhooks(&receiver.url(), &["127.0.0.1"]);
    assert_eq!(webhooks.receivers(EventKind::HoldStarted), ["crm"]);
    assert!(webhooks.receivers(EventKind::Thawed).is_empty());
    for at in [1_795_252_400, 1_795_252_500] {
        announce(&webhooks, at).await.unwrap();
    }
    let posts = receiver.wait_count(2, Duration::from_secs(2)).await;
    for (one, at) in posts.iter().zip([1_795_252_400_i64, 1_795_252_500]) {
        assert_eq!(one.line, "POST /hook HTTP/1.1");
        assert_eq!(one.headers["content-type"], "application/json");
        assert_eq!(one.headers["webhook-timestamp"], at.to_string());
        let signed = [
            format!("{}.{at}.", one.headers["webhook-id"]).as_bytes(),
            &one.body,
        ]
        .concat();
        let signatures: Vec<&str> = one.headers["webhook-signature"].split(' ').collect();
        assert_eq!(signatures.len(), 2);
        for (signature, secret) in signatures.iter().zip([&NEW[..], &OLD[..]]) {
            let octets = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
            hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), &signed, &octets).unwrap();
        }
        let body: serde_json::Value = serde_json::from_slice(&one.body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "hold.started",
                "timestamp": "2026-11-21T09:12:00Z",
                "data": {
                    "upstream": "kc", "sub": "ana", "recovery_ref": "rc_1", "details": { "allowed": "read write" },
                },
            })
        );
    }
    assert_eq!(posts[0].headers["webhook-id"], posts[1].headers["webhook-id"]);
}

// row "traceparent is passed on"
#[tokio::test]
async fn a_webhook_carries_the_trace_of_the_work_that_sends_it() {
    let receiver = Receiver::start();
    let webhooks = webhooks(&receiver.url(), &["127.0.0.1"]);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let ours = Trace::continuing(parent, Some("vendor=x"), [7; 8]).unwrap();
    trace::scope(ours.clone(), announce(&webhooks, 1)).await.unwrap();
    announce(&webhooks, 2).await.unwrap();
    let posts = receiver.wait_count(2, Duration::from_secs(2)).await;
    assert_eq!(posts[0].headers["traceparent"], ours.to_string());
    assert_eq!(posts[0].headers["tracestate"], "vendor=x");
    assert!(!posts[1].headers.contains_key("traceparent"), "no work, no trace");
}

#[tokio::test]
async fn a_webhook_receiver_that_redirects_to_a_private_address_is_refused() {
    let (receiver, inside) = (Receiver::start(), Receiver::start());
    receiver.behave(Manner::Redirect(inside.url()));
    // Even the host of the second one is allowed: no redirect is followed, wherever it leads.
    let answer = announce(&webhooks(&receiver.url(), &["127.0.0.1"]), 1).await;
    assert!(
        matches!(&answer, Err(NotifyError::Later(why)) if why.contains("redirects (302)")),
        "{answer:?}"
    );
    assert!(inside.received().is_empty());
}

#[tokio::test]
async fn a_webhook_receiver_that_hangs_is_over_after_the_deadline() {
    let receiver = Receiver::start();
    receiver.behave(Manner::Hang);
    let start = Instant::now();
    let answer = announce(&webhooks(&receiver.url(), &["127.0.0.1"]), 1).await;
    assert!(
        matches!(&answer, Err(NotifyError::Later(why)) if why.contains("took too long")),
        "{answer:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_webhook_receiver_that_sends_an_endless_body_is_cut_off() {
    let receiver = Receiver::start();
    receiver.behave(Manner::Endless);
    let start = Instant::now();
    let answer = client(&["127.0.0.1"]).post(&post(&receiver.url())).await.unwrap();
    assert!(answer.taken(), "the status is the answer");
    assert_eq!(answer.body.len(), Limits::default().body);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let written = receiver.written();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.written(), written, "the connection is closed");
}

#[tokio::test]
async fn a_receiver_that_is_gone_gets_no_more_and_others_are_asked_again() {
    let receiver = Receiver::start();
    let webhooks = webhooks(&receiver.url(), &["127.0.0.1"]);
    for code in [400, 404, 429, 500] {
        receiver.behave(Manner::Status(code));
        let answer = announce(&webhooks, 1).await;
        assert!(matches!(answer, Err(NotifyError::Later(_))), "{code}: {answer:?}");
    }
    assert_eq!(webhooks.receivers(EventKind::HoldStarted), ["crm"]);
    receiver.behave(Manner::Status(410));
    assert!(announce(&webhooks, 1).await.is_ok(), "no dead letter");
    let asked = receiver.received().len();
    assert!(announce(&webhooks, 2).await.is_ok());
    assert_eq!(receiver.received().len(), asked, "it is not asked again");
    assert!(
        webhooks.receivers(EventKind::HoldStarted).is_empty(),
        "and nothing is planned for it"
    );
}

// The name is resolved for real: `localhost`, and this machine's own name where it has one.
#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_refused() {
    let inside = Receiver::start();
    let answer = client(&[])
        .post(&post(&format!("https://localhost:{}/hook", inside.port())))
        .await;
    assert!(
        matches!(&answer, Err(OutboundError::Refused(why)) if why.contains("not public")),
        "{answer:?}"
    );
    assert!(inside.received().is_empty());
}

#[tokio::test]
async fn an_address_that_is_not_public_is_refused_however_it_is_written() {
    let inside = Receiver::start();
    let port = inside.port();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "[::]",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.168.0.1",
        "[fd00::1]",
        "[fe80::1]",
    ] {
        let answer = client(&[]).post(&post(&format!("https://{host}:{port}/"))).await;
        assert!(
            matches!(&answer, Err(OutboundError::Refused(_))),
            "{host}: {answer:?}"
        );
    }
    assert!(inside.received().is_empty());
}

#[tokio::test]
async fn plain_http_goes_to_an_allowed_loopback_host_only() {
    let receiver = Receiver::start();
    let refused = |answer: Result<_, _>| matches!(answer, Err(OutboundError::Refused(_)));
    assert!(refused(client(&[]).post(&post(&receiver.url())).await));
    assert!(refused(
        client(&["192.0.2.1"]).post(&post("http://192.0.2.1/")).await
    ));
    assert!(refused(client(&[]).post(&post("ftp://127.0.0.1/")).await));
    assert!(refused(client(&[]).post(&post("not a url")).await));
    let named = format!("http://localhost:{}/hook", receiver.port());
    assert!(refused(client(&["127.0.0.1"]).post(&post(&named)).await));
    let answer = client(&["localhost"]).post(&post(&named)).await;
    assert!(answer.unwrap().taken());
}

/// Serves one request over TLS on the loopback, then ends.
fn tls_once() -> u16 {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use std::io::{Read as _, Write as _};
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store/tls/");
    let certificates: Vec<_> = CertificateDer::pem_file_iter(format!("{folder}server.pem"))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_file(format!("{folder}server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let config = Arc::new(config);
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::Stream::new(&mut connection, &mut stream);
            let mut buffer = [0; 4096];
            if tls.read(&mut buffer).is_ok() {
                tls.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                    .unwrap();
                connection.send_close_notify();
                let _ = connection.write_tls(&mut stream);
            }
        }
    });
    port
}

// An operator's own receiver: an allowed host with a private authority.
#[tokio::test]
async fn an_allowed_host_is_reached_by_tls_with_the_operators_authority() {
    let url = format!("https://localhost:{}/hook", tls_once());
    let authority = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store/tls/ca.pem")).unwrap();
    let limits = Limits {
        allowed: BTreeSet::from(["localhost".to_owned()]),
        authorities: Some(authority),
        ..Limits::default()
    };
    let stranger = client(&["localhost"]).post(&post(&url)).await;
    assert!(matches!(stranger, Err(OutboundError::Failed(_))), "{stranger:?}");
    let answer = Client::new(limits).unwrap().post(&post(&url)).await;
    assert!(answer.unwrap().taken());
}
