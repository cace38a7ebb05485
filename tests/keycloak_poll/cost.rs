//! What a change costs the server: each thing about an account is asked for once (house rule: a sidecar is a guest).

use reentry::domain::time::Timestamp;
use reentry::flow::deliver;
use reentry::ports::store::Parts;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::house::{House, Replica};

/// Calls about the account for one reset by an administrator, from the line in the log to the hold at the server: six
/// read it, two tell what to change, three note and take its default role and hold it, three read that back, two tell
/// what is to be ended. Besides, its user events are asked for once and the acts of administrators twice.
const OF_A_CHANGE: u32 = 16;

async fn work(replica: &Replica) {
    while replica.poll("a").await.unwrap() {}
    let stop = CancellationToken::new();
    while deliver::round(&replica.flow, "a", &stop).await.unwrap() > 0 {}
}

// F5: an account is read once for a change.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_costs_the_server_a_known_number_of_calls() {
    let house = House::new().await;
    let people = ["ann", "bob", "cleo", "dan", "eve", "finn"];
    let mut subs = Vec::new();
    for name in people {
        subs.push(house.user(name).await);
    }
    house.import().await;
    let replica = house.replica();
    // What rarely changes is known after the first.
    house.reset("ann").await;
    work(&replica).await;
    assert!(house.is_held(&subs[0]).await);
    for sub in &subs[1..] {
        let password = json!({ "type": "password", "value": "another one", "temporary": false });
        let path = format!("users/{sub}/reset-password");
        house.realm.put(&path, &password).await;
    }
    let asked = || house.front.asked_below("/users/");
    let before = asked();
    work(&replica).await;
    for sub in &subs {
        assert!(house.is_held(sub).await);
    }
    assert_eq!(asked() - before, 5 * OF_A_CHANGE);
}

// P15: what one owner writes into an attribute costs nobody else anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_numbers_of_one_account_delay_nobody_and_are_told_to_ten() {
    let house = House::new().await;
    let (mallory, ann) = (house.user("mallory").await, house.user("ann").await);
    house.import().await;
    let replica = house.replica_with(|settings| settings.phone_attributes = vec!["phone".to_owned()]);
    work(&replica).await;
    let mut profile = house.realm.get("users/profile").await;
    let attribute = json!({
        "name": "phone", "multivalued": true, "permissions": {"view": ["admin", "user"], "edit": ["admin", "user"]},
    });
    profile["attributes"].as_array_mut().unwrap().push(attribute);
    house.realm.put("users/profile", &profile).await;
    let write = async |numbers: std::ops::Range<u64>| {
        let path = format!("users/{mallory}");
        let mut person = house.realm.get(&path).await;
        let numbers: Vec<String> = numbers.map(|n| format!("+1555{n:07}")).collect();
        person["attributes"]["phone"] = json!(numbers);
        house.realm.put(&path, &person).await;
    };
    for round in 0..3 {
        write(round * 1_000..(round + 1) * 1_000).await;
        house
            .reset(["mallory", "ann", "ann"][usize::try_from(round).unwrap()])
            .await;
        let before = house.front.asked_below(&format!("/users/{mallory}"));
        replica.poll("a").await.unwrap();
        assert!(house.front.asked_below(&format!("/users/{mallory}")) - before <= OF_A_CHANGE);
        let effects = house
            .store
            .pending(Timestamp::from_millis(i64::MAX), 10_000)
            .await
            .unwrap();
        assert!(effects.len() < 200, "{}", effects.len());
        work(&replica).await;
    }
    assert!(house.is_held(&ann).await && house.is_held(&mallory).await);
    let snapshot = house
        .store
        .read(&house.key(&mallory), Parts::ACCOUNT)
        .await
        .unwrap();
    assert!(snapshot.account.unwrap().contacts.len() <= 22);
    let end = Timestamp::from_millis(i64::MAX);
    let lines = house
        .store
        .audit(Some(&house.key(&mallory)), end, 100)
        .await
        .unwrap();
    let said = lines
        .iter()
        .filter(|(_, entry)| entry.action == "contacts_unwatched");
    assert_eq!(said.count(), 1, "once");
}
