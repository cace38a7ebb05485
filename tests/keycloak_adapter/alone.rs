//! One account that the realm will not write, or does not find for a moment, and a realm whose ids are others: whoever
//! should be held is, or somebody hears of it.

use std::collections::BTreeSet;
use std::time::Duration;

use reentry::domain::hold::Posture;
use reentry::domain::time::Timestamp;
use reentry::flow::reconcile::held;
use reentry::flow::{FlowError, converge};
use reentry::ports::idp::{IdentityProvider, IdpError, Wanted};
use reentry_test_support::clock::eventually;
use reentry_test_support::keycloak::{Keycloak as Server, confidential_client, pages, plain_realm, user};
use serde_json::json;

use crate::house::{House, OLD, Replica, browser};
use crate::realm::{HELD, agree, audited, groups};

const SOON: Duration = Duration::from_secs(10);

/// An account whose hold is stored, and not done at the realm yet.
async fn due(house: &House, replica: &Replica, name: &str) -> String {
    let sub = house.user(name).await;
    house.import().await;
    replica.poll("a").await.unwrap();
    house.reset(name).await;
    eventually("the hold", SOON, async || {
        replica.poll("a").await.unwrap();
        house.is_held(&sub).await.then_some(())
    })
    .await;
    sub
}

async fn converged(house: &House, replica: &Replica, sub: &str) -> Result<(), FlowError> {
    converge::converge(&replica.flow, &house.subject(sub), "a").await
}

async fn is_on(house: &House, sub: &str) -> bool {
    house.realm.get(&format!("users/{sub}")).await["enabled"] == json!(true)
}

async fn has_full(house: &House, sub: &str) -> bool {
    let path = format!("users/{sub}/role-mappings/realm/composite");
    let roles = house.realm.get(&path).await;
    let all = roles.as_array().unwrap();
    all.iter().any(|role| role["name"] == "reentry-full")
}

/// What the audit log says in alarm of what could not be done, with the account's id.
async fn alarms(house: &House, sub: &str) -> Vec<String> {
    let end = Timestamp::from_millis(i64::MAX);
    let lines = house.store.audit(Some(&house.key(sub)), end, 100).await.unwrap();
    let of = lines.into_iter().map(|(_, entry)| entry).filter(|entry| {
        entry.action == "idp_converged" && entry.details.get("sub").is_some_and(|said| said == sub)
    });
    of.filter_map(|entry| entry.details.get("alarm").cloned())
        .collect()
}

// P15: an act on one account that is refused, for whatever reason, is no silence: told, switched off, tried again.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_written_is_told_and_switched_off_until_it_can() {
    let house = House::new().await;
    let replica = house.replica();
    for (n, (path, status)) in [
        ("DELETE /users/{}/role-mappings/realm", 500),
        ("DELETE /users/{}/role-mappings/realm", 403),
        ("PUT /users/{}/groups/{level}", 500),
        ("GET /users/{}/role-mappings/realm", 500),
        ("GET /users/{}/role-mappings/realm", 404),
    ]
    .into_iter()
    .enumerate()
    {
        let ann = due(&house, &replica, &format!("ann{n}")).await;
        let level = house.realm.get("group-by-path/reentry/hold.read.write").await;
        let path = path.replace("{}", &ann);
        let path = path.replace("{level}", level["id"].as_str().unwrap());
        house.front.answer(&path, status, u32::MAX);
        converged(&house, &replica, &ann).await.unwrap_err();
        assert!(!is_on(&house, &ann).await, "{path} {status}");
        assert!(!alarms(&house, &ann).await.is_empty(), "{path} {status}");
        converged(&house, &replica, &ann).await.unwrap_err();
        assert_eq!(alarms(&house, &ann).await.len(), 1, "once: {path} {status}");
        house.front.pass();
        converged(&house, &replica, &ann).await.unwrap();
        assert!(is_on(&house, &ann).await, "{path} {status}");
        assert_eq!(groups(&house, &ann).await, HELD, "{path} {status}");
        assert!(!has_full(&house, &ann).await, "{path} {status}");
    }
}

// P2, P15: whoever was switched off because they could undo their hold stays off while that cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_administrator_stays_off_while_their_rights_cannot_be_read() {
    let house = House::new().await;
    let replica = house.replica();
    let ann = due(&house, &replica, "ann").await;
    let management = house.realm.get("clients?clientId=realm-management").await;
    let management = management[0]["id"].as_str().unwrap().to_owned();
    let role = house
        .realm
        .get(&format!("clients/{management}/roles/manage-users"))
        .await;
    let mapping = format!("users/{ann}/role-mappings/clients/{management}");
    house.realm.post(&mapping, &json!([role])).await;
    // It keeps what could undo the hold, and that is told.
    let _ = converged(&house, &house.replica(), &ann).await;
    assert!(!is_on(&house, &ann).await);
    // A process that has not read it lately cannot read it now.
    let other = house.replica();
    house.front.answer("/admin-events", 500, u32::MAX);
    converged(&house, &other, &ann).await.unwrap_err();
    assert!(
        !is_on(&house, &ann).await,
        "switched on by what could not be read"
    );
    house.front.pass();
    let _ = converged(&house, &other, &ann).await;
    assert!(!is_on(&house, &ann).await);
    // Without the rights the hold is enough.
    house.realm.delete(&mapping, Some(&json!([role]))).await;
    converged(&house, &house.replica(), &ann).await.unwrap();
    assert!(is_on(&house, &ann).await);
}

