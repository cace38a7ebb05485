//! `private_key_jwt`: who has the key is the client, and nobody else, once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use reentry::domain::time::Span;
use reentry::oidc::assertion::{Alg, PublicKeys, TYPE};
use reentry::oidc::settings::{Client, ClientAuth, ClientKeys};
use reentry::ports::signer::Algorithm;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::forge::{Keys, hmac, unsigned};
use crate::house::{House, REDIRECT};
use crate::rp::{Browser, Seen, VERIFIER, code, seen, text};

fn client(keys: ClientKeys, algorithms: &[Alg]) -> Client {
    let mut client = Client::public("robot", REDIRECT, &["accounts:read"]);
    client.auth = ClientAuth::PrivateKey {
        keys,
        algorithms: algorithms.iter().copied().collect::<BTreeSet<_>>(),
    };
    client
}

async fn house(keys: ClientKeys, algorithms: &[Alg]) -> House {
    let robot = client(keys, algorithms);
    House::with(|settings| {
        settings.clients.insert("robot".to_owned(), robot);
    })
    .await
}

fn inline() -> ClientKeys {
    ClientKeys::Inline(PublicKeys::parse(&Keys::of("client").set().to_string()).unwrap())
}

fn claims(house: &House, jti: &str) -> Value {
    json!({
        "iss": "robot", "sub": "robot", "aud": house.issuer, "jti": jti,
        "iat": house.now(), "exp": house.now() + 60,
    })
}

fn head(alg: &str, kid: &str) -> Value {
    json!({ "alg": alg, "kid": kid, "typ": "JWT" })
}

fn es256(claims: &Value) -> String {
    let keys = Keys::of("client");
    keys.sign(
        Algorithm::Es256,
        &head("ES256", &keys.kid(Algorithm::Es256)),
        claims,
    )
}

/// An introspection by an assertion: 200 when it proves the client.
async fn ask(house: &House, assertion: &str) -> Seen {
    send(
        house,
        "/introspect",
        &[
            ("token", "x"),
            ("client_assertion_type", TYPE),
            ("client_assertion", assertion),
        ],
    )
    .await
}

async fn send(house: &House, path: &str, form: &[(&str, &str)]) -> Seen {
    seen(house.http.post(house.url(path)).form(form).send().await.unwrap()).await
}

#[tokio::test]
async fn a_client_with_a_key_redeems_refreshes_introspects_and_revokes() {
    let house = house(inline(), &Alg::ALL).await;
    let scope = ("scope", "openid accounts:read");
    let waiting = code(&house, &mut Browser::default(), &[("client_id", "robot"), scope]).await;
    let by = |jti: &str| es256(&claims(&house, jti));
    let (a, b, c, d) = (by("a"), by("b"), by("c"), by("d"));
    let form = [
        ("grant_type", "authorization_code"),
        ("code", waiting.as_str()),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
        ("client_assertion_type", TYPE),
        ("client_assertion", &a),
    ];
    let first = send(&house, "/token", &form).await;
    assert_eq!(first.status, 200, "{}", first.body);
    let first = first.json();
    let refresh = [
        ("grant_type", "refresh_token"),
        ("refresh_token", text(&first, "refresh_token")),
        ("client_id", "robot"),
        ("client_assertion_type", TYPE),
        ("client_assertion", &b),
    ];
    let second = send(&house, "/token", &refresh).await.json();
    let token = ("token", text(&second, "access_token"));
    let kind = ("client_assertion_type", TYPE);
    let live = send(&house, "/introspect", &[token, kind, ("client_assertion", &c)]).await;
    assert_eq!(live.json()["active"], true, "{live:?}");
    let gone = send(&house, "/revoke", &[token, kind, ("client_assertion", &d)]).await;
    assert_eq!(gone.status, 200);
    let live = ask(&house, &by("e")).await;
    assert_eq!(live.json(), json!({"active": false}));
}

