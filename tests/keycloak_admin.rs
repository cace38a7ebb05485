//! The Keycloak admin client against a server that misbehaves: what a real one does only on bad days.
#![expect(clippy::expect_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use reentry::idp::keycloak::admin::{Admin, AdminError, BODY_LIMIT, Credentials, EventQuery};
use secrecy::SecretString;
use serde_json::json;
use url::Url;

#[derive(Default)]
struct Counts {
    tokens: AtomicUsize,
    calls: AtomicUsize,
    elsewhere: AtomicUsize,
}

/// A server with a token endpoint; everything else answers by the last segment of its path.
struct Server {
    base: Url,
    counts: Arc<Counts>,
}

async fn answer(State(counts): State<Arc<Counts>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if path.ends_with("/protocol/openid-connect/token") {
        let number = counts.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        let token = json!({"access_token": format!("token-{number}"), "expires_in": 60});
        return axum::Json(token).into_response();
    }
    if path == "/elsewhere" {
        counts.elsewhere.fetch_add(1, Ordering::SeqCst);
    }
    counts.calls.fetch_add(1, Ordering::SeqCst);
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    match path.rsplit('/').next().unwrap_or_default() {
        "stale" if bearer == "Bearer token-1" => StatusCode::UNAUTHORIZED.into_response(),
        "refused" => StatusCode::UNAUTHORIZED.into_response(),
        "forbidden" => StatusCode::FORBIDDEN.into_response(),
        "taken" => (StatusCode::CONFLICT, "it exists").into_response(),
        "proxy" => (StatusCode::BAD_GATEWAY, "<html>".repeat(1000)).into_response(),
        "moved" => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        "huge" => Body::from(vec![b' '; BODY_LIMIT + 1]).into_response(),
        "html" => "<html>welcome</html>".into_response(),
        "slow" => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            StatusCode::OK.into_response()
        }
        "another" => axum::Json(json!({"id": "x", "enabled": true})).into_response(),
        "events" => axum::Json(
            json!([{"time": 5, "type": "LOGIN", "details": {"a": null, "b": "c"}}, {
                "id": "x", "time": 6, "type": "LOGOUT", "details": null, "error": null,
            }]),
        )
        .into_response(),
        last => {
            let id = url::form_urlencoded::parse(last.as_bytes()).next();
            let id = id.map(|(id, _)| id.into_owned());
            axum::Json(json!({"id": id, "username": bearer, "email": path, "enabled": true})).into_response()
        }
    }
}

impl Server {
    async fn start() -> Self {
        let counts = Arc::new(Counts::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&counts));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let base = format!("http://{}/auth/", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            base: Url::parse(&base).expect("a URL"),
            counts,
        }
    }

    fn admin(&self) -> Admin {
        let credentials = Credentials::Client {
            realm: "main".to_owned(),
            id: "reentry".to_owned(),
            secret: SecretString::from("secret".to_owned()),
        };
        Admin::new(&self.base, "main", credentials, Duration::from_millis(1500)).expect("a client")
    }

    fn seen(&self) -> (usize, usize) {
        (
            self.counts.tokens.load(Ordering::SeqCst),
            self.counts.calls.load(Ordering::SeqCst),
        )
    }
}

#[tokio::test]
async fn many_calls_share_one_token() {
    let server = Server::start().await;
    let admin = Arc::new(server.admin());
    let calls = (0..20).map(|number| {
        let admin = Arc::clone(&admin);
        tokio::spawn(async move { admin.user(&format!("u{number}")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        let user = call.await.expect("no panic").expect("a user");
        assert_eq!(user.username.as_deref(), Some("Bearer token-1"));
    }
    assert_eq!(server.seen(), (1, 20));
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once_and_only_once() {
    let server = Server::start().await;
    let admin = server.admin();
    let user = admin.user("stale").await.expect("the second token is good");
    assert_eq!(user.username.as_deref(), Some("Bearer token-2"));
    assert_eq!(server.seen(), (2, 2));
    let refused = admin.user("refused").await;
    assert!(
        matches!(refused, Err(AdminError::Unauthorized { .. })),
        "{refused:?}"
    );
    assert_eq!(server.seen(), (3, 4));
}

#[tokio::test]
async fn every_bad_answer_has_its_error() {
    let server = Server::start().await;
    let admin = server.admin();
    let error = |id: &'static str| {
        let admin = &admin;
        async move { admin.user(id).await.expect_err(id) }
    };
    assert_eq!(
        error("forbidden").await,
        AdminError::Forbidden {
            what: "GET users/forbidden".to_owned()
        }
    );
    assert!(matches!(error("taken").await, AdminError::Conflict { reason, .. } if reason == "it exists"));
    let proxy = error("proxy").await;
    assert!(proxy.is_transient() && proxy.to_string().len() < 500, "{proxy}");
    let moved = error("moved").await;
    assert!(
        matches!(moved, AdminError::Unexpected { status: 302, .. }),
        "{moved}"
    );
    assert_eq!(
        server.counts.elsewhere.load(Ordering::SeqCst),
        0,
        "the token went elsewhere"
    );
    assert!(matches!(error("html").await, AdminError::Malformed { .. }));
    assert!(matches!(error("huge").await, AdminError::Malformed { .. }));
    let begun = Instant::now();
    let slow = error("slow").await;
    assert!(
        slow.is_transient() && begun.elapsed() < Duration::from_secs(5),
        "{slow}"
    );
    assert!(matches!(slow, AdminError::Timeout { .. }));
}

// P15: an answer about somebody else is none.
#[tokio::test]
async fn an_answer_about_another_user_is_not_believed() {
    let server = Server::start().await;
    let wrong = server.admin().user("another").await.expect_err("another");
    assert!(matches!(wrong, AdminError::Malformed { .. }), "{wrong}");
}

#[tokio::test]
async fn an_id_never_leaves_its_place_in_the_path() {
    let server = Server::start().await;
    let admin = server.admin();
    for id in ["", ".", ".."] {
        let gone = admin.delete_user(id).await;
        assert!(
            matches!(gone, Err(AdminError::NotFound { .. })),
            "{id:?}: {gone:?}"
        );
    }
    assert_eq!(server.seen(), (0, 0));
    let user = admin.user("../realms?x=1#y %2e").await.expect("a user");
    assert_eq!(
        user.email.as_deref(),
        Some("/auth/admin/realms/main/users/..%2Frealms%3Fx%3D1%23y%20%252e")
    );
}

#[tokio::test]
async fn events_of_older_servers_and_with_nulls_are_read() {
    let server = Server::start().await;
    let events = server
        .admin()
        .events(&EventQuery::default())
        .await
        .expect("events");
    assert_eq!(
        (events[0].id.as_deref(), events[1].id.as_deref()),
        (None, Some("x"))
    );
    assert_eq!(
        events[0].details.iter().collect::<Vec<_>>(),
        [(&"b".to_owned(), &"c".to_owned())]
    );
    assert!(events[1].details.is_empty());
}
