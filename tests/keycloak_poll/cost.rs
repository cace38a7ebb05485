//! What a change costs the server: each thing about an account is asked for once (house rule: a sidecar is a guest).

use reentry::flow::deliver;
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
