//! The ordinary way: log-in, tokens, refresh, userinfo, introspection, revocation, discovery.

use serde_json::json;

use crate::house::{BASE, House, header, payload};
use crate::rp::{Browser, code, introspect, log_in, post, redeem, refresh, seen, text, tokens, userinfo};

#[tokio::test]
async fn iss1_a_login_gives_whole_tokens_with_the_claims_of_the_contract() {
    let house = House::new().await;
    house.admin.roles.lock().unwrap().insert("payer".to_owned());
    let mut browser = Browser::default();
    let seen = log_in(&house, &mut browser, &[]).await;
    let query = seen.query();
    assert_eq!(query["state"], "s t&1");
    assert_eq!(query["iss"], house.issuer, "RFC 9207");
    let answer = redeem(&house, &query["code"]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let tokens = answer.json();
    assert_eq!(
        tokens["scope"],
        "openid accounts:read email payees:write profile transfers:write"
    );
    assert_eq!(tokens["expires_in"], 900, "ISS-5");
    let access = payload(text(&tokens, "access_token"));
    assert_eq!(header(text(&tokens, "access_token"))["typ"], "at+jwt");
    assert_eq!(header(text(&tokens, "access_token"))["alg"], "ES256");
    let expected = [
        ("iss", json!(house.issuer)),
        ("sub", json!("alice")),
        ("aud", json!("bank")),
        ("client_id", json!("bank")),
        ("acr", json!("silver")),
        ("auth_time", json!(house.now())),
        ("recovery_scope", json!("full")),
        ("recovery_epoch", json!(0)),
        ("name", json!("Alice")),
        ("department", json!("sales")),
        ("email_verified", json!(true)),
        ("roles", json!(["payer"])),
        ("iat", json!(house.now())),
        ("exp", json!(house.now() + 900)),
    ];
    for (name, value) in expected {
        assert_eq!(access[name], value, "{name} in {access}");
    }
    assert!(access.get("secret_note").is_none(), "the allow-list");
    assert!(access.get("recovery_until").is_none() && access.get("recovery_ref").is_none());
    let id = payload(text(&tokens, "id_token"));
    assert_eq!(header(text(&tokens, "id_token"))["alg"], "RS256");
    assert_eq!(id["nonce"], "n-1");
    assert_eq!(id["sid"], access["sid"]);
    assert_eq!(id["amr"], json!(["pwd"]));
    assert_eq!(id["recovery_scope"], "full");
    assert!(id["at_hash"].is_string());
}

#[tokio::test]
async fn a_refresh_keeps_sid_and_auth_time_and_has_no_nonce() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    house.pass(reentry::domain::time::Span::from_mins(5));
    let answer = refresh(&house, text(&first, "refresh_token")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let second = answer.json();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    let (a, b) = (
        payload(text(&first, "access_token")),
        payload(text(&second, "access_token")),
    );
    assert_eq!(a["sid"], b["sid"]);
    assert_eq!(a["auth_time"], b["auth_time"]);
    assert!(
        payload(text(&second, "id_token")).get("nonce").is_none(),
        "OIDC Core 12.2"
    );
}

#[tokio::test]
async fn a_second_request_is_answered_from_the_session() {
    let house = House::new().await;
    let mut browser = Browser::default();
    code(&house, &mut browser, &[]).await;
    let silent = browser
        .get(&house, &crate::rp::authorize_url(&house, &[("prompt", "none")]))
        .await;
    assert!(silent.query().contains_key("code"), "{silent:?}");
    let nobody = Browser::default()
        .get(&house, &crate::rp::authorize_url(&house, &[("prompt", "none")]))
        .await;
    assert_eq!(nobody.error(), "login_required");
}

#[tokio::test]
async fn every_login_has_a_session_id_of_its_own() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let first = tokens(&house, &mut browser, &[]).await;
    let old = browser.clone();
    let second = tokens(&house, &mut browser, &[("prompt", "login")]).await;
    assert_ne!(
        payload(text(&first, "id_token"))["sid"],
        payload(text(&second, "id_token"))["sid"]
    );
    let url = crate::rp::authorize_url(&house, &[("prompt", "none")]);
    assert_eq!(
        old.clone().get(&house, &url).await.error(),
        "login_required",
        "the former cookie is dead"
    );
    assert_eq!(
        refresh(&house, text(&first, "refresh_token")).await.status,
        200,
        "its family is not (ISS-7)"
    );
}