// An IdP that is away is no account that cannot be written: it is tried again, and nobody is switched off for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_switches_nobody_off() {
    let house = House::new().await;
    let replica = house.replica();
    let ann = due(&house, &replica, "ann").await;
    let path = format!("DELETE /users/{ann}/role-mappings/realm");
    house.front.answer(&path, 503, u32::MAX);
    house.front.answer("/events/config", 503, u32::MAX);
    let failed = converged(&house, &replica, &ann).await.unwrap_err();
    assert!(
        matches!(failed, FlowError::Idp(IdpError::Unreachable(_))),
        "{failed}"
    );
    assert!(is_on(&house, &ann).await);
    assert!(alarms(&house, &ann).await.is_empty());
    house.front.pass();
    converged(&house, &replica, &ann).await.unwrap();
    assert!(!has_full(&house, &ann).await);
}

// A fault that passes at once costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn one_answer_that_is_wrong_loses_no_hold() {
    let house = House::new().await;
    let replica = house.replica();
    let ann = due(&house, &replica, "ann").await;
    house
        .front
        .answer(&format!("/users/{ann}/role-mappings/realm"), 404, 1);
    converged(&house, &replica, &ann).await.unwrap();
    assert_eq!(groups(&house, &ann).await, HELD);
    assert!(!has_full(&house, &ann).await && is_on(&house, &ann).await);
    assert!(alarms(&house, &ann).await.is_empty());
}

// The account itself is not found for a moment: no line tells of its deletion, so its hold waits.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_gone_only_when_it_says_so_twice_and_the_log_agrees() {
    let house = House::new().await;
    let replica = house.replica();
    let ann = due(&house, &replica, "ann").await;
    for below in [
        "",
        "/groups",
        "/role-mappings/realm",
        "/role-mappings/realm/composite",
    ] {
        house.front.answer(&format!("/users/{ann}{below}"), 404, u32::MAX);
    }
    converged(&house, &replica, &ann).await.unwrap_err();
    house.front.pass();
    converged(&house, &replica, &ann).await.unwrap();
    assert_eq!(groups(&house, &ann).await, HELD);
    house.realm.delete(&format!("users/{ann}"), None).await;
    converged(&house, &replica, &ann).await.unwrap();
    let unknown = replica.idp.account("nobody-ever-heard-of-it").await;
    assert!(matches!(unknown, Err(IdpError::UnknownSubject)), "{unknown:?}");
}

// No right is lost: what cannot be noted at the realm stands in our record before it is taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_noted_at_the_realm_is_taken_and_given_back_by_our_record() {
    let house = House::new().await;
    let replica = house.replica();
    let ann = due(&house, &replica, "ann").await;
    let note = house.realm.get("group-by-path/reentry/lift.default-role").await;
    let path = format!("PUT /users/{ann}/groups/{}", note["id"].as_str().unwrap());
    house.front.answer(&path, 500, u32::MAX);
    let failed = converged(&house, &replica, &ann).await.unwrap_err();
    assert!(failed.to_string().contains("it is held, but"), "{failed}");
    assert!(!has_full(&house, &ann).await && is_on(&house, &ann).await);
    assert_eq!(groups(&house, &ann).await, HELD[..1]);
    let owed = house.record(&ann).await.unwrap().owed;
    assert!(owed.contains("lift.default-role"), "{owed:?}");
    let wanted = Wanted {
        posture: Posture::Free,
        cuts: Vec::new(),
        end_before: None,
        owed,
        barred: false,
    };
    let done = replica.idp.converge(&ann, &wanted).await.unwrap();
    assert_eq!((done.cannot, done.owes), (None, BTreeSet::new()));
    assert!(has_full(&house, &ann).await);
    assert!(groups(&house, &ann).await.is_empty());
}

// A realm that was restored: what was written down at the root speaks of ids that no role has any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_default_role_with_another_id_is_taken_and_given_back() {
    let house = House::new().await;
    let replica = house.replica();
    let root = house.realm.get("group-by-path/reentry").await;
    let path = format!("groups/{}", root["id"].as_str().unwrap());
    let mut other = house.realm.get(&path).await;
    other["attributes"]["reentry.default-role.id"] = json!(["00000000-0000-4000-8000-000000000000"]);
    house.realm.put(&path, &other).await;
    let ann = due(&house, &replica, "ann").await;
    converged(&house, &replica, &ann).await.unwrap();
    assert!(is_on(&house, &ann).await);
    assert_eq!(groups(&house, &ann).await, HELD);
    assert!(!has_full(&house, &ann).await);
    let wanted = Wanted {
        posture: Posture::Free,
        cuts: Vec::new(),
        end_before: None,
        owed: house.record(&ann).await.unwrap().owed,
        barred: false,
    };
    let done = replica.idp.converge(&ann, &wanted).await.unwrap();
    assert_eq!(done.cannot, None);
    assert!(has_full(&house, &ann).await);
}

