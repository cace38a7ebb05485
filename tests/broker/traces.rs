//! `traceparent` goes through: to whom we call, into the log, and back in a fault.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use reentry::domain::subject::UpstreamId;
use reentry::idp::keycloak::{Keycloak, KeycloakSettings};
use reentry::ports::idp::IdentityProvider as _;
use reentry::ports::trace::{self, Trace};
use secrecy::SecretString;
use serde_json::Value;
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;

use crate::house::House;
use crate::rp::{Browser, authorize_url, seen, text, tokens};

const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    /// The wide lines of a route.
    fn of(&self, route: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        lines
            .filter(|l| l["message"] == "request" && l["route"].as_str().is_some_and(|r| r.ends_with(route)))
            .collect()
    }
}

/// A log-in whose callback comes with these headers; what the IdP's token endpoint was told.
async fn called(house: &House, headers: &[(&str, &str)]) -> Vec<String> {
    let mut browser = Browser::default();
    let there = browser
        .get(house, &authorize_url(house, &[]))
        .await
        .location
        .unwrap();
    let back = seen(house.http.get(&there).send().await.unwrap())
        .await
        .location
        .unwrap();
    let mut request = house.http.get(back);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let done = browser.send(request).await;
    assert!(done.query().contains_key("code"), "{done:?}");
    house.op.traced()
}

#[tokio::test]
async fn traceparent_is_passed_on_to_the_idp_and_stands_in_the_log() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(lines.clone())
        .finish();
    // For the whole process: what other tests say is told apart by the step's name.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let house = House::new().await;
    let told = called(&house, &[("traceparent", PARENT), ("tracestate", "vendor=x")]).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[1], "vendor=x");
    let parts: Vec<&str> = told[0].split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", ID, "01"), "{told:?}");
    assert_ne!(parts[2], "00f067aa0ba902b7", "our own step");
    let lines = lines.of("/callback/{upstream}");
    let line = lines.iter().find(|l| l["span_id"] == parts[2]).unwrap();
    assert_eq!(line["trace_id"], ID);
}

#[tokio::test]
async fn a_malformed_traceparent_is_dropped_and_replaced() {
    let house = House::new().await;
    for bad in [
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        "<script>",
        "",
    ] {
        let told = called(&house, &[("traceparent", bad), ("tracestate", "vendor=x")]).await;
        assert_eq!(told.len(), 1, "{bad}: {told:?}");
        assert!(Trace::continuing(&told[0], None, [1; 8]).is_some(), "{told:?}");
        assert!(!told[0].contains(ID), "{bad}: {told:?}");
    }
    let twice = called(&house, &[("traceparent", PARENT), ("traceparent", PARENT)]).await;
    assert!(!twice[0].contains(ID), "sent twice is malformed: {twice:?}");
    let none = called(&house, &[]).await;
    assert!(Trace::continuing(&none[0], None, [1; 8]).is_some(), "{none:?}");
}

#[tokio::test]
async fn a_fault_names_the_callers_trace() {
    let house = House::new().await;
    let given = tokens(&house, &mut Browser::default(), &[]).await;
    let refresh = text(&given, "refresh_token");
    house.cut_store(true);
    let request = house
        .http
        .post(house.url("/token"))
        .header("authorization", crate::rp::bank())
        .header("traceparent", PARENT)
        .form(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]);
    let answer = seen(request.send().await.unwrap()).await;
    assert_eq!(
        (answer.status, answer.json()["trace_id"].as_str()),
        (503, Some(ID))
    );
}

#[tokio::test]
async fn keycloaks_admin_side_is_told_the_trace() {
    let told: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let kept = Arc::clone(&told);
    let router = Router::new().fallback(move |headers: HeaderMap| async move {
        kept.lock().unwrap().push(headers);
        StatusCode::SERVICE_UNAVAILABLE
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let settings = KeycloakSettings::new(
        UpstreamId::parse("kc").unwrap(),
        url.parse().unwrap(),
        "bank",
        "reentry",
        SecretString::from("x"),
    );
    let keycloak = Keycloak::new(settings, Arc::new(reentry::app::clock::SystemClock)).unwrap();
    let ours = Trace::continuing(PARENT, None, [7; 8]).unwrap();
    trace::scope(ours.clone(), keycloak.health()).await.unwrap_err();
    let headers = told.lock().unwrap().clone();
    assert!(!headers.is_empty());
    for headers in headers {
        assert_eq!(headers["traceparent"].to_str().unwrap(), ours.to_string());
    }
}