#[tokio::test]
async fn every_algorithm_that_the_client_may_use_works_and_no_other() {
    let keys = Keys::of("client");
    let (rsa, ec) = (keys.kid(Algorithm::Rs256), keys.kid(Algorithm::Es256));
    for (allowed, works) in [
        (Alg::ALL.to_vec(), vec!["RS256", "PS256", "ES256"]),
        (vec![Alg::Ps256], vec!["PS256"]),
        (vec![Alg::EdDsa], vec![]),
    ] {
        let house = house(inline(), &allowed).await;
        for (alg, by, kid) in [
            ("RS256", Algorithm::Rs256, &rsa),
            ("PS256", Algorithm::Rs256, &rsa),
            ("ES256", Algorithm::Es256, &ec),
        ] {
            let assertion = keys.sign(by, &head(alg, kid), &claims(&house, alg));
            let expected = if works.contains(&alg) { 200 } else { 401 };
            assert_eq!(
                ask(&house, &assertion).await.status,
                expected,
                "{alg} with {allowed:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_assertion_works_once() {
    let house = house(inline(), &Alg::ALL).await;
    let assertion = es256(&claims(&house, "once"));
    assert_eq!(ask(&house, &assertion).await.status, 200);
    for _ in 0..3 {
        let again = ask(&house, &assertion).await;
        assert_eq!(
            (again.status, again.json()["error"].clone()),
            (401, "invalid_client".into())
        );
    }
    // The same name in another assertion is the same name.
    let mut other = claims(&house, "once");
    other["exp"] = json!(house.now() + 100);
    assert_eq!(ask(&house, &es256(&other)).await.status, 401);
    let together = es256(&claims(&house, "together"));
    let answers = futures_util::future::join_all((0..8).map(|_| ask(&house, &together))).await;
    assert_eq!(
        answers.iter().filter(|a| a.status == 200).count(),
        1,
        "{answers:?}"
    );
    house.cut_store(true);
    let answer = ask(&house, &es256(&claims(&house, "dark"))).await;
    assert_eq!(answer.status, 503, "a use that cannot be remembered is none");
}

#[tokio::test]
async fn alg_none_swapped_keys_unknown_crit_and_missing_claims_prove_nothing() {
    let house = house(inline(), &Alg::ALL).await;
    let keys = Keys::of("client");
    let (rsa, ec) = (keys.kid(Algorithm::Rs256), keys.kid(Algorithm::Es256));
    let good = |jti: &str| claims(&house, jti);
    let set = keys.set();
    let mut crit = head("ES256", &ec);
    crit["crit"] = json!(["exp"]);
    let mut kind = head("ES256", &ec);
    kind["typ"] = json!("at+jwt");
    let mut bad = vec![
        ("none", unsigned(&head("none", &ec), &good("1"))),
        (
            "HS256 with the RSA key",
            hmac(
                &head("HS256", &rsa),
                &good("2"),
                text(&set["keys"][1], "n").as_bytes(),
            ),
        ),
        (
            "EC under RSA",
            keys.sign(Algorithm::Es256, &head("ES256", &rsa), &good("3")),
        ),
        (
            "RSA under EC",
            keys.sign(Algorithm::Rs256, &head("RS256", &ec), &good("4")),
        ),
        (
            "a stranger",
            Keys::of("stranger").sign(Algorithm::Es256, &head("ES256", &ec), &good("5")),
        ),
        ("a stranger by name", {
            let other = Keys::of("stranger");
            other.sign(
                Algorithm::Es256,
                &head("ES256", &other.kid(Algorithm::Es256)),
                &good("6"),
            )
        }),
        ("crit", keys.sign(Algorithm::Es256, &crit, &good("7"))),
        (
            "an access token's typ",
            keys.sign(Algorithm::Es256, &kind, &good("8")),
        ),
        ("rubbish", "a.b.c".to_owned()),
    ];
    let endpoint = house.url("/token");
    for (i, (name, value)) in [
        ("iss", json!("bank")),
        ("iss", Value::Null),
        ("sub", json!("bank")),
        ("sub", Value::Null),
        ("aud", json!("https://another.example")),
        ("aud", json!(house.url("/introspect"))),
        ("aud", json!([house.issuer, "https://another.example"])),
        ("aud", Value::Null),
        ("exp", Value::Null),
        ("exp", json!(house.now())),
        ("exp", json!(house.now() + 3600)),
        ("exp", json!((house.now() + 60).to_string())),
        ("jti", Value::Null),
        ("jti", json!("")),
        ("jti", json!("x".repeat(300))),
        ("nbf", json!(house.now() + 120)),
        ("iat", json!(house.now() + 120)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut claims = good(&format!("claims-{i}"));
        if value.is_null() {
            claims.as_object_mut().unwrap().shift_remove(name);
        } else {
            claims[name] = value;
        }
        bad.push((name, es256(&claims)));
    }
    for (what, assertion) in &bad {
        let answer = ask(&house, assertion).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert_eq!(answer.json()["error"], "invalid_client", "{what}");
    }
    // The token endpoint is us too, and so is a list with us alone in it.
    for (i, aud) in [json!(endpoint), json!([house.issuer])].into_iter().enumerate() {
        let mut claims = good(&format!("aud-{i}"));
        claims["aud"] = aud;
        assert_eq!(ask(&house, &es256(&claims)).await.status, 200);
    }
    house.pass(Span::from_secs(61));
    assert_eq!(
        ask(
            &house,
            &es256(&json!({
                "iss": "robot", "sub": "robot", "aud": house.issuer, "jti": "late", "exp": house.now() - 1,
            }))
        )
        .await
        .status,
        401
    );
}

#[tokio::test]
async fn a_client_proves_itself_by_its_key_and_nothing_beside_it() {
    let house = house(inline(), &Alg::ALL).await;
    let fresh = |jti: &str| es256(&claims(&house, jti));
    let (a, b, c, d) = (fresh("a"), fresh("b"), fresh("c"), fresh("d"));
    let kind = ("client_assertion_type", TYPE);
    for (form, status) in [
        (
            vec![("client_secret", "x"), kind, ("client_assertion", a.as_str())],
            400,
        ),
        (
            vec![kind, ("client_assertion", b.as_str()), ("client_id", "bank")],
            401,
        ),
        (
            vec![
                ("client_assertion_type", "urn:x"),
                ("client_assertion", c.as_str()),
            ],
            401,
        ),
        (vec![("client_assertion", d.as_str())], 401),
        (vec![kind], 401),
        (vec![("client_id", "robot")], 401),
        (vec![("client_id", "robot"), ("client_secret", "x")], 401),
    ] {
        let mut all = vec![("token", "x")];
        all.extend(form.clone());
        let answer = send(&house, "/introspect", &all).await;
        assert_eq!(answer.status, status, "{form:?}: {answer:?}");
    }
    // The key of one client is nothing to another.
    let mut other = claims(&house, "other");
    other["iss"] = json!("bank");
    other["sub"] = json!("bank");
    assert_eq!(ask(&house, &es256(&other)).await.status, 401);
}

#[tokio::test]
async fn discovery_says_that_keys_do() {
    let house = House::new().await;
    let document = seen(
        house
            .http
            .get(house.url("/.well-known/openid-configuration"))
            .send()
            .await
            .unwrap(),
    )
    .await
    .json();
    for part in ["token", "introspection", "revocation"] {
        let methods = document[format!("{part}_endpoint_auth_methods_supported")]
            .as_array()
            .unwrap();
        assert!(methods.contains(&json!("private_key_jwt")), "{part}");
        assert_eq!(
            document[format!("{part}_endpoint_auth_signing_alg_values_supported")],
            json!(["RS256", "PS256", "ES256", "EdDSA"])
        );
    }
}

#[tokio::test]
async fn published_keys_are_kept_and_fetched_again_a_bounded_number_of_times() {
    let fetched = Arc::new(AtomicU32::new(0));
    let set = Arc::new(Mutex::new(Some(Keys::of("client").set().to_string())));
    let (count, shown) = (Arc::clone(&fetched), Arc::clone(&set));
    let router = Router::new().route(
        "/jwks",
        get(move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            shown
                .lock()
                .unwrap()
                .clone()
                .ok_or(axum::http::StatusCode::BAD_GATEWAY)
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let house = house(ClientKeys::Published(url.clone()), &Alg::ALL).await;
    for i in 0..5 {
        assert_eq!(
            ask(&house, &es256(&claims(&house, &i.to_string()))).await.status,
            200
        );
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "kept");
    // Unknown names, as many as anybody likes: no storm.
    let stranger = Keys::of("stranger");
    for i in 0..20 {
        let head = head("ES256", &stranger.kid(Algorithm::Es256));
        let assertion = stranger.sign(Algorithm::Es256, &head, &claims(&house, &format!("s{i}")));
        assert_eq!(ask(&house, &assertion).await.status, 401);
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "not within the pause");
    // The client's server away: what is known stays in use; nothing known is no proof, and 503.
    *set.lock().unwrap() = None;
    assert_eq!(ask(&house, &es256(&claims(&house, "away"))).await.status, 200);
    let dark = self::house(ClientKeys::Published(url), &Alg::ALL).await;
    for i in 0..3 {
        let answer = ask(&dark, &es256(&claims(&dark, &format!("dark{i}")))).await;
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 2);
}

// Where a client's keys are is the client's word: it leads to no address that is not public, unless it is allowed.
#[tokio::test]
async fn keys_at_an_address_that_is_not_public_are_not_fetched() {
    let fetched = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&fetched);
    let set = Keys::of("client").set().to_string();
    let router = Router::new()
        .route(
            "/jwks",
            get(move || async move {
                count.fetch_add(1, Ordering::SeqCst);
                set.clone()
            }),
        )
        .route(
            "/elsewhere",
            get(|| async { axum::response::Redirect::temporary("/jwks") }),
        )
        .route("/large", get(|| async { "x".repeat(600 * 1024) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    for url in [
        format!("http://localhost:{port}/jwks"),
        format!("https://localhost:{port}/jwks"),
        format!("https://[::ffff:127.0.0.1]:{port}/jwks"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://10.0.0.1/jwks".to_owned(),
        // Of the allowed host: no redirect is followed, and a document has an end.
        format!("http://127.0.0.1:{port}/elsewhere"),
        format!("http://127.0.0.1:{port}/large"),
    ] {
        let house = house(ClientKeys::Published(url.clone()), &Alg::ALL).await;
        let answer = ask(&house, &es256(&claims(&house, "one"))).await;
        assert_eq!(answer.status, 503, "{url}: {answer:?}");
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 0);
    let allowed = house(
        ClientKeys::Published(format!("http://127.0.0.1:{port}/jwks")),
        &Alg::ALL,
    )
    .await;
    assert_eq!(ask(&allowed, &es256(&claims(&allowed, "one"))).await.status, 200);
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
}

#[test]
fn a_jwk_set_holds_public_keys_that_are_good_for_something() {
    let whole = Keys::of("client").set();
    PublicKeys::parse(&whole.to_string()).unwrap();
    for bad in [
        "x".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"keys": []}"#.to_owned(),
        r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#.to_owned(),
        r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#.to_owned(),
        {
            let mut set = whole.clone();
            set["keys"][0]["d"] = json!("AAAA");
            set.to_string()
        },
    ] {
        assert!(PublicKeys::parse(&bad).is_err(), "{bad}");
    }
    let mut more = whole;
    more["keys"]
        .as_array_mut()
        .unwrap()
        .push(json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"}));
    PublicKeys::parse(&more.to_string()).unwrap();
}