// Who was switched off because nothing else would hold it is switched on when something does.
#[tokio::test(flavor = "multi_thread")]
async fn who_could_not_be_held_is_compared_again_with_the_others() {
    let house = House::new().await;
    let replica = house.replica();
    let default_role = house.realm.get("").await["defaultRole"].clone();
    let everybody = house.realm.post("groups", &json!({"name": "everybody"})).await;
    let mapping = format!("groups/{everybody}/role-mappings/realm");
    house.realm.post(&mapping, &json!([default_role])).await;
    let ann = due(&house, &replica, "ann").await;
    let member = format!("users/{ann}/groups/{everybody}");
    house.realm.put(&member, &json!({})).await;
    converged(&house, &replica, &ann).await.unwrap_err();
    assert!(!is_on(&house, &ann).await);
    house.realm.delete(&mapping, Some(&json!([default_role]))).await;
    held::ask(&replica.flow, &house.upstream).await.unwrap();
    held::if_asked(&replica.flow, &house.upstream, "a").await.unwrap();
    let waiting = house.store.pending(Timestamp::from_millis(i64::MAX), 100).await;
    let waiting = waiting.unwrap();
    assert!(
        waiting
            .iter()
            .any(|entry| entry.id.starts_with("converge:reopened:")),
        "{waiting:?}"
    );
    agree(&house, &replica, &ann).await;
    assert!(is_on(&house, &ann).await);
}

/// A second realm that people of this one come from; gives its account of that name, linked.
async fn linked(house: &House, name: &str, sub: &str) -> reentry_test_support::keycloak::Realm {
    let mut other = plain_realm(&house.mails.keycloak_settings());
    let back = format!("{}/broker/up/endpoint*", house.realm.issuer());
    other["clients"] = json!([confidential_client("shop", "a secret of the shop", &back)]);
    let other = Server::get().await.realm(other).await;
    let there = other
        .post("users", &user(name, &format!("{name}@example.test"), OLD))
        .await;
    let at = |path: &str| format!("{}/protocol/openid-connect/{path}", other.issuer());
    let provider = json!({
        "alias": "up", "providerId": "oidc", "enabled": true, "trustEmail": true,
        "config": {
            "clientId": "shop", "clientSecret": "a secret of the shop", "clientAuthMethod": "client_secret_post",
            "authorizationUrl": at("auth"), "tokenUrl": at("token"), "userInfoUrl": at("userinfo"),
            "jwksUrl": at("certs"), "issuer": other.issuer(), "validateSignature": "true", "useJwksUrl": "true",
            "defaultScope": "openid profile email", "syncMode": "FORCE",
        },
    });
    house.realm.post("identity-provider/instances", &provider).await;
    let link = json!({"identityProvider": "up", "userId": there, "userName": name});
    house
        .realm
        .post(&format!("users/{sub}/federated-identity/up"), &link)
        .await;
    other
}

// A6: what a mapper of an identity provider gives at a log-in no line about the account tells of.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_log_in_by_another_provider_gives_a_held_account_is_taken_again() {
    let house = House::new().await;
    let replica = house.replica();
    let ann = house.user("ann").await;
    house.import().await;
    replica.poll("a").await.unwrap();
    let _other = linked(&house, "ann", &ann).await;
    let mapper = json!({
        "name": "hc", "identityProviderAlias": "up", "identityProviderMapper": "oidc-hardcoded-role-idp-mapper",
        "config": {"role": "reentry-full", "syncMode": "FORCE"},
    });
    house
        .realm
        .post("identity-provider/instances/up/mappers", &mapper)
        .await;
    eventually("the hold", SOON, async || {
        replica.poll("a").await.unwrap();
        house.is_held(&ann).await.then_some(())
    })
    .await;
    house
        .audited("log_alarm", "by way of that identity provider")
        .await;
    assert!(house.store.setting("held-first:main").await.unwrap().is_some());
    agree(&house, &replica, &ann).await;
    assert!(!has_full(&house, &ann).await);
    let mut browser = browser();
    let request = house.request().with_value("kc_idp_hint", "up");
    let page = browser.get(request.url.as_str()).await;
    let page = pages::log_in(&mut browser, &page, "ann", OLD).await;
    assert!(page.is_stop(), "{}", page.describe());
    assert!(has_full(&house, &ann).await, "the mapper did its work");
    eventually("it is seen", Duration::from_secs(30), async || {
        replica.poll("a").await.unwrap();
        (!audited(&house, &replica, &ann, "tampered").await.is_empty()).then_some(())
    })
    .await;
    agree(&house, &replica, &ann).await;
    assert!(!has_full(&house, &ann).await);
}
