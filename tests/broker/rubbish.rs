//! Rubbish on every route: an answer of ours, never a 5xx.

use reentry::config::limits::AtOnce;
use reentry::http::routes::{Listener, ROUTES};
use reqwest::Method;

use crate::house::House;
use crate::rp::seen;

#[tokio::test]
async fn oversize_and_malformed_requests_on_every_route_give_no_5xx() {
    let house = House::new().await;
    let operations = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", operations.local_addr().unwrap());
    let router = reentry::http::operations(house.context.clone());
    tokio::spawn(async move { axum::serve(operations, router).await.unwrap() });
    let big = "a=".to_owned() + &"x".repeat(100 * 1024);
    let many = "a=1&".repeat(500);
    let form = "application/x-www-form-urlencoded";
    let bodies: [(&str, &[u8]); 10] = [
        (form, b""),
        (form, b"%ff=%fe&%00=%zz&=&&="),
        (
            form,
            b"client_id=bank&client_id=bank&token=a&token=b&grant_type=x",
        ),
        (form, big.as_bytes()),
        (form, many.as_bytes()),
        ("application/json", b"{\"a\":"),
        ("application/json", b"[[[[[[[[[["),
        ("application/json", b"\xff\xfe"),
        ("text/plain", b"hello"),
        ("multipart/form-data; boundary=x", b"--x"),
    ];
    let queries = [
        "",
        "?%ff=%fe&a=%00",
        "?state=%0d%0aSet-Cookie:x=1&client_id[]=1",
        "?limit=-1&limit=x&state=../../",
    ];
    let mut sent = 0;
    for route in ROUTES.iter().copied().flatten() {
        let root = if route.listener == Listener::Public {
            &house.issuer
        } else {
            &base
        };
        for filler in ["x", "%ff%00", "..%2f..%2fetc", &"y".repeat(5000)] {
            let path: Vec<&str> = route
                .path
                .split('/')
                .map(|s| if s.starts_with('{') { filler } else { s })
                .collect();
            for query in queries {
                let url = format!("{root}{}{query}", path.join("/"));
                let method = Method::from_bytes(route.method.as_bytes()).unwrap();
                let plain = house
                    .http
                    .request(method.clone(), &url)
                    .header("authorization", "Bearer \u{e9}\u{e9}");
                let mut requests = vec![house.http.request(method.clone(), &url), plain];
                for (kind, body) in bodies.iter().filter(|_| method != Method::GET) {
                    let request = house
                        .http
                        .request(method.clone(), &url)
                        .header("content-type", *kind);
                    requests.push(request.header("authorization", "Basic !!!").body(body.to_vec()));
                    requests.push(
                        house
                            .http
                            .request(method.clone(), &url)
                            .header("content-type", *kind)
                            .body(body.to_vec()),
                    );
                }
                for request in requests {
                    let answer = seen(request.send().await.unwrap()).await;
                    let ready = route.path == "/ready" && answer.status == 503;
                    assert!(answer.status < 500 || ready, "{} {url}: {answer:?}", route.method);
                    assert!(
                        !answer.headers.contains_key("set-cookie") || answer.status < 400,
                        "{url}"
                    );
                    sent += 1;
                }
                if !route.path.contains('{') {
                    break;
                }
            }
            if !route.path.contains('{') {
                break;
            }
        }
        let wrong = house.http.request(
            Method::DELETE,
            format!("{root}{}", route.path.replace(['{', '}'], "")),
        );
        assert_eq!(
            seen(wrong.send().await.unwrap()).await.status,
            405,
            "{}",
            route.path
        );
    }
    assert!(sent > 200, "{sent}");
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_document() {
    let house = House::new().await;
    let missing = seen(house.http.get(house.url("/nothing")).send().await.unwrap()).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.headers["content-type"], "application/problem+json");
    assert_eq!(missing.json()["type"], "urn:reentry:problem:not-found");
    for header in [
        "content-security-policy",
        "x-content-type-options",
        "referrer-policy",
        "cache-control",
    ] {
        assert!(missing.headers.contains_key(header), "{header}");
    }
    let big = house
        .http
        .post(house.url("/token"))
        .header("content-type", "application/x-www-form-urlencoded");
    let big = seen(
        big.body("a=".to_owned() + &"x".repeat(100 * 1024))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (big.status, big.json()["error"].clone()),
        (413, serde_json::json!("invalid_request"))
    );
    let kind = seen(
        house
            .http
            .post(house.url("/token"))
            .header("content-type", "text/plain")
            .body("a")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(kind.status, 415);
}

#[tokio::test]
async fn overload_is_shed_with_503_and_retry_after() {
    let house = House::new().await;
    let limits = reentry::http::context::Limits {
        at_once: AtOnce {
            requests: 0,
            ..AtOnce::default()
        },
        ..reentry::http::context::Limits::default()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{}{}/jwks",
        listener.local_addr().unwrap(),
        crate::house::BASE
    );
    let router = reentry::http::public(house.context.clone().with_limits(limits));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let shed = seen(house.http.get(&url).send().await.unwrap()).await;
    assert_eq!(shed.status, 503);
    assert!(shed.headers.contains_key("retry-after"));
    let mut names: Vec<String> = shed.json().as_object().unwrap().keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["status", "trace_id", "type"]);
}