#[tokio::test]
async fn userinfo_and_introspection_speak_of_the_same_token() {
    let house = House::new().await;
    let tokens = tokens(&house, &mut Browser::default(), &[]).await;
    let access = text(&tokens, "access_token");
    let info = userinfo(&house, access).await.json();
    assert_eq!(info["sub"], "alice");
    assert_eq!(info["email"], "alice@example.com");
    assert_eq!(info["recovery_scope"], "full");
    let by_form = house
        .http
        .post(house.url("/userinfo"))
        .form(&[("access_token", access)]);
    assert_eq!(seen(by_form.send().await.unwrap()).await.json()["sub"], "alice");
    let live = introspect(&house, access).await.json();
    assert_eq!(live["active"], true);
    assert_eq!(live["scope"], tokens["scope"]);
    assert_eq!(live["recovery_scope"], "full");
    assert_eq!(live["acr"], "silver");
    let refreshable = introspect(&house, text(&tokens, "refresh_token")).await.json();
    assert_eq!(refreshable["active"], true);
}

#[tokio::test]
async fn revocation_is_of_one_token_or_of_the_family() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let second = refresh(&house, text(&first, "refresh_token")).await.json();
    let gone = json!({"active": false});
    assert_eq!(
        post(&house, "/revoke", &[("token", text(&first, "access_token"))])
            .await
            .status,
        200
    );
    assert_eq!(
        introspect(&house, text(&first, "access_token")).await.json(),
        gone
    );
    assert_eq!(
        introspect(&house, text(&second, "access_token")).await.json()["active"],
        true
    );
    assert_eq!(
        post(&house, "/revoke", &[("token", text(&second, "refresh_token"))])
            .await
            .status,
        200
    );
    assert_eq!(
        introspect(&house, text(&second, "access_token")).await.json(),
        gone
    );
    assert_eq!(
        introspect(&house, text(&second, "refresh_token")).await.json(),
        gone
    );
    assert_eq!(userinfo(&house, text(&second, "access_token")).await.status, 401);
    assert_eq!(
        refresh(&house, text(&second, "refresh_token")).await.json()["error"],
        "invalid_grant"
    );
    assert_eq!(
        post(&house, "/revoke", &[("token", "no such token")])
            .await
            .status,
        200,
        "RFC 7009 2.2"
    );
}

#[tokio::test]
async fn iss8_discovery_is_at_both_places_and_lists_what_is_there() {
    let house = House::new().await;
    let root = house.issuer.strip_suffix(BASE).unwrap().to_owned();
    let mut documents = Vec::new();
    for url in [
        house.url("/.well-known/openid-configuration"),
        house.url("/.well-known/oauth-authorization-server"),
        format!("{root}/.well-known/openid-configuration{BASE}"),
        format!("{root}/.well-known/oauth-authorization-server{BASE}"),
    ] {
        let seen = seen(house.http.get(&url).send().await.unwrap()).await;
        assert_eq!(seen.status, 200, "{url}");
        documents.push(seen.json());
    }
    assert!(documents.windows(2).all(|pair| pair[0] == pair[1]));
    let document = &documents[0];
    assert_eq!(document["issuer"], house.issuer);
    assert_eq!(document["authorization_response_iss_parameter_supported"], true);
    assert_eq!(
        document["prompt_values_supported"],
        json!(["none", "login", "consent", "select_account"])
    );
    assert!(
        document["recovery_info_uri"]
            .as_str()
            .unwrap()
            .ends_with("/account")
    );
    let claims = document["claims_supported"].as_array().unwrap();
    for claim in [
        "recovery_scope",
        "recovery_until",
        "recovery_epoch",
        "recovery_ref",
        "email",
        "sub",
    ] {
        assert_eq!(
            claims.iter().filter(|c| *c == claim).count(),
            1,
            "{claim} in {claims:?}"
        );
    }
    let levels = document["recovery_scope_values_supported"].as_array().unwrap();
    for level in ["full", "none", "read", "read write"] {
        assert!(levels.iter().any(|l| l == level), "{level}");
    }
    assert!(
        document["id_token_signing_alg_values_supported"]
            .as_array()
            .unwrap()
            .contains(&json!("RS256"))
    );
    for (name, value) in document.as_object().unwrap() {
        if name.ends_with("_endpoint") || name == "jwks_uri" {
            let known = house
                .http
                .get(value.as_str().unwrap())
                .send()
                .await
                .unwrap()
                .status();
            assert_ne!(known, 404, "{name}");
        }
    }
    let keys = seen(house.http.get(house.url("/jwks")).send().await.unwrap())
        .await
        .json();
    assert!(
        keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .all(|k| k.get("d").is_none() && k["kid"].is_string())
    );
}
