//! The same with the use cases and a store around it: what a realm does behind our back is found, told and mended by
//! itself.

use std::time::Duration;

use reentry::flow::reconcile::held;
use reentry::flow::{converge, poll};
use reentry::idp::keycloak::admin::{Admin, Credentials};
use reentry::ports::store::Parts;
use reentry_test_support::clock::eventually;
use secrecy::SecretString;
use serde_json::{Value, json};
use url::Url;

use crate::house::{House, Replica};

/// An account whose password was reset, held at the realm.
pub(crate) async fn held_account(house: &House, replica: &Replica, name: &str) -> String {
    let sub = house.user(name).await;
    house.import().await;
    replica.poll("a").await.unwrap();
    house.reset(name).await;
    eventually("the hold", Duration::from_secs(10), async || {
        replica.poll("a").await.unwrap();
        house.is_held(&sub).await.then_some(())
    })
    .await;
    agree(house, replica, &sub).await;
    sub
}

/// What the outbox would do.
pub(crate) async fn agree(house: &House, replica: &Replica, sub: &str) {
    converge::converge(&replica.flow, &house.subject(sub), "a")
        .await
        .unwrap();
}

pub(crate) async fn groups(house: &House, sub: &str) -> Vec<String> {
    let groups = house.realm.get(&format!("users/{sub}/groups")).await;
    let path = |group: &Value| group["path"].as_str().unwrap().to_owned();
    let mut groups: Vec<String> = groups.as_array().unwrap().iter().map(path).collect();
    groups.sort();
    groups
}

pub(crate) async fn audited(house: &House, replica: &Replica, sub: &str, action: &str) -> Vec<String> {
    let key = replica.flow.seal.subject(&house.subject(sub));
    let end = reentry::domain::time::Timestamp::from_millis(i64::MAX);
    let lines = house.store.audit(Some(&key), end, 100).await.unwrap();
    let said = lines.into_iter().map(|(_, entry)| entry);
    said.filter(|entry| entry.action == action)
        .map(|entry| {
            assert!(entry.case.is_some(), "in its case: {entry:?}");
            entry.details.get("what").cloned().unwrap_or_default()
        })
        .collect()
}

pub(crate) const HELD: [&str; 2] = ["/reentry/hold.read.write", "/reentry/lift.default-role"];

// A realm put back from a copy of before the hold: its log is shorter than it was, and nobody is held there.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_restored_realm_held_accounts_are_put_back_at_once() {
    let house = House::new().await;
    let replica = house.replica();
    let ann = held_account(&house, &replica, "ann").await;
    assert_eq!(groups(&house, &ann).await, HELD);
    let record = house.record(&ann).await.unwrap();
    assert!(record.owed.contains("lift.default-role"), "{:?}", record.owed);
    assert_eq!(
        held::if_asked(&replica.flow, &house.upstream, "a").await.unwrap(),
        None
    );
    // As the copy has it.
    for group in HELD {
        let group = house.realm.get(&format!("group-by-path{group}")).await;
        let path = format!("users/{ann}/groups/{}", group["id"].as_str().unwrap());
        house.realm.delete(&path, None).await;
    }
    let default_role = house.realm.get("").await["defaultRole"].clone();
    let roles = format!("users/{ann}/role-mappings/realm");
    house.realm.post(&roles, &json!([default_role])).await;
    house.realm.delete("admin-events", None).await;
    house.realm.delete("events", None).await;
    replica.poll("a").await.unwrap();
    let differed = held::if_asked(&replica.flow, &house.upstream, "a").await.unwrap();
    assert_eq!(differed, Some(1));
    agree(&house, &replica, &ann).await;
    assert_eq!(groups(&house, &ann).await, HELD);
    assert_eq!(
        held::if_asked(&replica.flow, &house.upstream, "a").await.unwrap(),
        None
    );
}

// The hold groups themselves are deleted: an alarm, and wiring anew is all that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn after_the_groups_were_deleted_and_wired_anew_held_accounts_are_put_back() {
    let house = House::new().await;
    let replica = house.replica();
    let ann = held_account(&house, &replica, "ann").await;
    replica.poll("a").await.unwrap();
    let running = replica.run("a");
    let root = house.realm.get("group-by-path/reentry").await;
    house
        .realm
        .delete(&format!("groups/{}", root["id"].as_str().unwrap()), None)
        .await;
    house.audited("log_alarm", "was changed or deleted").await;
    eventually("the alarm that stands", Duration::from_secs(10), async || {
        let alarms = running.standing().alarms;
        alarms
            .iter()
            .any(|alarm| alarm.contains("are gone"))
            .then_some(())
    })
    .await;
    super::wire_realm(&house.realm).await;
    eventually("the account is put back", Duration::from_secs(20), async || {
        if held::if_asked(&replica.flow, &house.upstream, "b").await.unwrap() == Some(1) {
            agree(&house, &replica, &ann).await;
        }
        (groups(&house, &ann).await == HELD).then_some(())
    })
    .await;
    assert!(running.standing().alarms.is_empty());
    running.stop().await;
}

