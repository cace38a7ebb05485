//! Authorization requests and clients: what is refused, and where it is told.

use serde_json::json;

use crate::house::{House, REDIRECT, payload};
use crate::op::Word;
use crate::rp::{Browser, VERIFIER, authorize_url, code, log_in, post, redeem, seen, text, tokens};
use reentry::domain::time::Span;

#[tokio::test]
async fn an_unknown_client_or_redirect_uri_is_never_redirected() {
    let house = House::new().await;
    for changes in [
        [("client_id", "nobody")],
        [("client_id", "")],
        [("redirect_uri", "https://bank.example/cb/")],
        [("redirect_uri", "https://bank.example/cb?x=1")],
        [("redirect_uri", "https://bank.example/CB")],
        [("redirect_uri", "http://bank.example/cb")],
        [("redirect_uri", "https://bank.example.evil.test/cb")],
        [("redirect_uri", "https://spa.example/cb")],
        [("redirect_uri", "")],
    ] {
        let seen = Browser::default()
            .get(&house, &authorize_url(&house, &changes))
            .await;
        assert_eq!((seen.status, seen.location.is_none()), (400, true), "{changes:?}");
        assert!(
            seen.headers["content-security-policy"]
                .to_str()
                .unwrap()
                .contains("frame-ancestors 'none'")
        );
        assert_eq!(seen.headers["cache-control"], "no-store");
        assert_eq!(seen.headers["referrer-policy"], "no-referrer");
    }
    let twice = format!(
        "{}&redirect_uri=https%3A%2F%2Fevil.test",
        authorize_url(&house, &[])
    );
    assert_eq!(Browser::default().get(&house, &twice).await.status, 400);
}