// A held administrator makes a deputy before it is switched off: told in the case, and the deputy begins restricted.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_held_administrator_does_is_told_and_what_it_made_is_held() {
    let house = House::new().await;
    let replica = house.replica();
    let ann = house.user("ann").await;
    let management = house.realm.client_uuid("realm-management").await;
    let role = house
        .realm
        .get(&format!("clients/{management}/roles/realm-admin"))
        .await;
    let admins = house.realm.post("groups", &json!({"name": "admins"})).await;
    let mapping = format!("groups/{admins}/role-mappings/clients/{management}");
    house.realm.post(&mapping, &json!([role])).await;
    house
        .realm
        .put(&format!("users/{ann}/groups/{admins}"), &json!({}))
        .await;
    house.import().await;
    replica.poll("a").await.unwrap();
    house.reset("ann").await;
    let credentials = Credentials::Password {
        realm: house.realm.name().to_owned(),
        username: "ann".to_owned(),
        password: SecretString::from("battery staple".to_owned()),
    };
    let base = Url::parse(house.realm.keycloak().base()).unwrap();
    let acting = Admin::new(&base, house.realm.name(), credentials, Duration::from_secs(30)).unwrap();
    let robot: reentry::idp::keycloak::representations::User = serde_json::from_value(
        reentry_test_support::keycloak::user("robot", "robot@example.test", "a robot's password"),
    )
    .unwrap();
    let robot = acting.create_user(&robot).await.unwrap();
    let role = serde_json::from_value(role).unwrap();
    acting
        .add_client_roles(&robot, &management, &[role])
        .await
        .unwrap();
    eventually("both are held", Duration::from_secs(10), async || {
        replica.poll("a").await.unwrap();
        (house.is_held(&ann).await && house.is_held(&robot).await).then_some(())
    })
    .await;
    let told = audited(&house, &replica, &ann, "acted_in_hold").await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().any(|what| what.contains("robot")), "{told:?}");
    assert!(told.iter().any(|what| what.contains("realm-admin")), "{told:?}");
    for sub in [&ann, &robot] {
        agree(&house, &replica, sub).await;
        let user = house.realm.get(&format!("users/{sub}")).await;
        assert_eq!(user["enabled"], false, "{sub}");
    }
    // Switched on again by a help desk that means well: off again, and said.
    let mut user = house.realm.get(&format!("users/{ann}")).await;
    user["enabled"] = json!(true);
    house.realm.put(&format!("users/{ann}"), &user).await;
    eventually("it is told", Duration::from_secs(10), async || {
        replica.poll("a").await.unwrap();
        (!audited(&house, &replica, &ann, "tampered").await.is_empty()).then_some(())
    })
    .await;
    agree(&house, &replica, &ann).await;
    let user = house.realm.get(&format!("users/{ann}")).await;
    assert_eq!(user["enabled"], false);
}

// An account that undoes its hold in a loop is restricted in a way that its own acts cannot lift.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_undoes_its_hold_again_and_again_is_barred() {
    let house = House::new().await;
    let replica = house.replica_with(|settings| {
        settings.held_admins = reentry::idp::keycloak::CannotHold::Alarm;
    });
    let ann = house.user("ann").await;
    let management = house.realm.client_uuid("realm-management").await;
    let role = house
        .realm
        .get(&format!("clients/{management}/roles/realm-admin"))
        .await;
    let mapping = format!("users/{ann}/role-mappings/clients/{management}");
    house.realm.post(&mapping, &json!([role])).await;
    house.import().await;
    replica.poll("a").await.unwrap();
    house.reset("ann").await;
    eventually("the hold", Duration::from_secs(10), async || {
        replica.poll("a").await.unwrap();
        house.is_held(&ann).await.then_some(())
    })
    .await;
    agree(&house, &replica, &ann).await;
    let enabled = async || house.realm.get(&format!("users/{ann}")).await["enabled"] == json!(true);
    let credentials = Credentials::Password {
        realm: house.realm.name().to_owned(),
        username: "ann".to_owned(),
        password: SecretString::from("battery staple".to_owned()),
    };
    let base = Url::parse(house.realm.keycloak().base()).unwrap();
    let acting = Admin::new(&base, house.realm.name(), credentials, Duration::from_secs(30)).unwrap();
    let default_role = serde_json::from_value(house.realm.get("").await["defaultRole"].clone()).unwrap();
    for turn in 1..=2 {
        assert!(enabled().await, "turn {turn}");
        acting
            .add_realm_roles(&ann, std::slice::from_ref(&default_role))
            .await
            .unwrap();
        eventually("it is seen", Duration::from_secs(10), async || {
            replica.poll("a").await.unwrap();
            (audited(&house, &replica, &ann, "tampered").await.len() == turn).then_some(())
        })
        .await;
        agree(&house, &replica, &ann).await;
    }
    assert!(!enabled().await, "after the second time");
    let key = replica.flow.seal.subject(&house.subject(&ann));
    let loaded = house.store.read(&key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record.unwrap().undone.len(), 2);
    assert_ne!(poll::LOG, ann);
}