#[tokio::test]
async fn what_a_client_gets_wrong_is_told_to_its_redirect_uri_with_state_and_iss() {
    let house = House::new().await;
    let long = "x".repeat(1025);
    for (changes, error) in [
        (vec![("response_type", "")], "invalid_request"),
        (vec![("response_type", "token")], "unsupported_response_type"),
        (
            vec![("response_type", "code id_token")],
            "unsupported_response_type",
        ),
        (vec![("response_mode", "form_post")], "invalid_request"),
        (
            vec![("request", "eyJhbGciOiJub25lIn0.e30.")],
            "request_not_supported",
        ),
        (
            vec![("request_uri", "https://bank.example/r")],
            "request_uri_not_supported",
        ),
        (vec![("registration", "{}")], "registration_not_supported"),
        (vec![("scope", "")], "invalid_scope"),
        (vec![("scope", "unknown")], "invalid_scope"),
        (vec![("scope", "openid reentry-hold.read")], "invalid_scope"),
        (vec![("scope", "openid reentry-full")], "invalid_scope"),
        (vec![("scope", "openid recovery_scope")], "invalid_scope"),
        (
            vec![("code_challenge", ""), ("code_challenge_method", "")],
            "invalid_request",
        ),
        (vec![("code_challenge_method", "")], "invalid_request"),
        (vec![("code_challenge_method", "plain")], "invalid_request"),
        (vec![("code_challenge", "short")], "invalid_request"),
        (vec![("prompt", "none login")], "invalid_request"),
        (vec![("prompt", "create")], "invalid_request"),
        (vec![("prompt", "recover")], "invalid_request"),
        (vec![("max_age", "-1")], "invalid_request"),
        (vec![("max_age", "soon")], "invalid_request"),
        (vec![("nonce", long.as_str())], "invalid_request"),
        (vec![("claims", "[]")], "invalid_request"),
        (
            vec![("claims", r#"{"id_token":{"recovery_scope":{"value":"full"}}}"#)],
            "invalid_request",
        ),
        (
            vec![("claims", r#"{"userinfo":{"recovery_epoch":null}}"#)],
            "invalid_request",
        ),
        (vec![("id_token_hint", "not.a.token")], "invalid_request"),
    ] {
        let seen = Browser::default()
            .get(&house, &authorize_url(&house, &changes))
            .await;
        let location = seen
            .location
            .clone()
            .unwrap_or_else(|| panic!("{changes:?}: {seen:?}"));
        assert!(location.starts_with(REDIRECT), "{changes:?}");
        let query = seen.query();
        assert_eq!(query["error"], error, "{changes:?}: {query:?}");
        assert_eq!(
            (query["state"].as_str(), query["iss"].as_str()),
            ("s t&1", house.issuer.as_str())
        );
    }
    let twice = format!("{}&nonce=2", authorize_url(&house, &[]));
    assert_eq!(
        Browser::default().get(&house, &twice).await.error(),
        "invalid_request"
    );
    let states = Browser::default()
        .get(&house, &format!("{}&state=2", authorize_url(&house, &[])))
        .await
        .query();
    assert!(!states.contains_key("state") && states["error"] == "invalid_request");
}

#[tokio::test]
async fn unknown_prompts_are_ignored_when_so_configured_and_other_unknown_things_always() {
    let house = House::with(|s| s.ignore_unknown_prompt = true).await;
    let changes = [
        ("prompt", "create"),
        ("display", "popup"),
        ("claims_locales", "de"),
        ("hello", "world"),
    ];
    code(&house, &mut Browser::default(), &changes).await;
    code(
        &house,
        &mut Browser::default(),
        &[("claims", r#"{"userinfo":{"email":{"essential":true}}}"#)],
    )
    .await;
}

#[tokio::test]
async fn a_request_by_post_is_the_same_request() {
    let house = House::new().await;
    let mut browser = Browser::default();
    code(&house, &mut browser, &[]).await;
    let url = url::Url::parse(&authorize_url(&house, &[("prompt", "none")])).unwrap();
    let form: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let moved = Browser::default()
        .send(house.http.post(house.url("/authorize")).form(&form))
        .await;
    assert_eq!(moved.status, 303, "never 307");
    let answer = browser.get(&house, moved.location.as_ref().unwrap()).await;
    assert!(answer.query().contains_key("code"));
}

#[tokio::test]
async fn contract4_what_was_asked_for_goes_to_the_idp_and_is_checked_on_the_way_back() {
    let house = House::new().await;
    let claims = r#"{"id_token":{"sub":{"value":"alice"},"acr":{"essential":true,"values":["silver"]}}}"#;
    let changes = [
        ("prompt", "login consent"),
        ("max_age", "60"),
        ("acr_values", "gold silver"),
        ("login_hint", "alice@example.com"),
        ("ui_locales", "de en"),
        ("claims", claims),
    ];
    code(&house, &mut Browser::default(), &changes).await;
    let asked = house.op.asked();
    assert_eq!(asked["prompt"], "login consent");
    assert_eq!(asked["max_age"], "60");
    assert_eq!(asked["acr_values"], "gold silver");
    assert_eq!(asked["login_hint"], "alice@example.com");
    assert_eq!(asked["ui_locales"], "de en");
    assert_eq!(
        asked["claims"], r#"{"id_token":{"acr":{"essential":true,"values":["silver"]}}}"#,
        "without sub"
    );
    assert_eq!(asked["code_challenge_method"], "S256");
    assert!(!asked.contains_key("id_token_hint"));
}

#[tokio::test]
async fn contract4_what_the_idp_does_not_prove_is_not_asserted() {
    let house = House::new().await;
    let claims = r#"{"id_token":{"acr":{"essential":true,"values":["silver"]}}}"#;
    for (word, changes, error) in [
        (
            Word {
                auth_time: None,
                ..Word::default()
            },
            vec![("prompt", "login")],
            "login_required",
        ),
        (
            Word {
                auth_time: Some(house.now() - 600),
                ..Word::default()
            },
            vec![("prompt", "login")],
            "login_required",
        ),
        (
            Word {
                auth_time: Some(house.now() - 600),
                ..Word::default()
            },
            vec![("max_age", "0")],
            "login_required",
        ),
        (
            Word {
                auth_time: Some(house.now() - 600),
                ..Word::default()
            },
            vec![("max_age", "300")],
            "login_required",
        ),
        (
            Word {
                auth_time: None,
                ..Word::default()
            },
            vec![("max_age", "300")],
            "login_required",
        ),
        (
            Word {
                acr: Some("bronze".to_owned()),
                ..Word::default()
            },
            vec![("claims", claims)],
            "unmet_authentication_requirements",
        ),
        (
            Word {
                acr: None,
                ..Word::default()
            },
            vec![("claims", claims)],
            "unmet_authentication_requirements",
        ),
        (
            Word {
                sub: "mallory".to_owned(),
                ..Word::default()
            },
            vec![("claims", r#"{"id_token":{"sub":{"value":"alice"}}}"#)],
            "login_required",
        ),
    ] {
        house.op.say(&word);
        let answer = log_in(&house, &mut Browser::default(), &changes).await;
        assert_eq!(answer.error(), error, "{changes:?} {word:?}");
    }
    house.op.say(&Word {
        acr: Some("bronze".to_owned()),
        auth_time: Some(house.now() - 600),
        ..Word::default()
    });
    let tokens = tokens(
        &house,
        &mut Browser::default(),
        &[("acr_values", "gold"), ("max_age", "3600")],
    )
    .await;
    let id = payload(text(&tokens, "id_token"));
    assert_eq!(id["acr"], "bronze", "a wish; what is true is said");
    assert_eq!(
        id["auth_time"],
        house.now() - 600,
        "never a fresher one than the IdP's"
    );
}

#[tokio::test]
async fn a_session_answers_only_what_it_can_vouch_for() {
    let house = House::new().await;
    let mut browser = Browser::default();
    code(&house, &mut browser, &[]).await;
    house.pass(Span::from_secs(20));
    let silent = |changes: Vec<(&'static str, &'static str)>| {
        let url = authorize_url(&house, &[changes, vec![("prompt", "none")]].concat());
        let (mut browser, house) = (browser.clone(), &house);
        async move { browser.get(house, &url).await.query() }
    };
    assert!(silent(vec![("max_age", "30")]).await.contains_key("code"));
    assert_eq!(silent(vec![("max_age", "10")]).await["error"], "login_required");
    assert_eq!(silent(vec![("max_age", "0")]).await["error"], "login_required");
    assert_eq!(
        silent(vec![("client_id", "away"), ("scope", "openid")]).await["error"],
        "login_required",
        "another IdP"
    );
    let wrong = r#"{"id_token":{"sub":{"value":"bob"}}}"#;
    assert_eq!(silent(vec![("claims", wrong)]).await["error"], "login_required");
    for prompt in ["login", "select_account", "consent"] {
        let url = authorize_url(&house, &[("prompt", prompt)]);
        let seen = browser.clone().get(&house, &url).await;
        assert!(
            seen.location.unwrap().starts_with(&house.op.issuer),
            "{prompt} goes to the IdP"
        );
    }
}

#[tokio::test]
async fn an_id_token_hint_is_resolved_here_and_names_the_person() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    let hint = text(&first, "id_token");
    house.pass(Span::from_hours(1));
    let ours = browser
        .get(
            &house,
            &authorize_url(&house, &[("prompt", "none"), ("id_token_hint", hint)]),
        )
        .await;
    assert!(ours.query().contains_key("code"), "an expired one is good enough");
    house.op.say(&Word {
        sub: "bob".to_owned(),
        auth_time: Some(house.now()),
        ..Word::default()
    });
    let mut other = Browser::default();
    code(&house, &mut other, &[]).await;
    let foreign = other
        .get(
            &house,
            &authorize_url(&house, &[("prompt", "none"), ("id_token_hint", hint)]),
        )
        .await;
    assert_eq!(foreign.error(), "login_required");
    let access = browser
        .get(
            &house,
            &authorize_url(&house, &[("id_token_hint", text(&first, "access_token"))]),
        )
        .await;
    assert_eq!(
        access.error(),
        "invalid_request",
        "an access token is no ID token"
    );
}

#[tokio::test]
async fn a_subject_of_the_second_idp_has_its_prefix_and_can_be_taken_for_nobody_else() {
    let house = House::new().await;
    let changes = [("client_id", "away"), ("scope", "openid accounts:read")];
    let form = |code: &str| {
        vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", REDIRECT.to_owned()),
            ("code_verifier", VERIFIER.to_owned()),
            ("client_id", "away".to_owned()),
        ]
    };
    let code = code(&house, &mut Browser::default(), &changes).await;
    let answer = seen(
        house
            .http
            .post(house.url("/token"))
            .form(&form(&code))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        payload(text(&answer.json(), "access_token"))["sub"],
        "second:alice"
    );
    house.op.say(&Word {
        sub: "second:alice".to_owned(),
        auth_time: Some(house.now()),
        ..Word::default()
    });
    let confused = log_in(&house, &mut Browser::default(), &[]).await;
    assert_eq!(confused.error(), "access_denied");
}

#[tokio::test]
async fn a_client_proves_itself_by_exactly_one_method() {
    let house = House::new().await;
    let token = |form: Vec<(&'static str, String)>, header: Option<String>| {
        let mut request = house.http.post(house.url("/token")).form(&form);
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        async move { seen(request.send().await.unwrap()).await }
    };
    let code = || async {
        let mut browser = Browser::default();
        self::code(&house, &mut browser, &[]).await
    };
    let form = |code: &str, more: Vec<(&'static str, &str)>| -> Vec<(&'static str, String)> {
        let mut form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", REDIRECT.to_owned()),
            ("code_verifier", VERIFIER.to_owned()),
        ];
        form.extend(more.into_iter().map(|(n, v)| (n, v.to_owned())));
        form
    };
    let good = code().await;
    let secret = crate::house::SECRET;
    let both = token(
        form(&good, vec![("client_id", "bank"), ("client_secret", secret)]),
        Some(crate::rp::bank()),
    )
    .await;
    assert_eq!(
        (both.status, both.json()["error"].clone()),
        (400, json!("invalid_request"))
    );
    let none = token(form(&good, vec![("client_id", "bank")]), None).await;
    assert_eq!(
        (none.status, none.json()["error"].clone()),
        (401, json!("invalid_client"))
    );
    let wrong = token(form(&good, vec![]), Some("Basic YmFuazp3cm9uZw==".to_owned())).await;
    assert_eq!(wrong.status, 401);
    assert!(
        wrong.headers["www-authenticate"]
            .to_str()
            .unwrap()
            .starts_with("Basic")
    );
    let scheme = token(
        form(&good, vec![("client_id", "spa")]),
        Some("Bearer x".to_owned()),
    )
    .await;
    assert_eq!(scheme.status, 401);
    let public = token(form(&good, vec![("client_id", "spa")]), None).await;
    assert_eq!(
        public.json()["error"],
        "invalid_grant",
        "a code of another client"
    );
    let posted = token(
        form(&good, vec![("client_id", "bank"), ("client_secret", secret)]),
        None,
    )
    .await;
    assert_eq!(
        posted.status, 200,
        "nothing of this consumed the code: {}",
        posted.body
    );
    let introspecting = house
        .http
        .post(house.url("/introspect"))
        .form(&[("client_id", "spa"), ("token", "x")]);
    assert_eq!(
        seen(introspecting.send().await.unwrap()).await.status,
        401,
        "public clients do not introspect"
    );
}

#[tokio::test]
async fn algorithms_and_pkce_are_per_client() {
    let house = House::new().await;
    let changes = [
        ("client_id", "legacy"),
        ("scope", "openid accounts:read"),
        ("code_challenge", ""),
        ("code_challenge_method", ""),
        ("nonce", ""),
    ];
    let redeem = |code: String, verifier: Option<&'static str>| {
        let house = &house;
        async move {
            let mut form = vec![
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", REDIRECT),
                ("client_id", "legacy"),
                ("client_secret", "legacy-secret"),
            ];
            form.extend(verifier.map(|v| ("code_verifier", v)));
            seen(
                house
                    .http
                    .post(house.url("/token"))
                    .form(&form)
                    .send()
                    .await
                    .unwrap(),
            )
            .await
        }
    };
    let mut browser = Browser::default();
    let downgraded = redeem(code(&house, &mut browser, &changes).await, Some(VERIFIER)).await;
    assert_eq!(
        downgraded.json()["error"],
        "invalid_grant",
        "a verifier without a challenge (RFC 9700 2.1.1)"
    );
    let tokens = redeem(code(&house, &mut browser, &changes).await, None)
        .await
        .json();
    assert_eq!(
        crate::house::header(text(&tokens, "access_token"))["alg"],
        "RS256"
    );
    assert_eq!(crate::house::header(text(&tokens, "id_token"))["alg"], "ES256");
    assert!(payload(text(&tokens, "id_token")).get("nonce").is_none());
    let with = [("client_id", "legacy"), ("scope", "openid accounts:read")];
    let missing = redeem(code(&house, &mut browser, &with).await, None).await;
    assert_eq!(
        missing.json()["error"],
        "invalid_grant",
        "a challenge without a verifier"
    );
}

#[tokio::test]
async fn the_token_endpoint_says_what_is_wrong() {
    let house = House::new().await;
    for (form, error) in [
        (vec![], "invalid_request"),
        (
            vec![("grant_type", "password"), ("username", "a"), ("password", "b")],
            "unsupported_grant_type",
        ),
        (
            vec![("grant_type", "client_credentials")],
            "unsupported_grant_type",
        ),
        (vec![("grant_type", "authorization_code")], "invalid_request"),
        (
            vec![
                ("grant_type", "authorization_code"),
                ("code", "x"),
                ("redirect_uri", REDIRECT),
            ],
            "invalid_grant",
        ),
        (vec![("grant_type", "refresh_token")], "invalid_request"),
        (
            vec![("grant_type", "refresh_token"), ("refresh_token", "x")],
            "invalid_grant",
        ),
        (
            vec![("grant_type", "refresh_token"), ("grant_type", "refresh_token")],
            "invalid_request",
        ),
        (
            vec![
                ("grant_type", "refresh_token"),
                ("refresh_token", "x"),
                ("scope", "reentry-full"),
            ],
            "invalid_scope",
        ),
    ] {
        let answer = post(&house, "/token", &form).await;
        assert_eq!(
            (answer.status, answer.json()["error"].clone()),
            (400, json!(error)),
            "{form:?}"
        );
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    let code = code(&house, &mut Browser::default(), &[]).await;
    let short = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", REDIRECT),
        ("code_verifier", "short"),
    ];
    assert_eq!(
        post(&house, "/token", &short).await.json()["error"],
        "invalid_grant"
    );
    assert_eq!(redeem(&house, &code).await.status, 200);
}
