//! Polling through trouble: a real Keycloak, behind a proxy that can be told to fail, the real poller, an embedded
//! store. Each test is named after what happens.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "keycloak_poll/cost.rs"]
mod cost;
#[path = "keycloak_poll/front.rs"]
mod front;
#[path = "keycloak_poll/house.rs"]
mod house;
#[path = "keycloak_poll/poisoned.rs"]
mod poisoned;
#[path = "keycloak_poll/stories.rs"]
mod stories;

use std::time::Duration;

use reentry::domain::subject::UpstreamId;
use reentry::flow::{FlowError, ingest, poll, reconcile};
use reentry::ports::idp::{IdentityProvider as _, IdpError};
use reentry::ports::store::{Parts, StoreError, Write};
use reentry_test_support::clock::{eventually, now_ms};
use serde_json::json;

use house::{House, Replica};

const SOON: Duration = Duration::from_secs(15);

// domain "Failure": said loudly, and the log-in-time check by credential dates goes on
#[tokio::test(flavor = "multi_thread")]
async fn a_log_switched_off_shrunk_or_cleared_is_an_alarm_at_once_and_the_log_in_check_goes_on() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    let (bob, cat) = (house.user("bob").await, house.user("cat").await);
    house.import().await;
    let replica = house.replica();
    let running = replica.run("a");
    eventually("the first catching up", SOON, async || {
        running.standing().caught_up.then_some(())
    })
    .await;
    assert_eq!(running.standing().alarms, Vec::<String>::new());
    let mut config = house.realm.get("events/config").await;
    let said = async |what: &'static str| {
        eventually(what, SOON, async || {
            let alarms = running.standing().alarms;
            alarms.iter().any(|alarm| alarm.contains(what)).then_some(())
        })
        .await;
        house.audited("log_alarm", what).await;
        assert!(running.standing().caught_up, "`/ready` stays");
    };
    // Shrunk: a shorter time, then fewer types.
    config["eventsExpiration"] = json!(5_184_000 * 2);
    house.realm.put("events/config", &config).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        running.standing().alarms,
        Vec::<String>::new(),
        "longer is no alarm"
    );
    config["eventsExpiration"] = json!(5_184_000);
    house.realm.put("events/config", &config).await;
    house
        .audited("log_alarm", "kept for 120d and are kept for 60d now")
        .await;
    config["eventsExpiration"] = json!(600);
    house.realm.put("events/config", &config).await;
    said("kept for 10m only").await;
    config["eventsExpiration"] = json!(5_184_000);
    let all = config["enabledEventTypes"].clone();
    config["enabledEventTypes"] = json!(["LOGIN", "UPDATE_CREDENTIAL"]);
    house.realm.put("events/config", &config).await;
    said("SEND_RESET_PASSWORD").await;
    config["enabledEventTypes"] = all;
    house.realm.put("events/config", &config).await;
    eventually("all clear", SOON, async || {
        running.standing().alarms.is_empty().then_some(())
    })
    .await;
    house.audited("log_alarm_over", "SEND_RESET_PASSWORD").await;
    // Switched off, and a reset behind its back: the poller cannot see it, the log-in does.
    config["eventsEnabled"] = json!(false);
    config["adminEventsEnabled"] = json!(false);
    house.realm.put("events/config", &config).await;
    said("user events are not stored").await;
    said("admin events are not stored").await;
    house.reset("ann").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!house.is_held(&ann).await, "no line tells of it");
    ingest::login_check(&replica.flow, &house.subject(&ann))
        .await
        .unwrap();
    assert!(house.is_held(&ann).await, "its date does");
    // Cleared: what happened is wiped from the log before we read it.
    config["eventsEnabled"] = json!(true);
    config["adminEventsEnabled"] = json!(true);
    house.realm.put("events/config", &config).await;
    eventually("all clear", SOON, async || {
        running.standing().alarms.is_empty().then_some(())
    })
    .await;
    house.reset("cat").await;
    eventually("its hold", SOON, async || house.is_held(&cat).await.then_some(())).await;
    running.stop().await;
    house.reset("bob").await;
    house.realm.delete("events", None).await;
    house.realm.delete("admin-events", None).await;
    let running = replica.run("a");
    eventually("the alarm", SOON, async || {
        let alarms = running.standing().alarms;
        alarms
            .iter()
            .any(|alarm| alarm.contains("user events lost lines"))
            .then_some(())
    })
    .await;
    house.audited("log_alarm", "user events lost lines").await;
    assert!(!house.is_held(&bob).await);
    ingest::login_check(&replica.flow, &house.subject(&bob))
        .await
        .unwrap();
    assert!(house.is_held(&bob).await);
    // Once is enough: a second log-in changes nothing.
    let before = house.record(&bob).await;
    ingest::login_check(&replica.flow, &house.subject(&bob))
        .await
        .unwrap();
    assert_eq!(house.record(&bob).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voluntary_change_is_not_taken_for_an_untold_one_at_the_log_in_after_it() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    let mut browser = house::browser();
    house.change_password(&mut browser, "ann").await;
    // At once, before the poller: the check reads the line and the date, in whichever order.
    for _ in 0..3 {
        ingest::login_check(&replica.flow, &house.subject(&ann))
            .await
            .unwrap();
        assert!(!house.is_held(&ann).await);
    }
}

// P1: the line of the change before explains nothing that was set after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_change_a_moment_after_a_told_one_is_found_at_the_log_in() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    let mut browser = house::browser();
    house.change_password(&mut browser, "ann").await;
    replica.poll("a").await.unwrap();
    ingest::login_check(&replica.flow, &house.subject(&ann))
        .await
        .unwrap();
    assert!(!house.is_held(&ann).await, "the owner's own change");
    let mut config = house.realm.get("events/config").await;
    config["eventsEnabled"] = json!(false);
    config["adminEventsEnabled"] = json!(false);
    house.realm.put("events/config", &config).await;
    house.reset("ann").await;
    ingest::login_check(&replica.flow, &house.subject(&ann))
        .await
        .unwrap();
    assert!(house.is_held(&ann).await, "no line tells of the second one");
}

// P1: a snapshot that is made for another reason does not make it known.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_change_is_found_at_the_log_in_whatever_was_told_of_the_account_meanwhile() {
    let house = House::new().await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    let mut config = house.realm.get("events/config").await;
    let mut switched = async |on: bool| {
        config["eventsEnabled"] = json!(on);
        config["adminEventsEnabled"] = json!(on);
        house.realm.put("events/config", &config).await;
    };
    switched(false).await;
    house.reset("ann").await;
    house.reset("bob").await;
    switched(true).await;
    // What is only looked at, and what is a change of something else.
    let path = |sub: &str| format!("users/{sub}");
    let mut person = house.realm.get(&path(&ann)).await;
    person["firstName"] = json!("Anna");
    house.realm.put(&path(&ann), &person).await;
    let mut person = house.realm.get(&path(&bob)).await;
    person["email"] = json!("bob@elsewhere.example");
    house.realm.put(&path(&bob), &person).await;
    eventually("the address", SOON, async || {
        replica.poll("a").await.unwrap();
        house.record(&bob).await.map(drop)
    })
    .await;
    assert!(!house.is_held(&ann).await, "a first name is nothing");
    let kinds = async || {
        let causes = house.record(&bob).await.unwrap().causes;
        causes.iter().map(|c| c.change.contains('@')).collect::<Vec<_>>()
    };
    assert_eq!(kinds().await, [false], "the address");
    for sub in [&ann, &bob] {
        ingest::login_check(&replica.flow, &house.subject(sub))
            .await
            .unwrap();
    }
    assert!(house.is_held(&ann).await);
    assert_eq!(kinds().await, [false, true], "the address and the password");
}

// The log has the address of an account's making, and no longer the line that took it away.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_takes_away_no_address_that_went_long_before() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    let path = format!("users/{ann}");
    let mut config = house.realm.get("events/config").await;
    let edit = async |name: &str, value: &str| {
        let mut person = house.realm.get(&path).await;
        person[name] = json!(value);
        house.realm.put(&path, &person).await;
    };
    config["adminEventsEnabled"] = json!(false);
    house.realm.put("events/config", &config).await;
    edit("email", "ann@elsewhere.example").await;
    config["adminEventsEnabled"] = json!(true);
    house.realm.put("events/config", &config).await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    edit("firstName", "Anna").await;
    let named = async || {
        let key = replica.flow.key(&house.subject(&ann));
        let account = house.store.read(&key, Parts::ACCOUNT).await.unwrap().account;
        account.unwrap().name.contains("Anna").then_some(())
    };
    eventually("the edit", SOON, async || {
        replica.poll("a").await.unwrap();
        named().await
    })
    .await;
    ingest::login_check(&replica.flow, &house.subject(&ann))
        .await
        .unwrap();
    assert!(house.record(&ann).await.is_none(), "a first name is nothing");
    // The address of now is another matter.
    edit("email", "ann@third.example").await;
    eventually("its hold", SOON, async || {
        replica.poll("a").await.unwrap();
        house.is_held(&ann).await.then_some(())
    })
    .await;
}

// Keycloak tells of a change a moment before it shows it: the snapshot that is stored with the line is the old one then.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_told_before_it_could_be_seen_holds_nobody_at_a_later_log_in() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    let (key, parts) = (replica.flow.key(&house.subject(&ann)), Parts::ACCOUNT);
    let stale = house.store.read(&key, parts).await.unwrap().account.unwrap();
    let mut browser = house::browser();
    house.change_password(&mut browser, "ann").await;
    replica.poll("a").await.unwrap();
    let put_back = |_: &_| {
        Some(Write {
            account: Some(stale.clone()),
            ..Write::default()
        })
    };
    house.store.update(&key, parts, None, &put_back).await.unwrap();
    ingest::login_check(&replica.flow, &house.subject(&ann))
        .await
        .unwrap();
    assert!(!house.is_held(&ann).await);
    let now = house.store.read(&key, parts).await.unwrap().account.unwrap();
    assert_ne!(
        now.factors, stale.factors,
        "what is there now is known from here on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_in_the_middle_of_a_poll_loses_nothing() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    house.reset("ann").await;
    // The token died between two calls of one poll: a new one, and on.
    house.front.answer("/admin-events", 401, 1);
    let tokens = house.front.asked("/token");
    replica.poll("a").await.unwrap();
    assert_eq!(house.front.asked("/token"), tokens + 1);
    assert!(house.is_held(&ann).await);
    // It is refused for good, in the middle: said, and nothing moves until it is not. Only that page tells of bob.
    let bob = house.user("bob").await;
    let path = format!("users/{bob}/reset-password");
    let password = json!({ "type": "password", "value": "another one", "temporary": false });
    house.realm.put(&path, &password).await;
    let cursor = house.cursor().await;
    house.front.answer("/admin-events", 401, 1_000);
    let refused = replica.poll("a").await;
    assert!(
        matches!(refused, Err(FlowError::Idp(IdpError::Refused(_)))),
        "a page that was refused is none: {refused:?}"
    );
    assert!(!house.is_held(&bob).await);
    assert_eq!(house.cursor().await, cursor);
    house.front.pass();
    replica.poll("a").await.unwrap();
    assert!(house.is_held(&bob).await);
    // And in the middle of judging an account.
    let cat = house.user("cat").await;
    house.reset("cat").await;
    house.front.answer(&format!("{cat}/credentials"), 401, 1_000);
    let refused = replica.poll("a").await;
    assert!(
        refused.is_err(),
        "an account that was not read is judged: {refused:?}"
    );
    house.front.pass();
    replica.poll("a").await.unwrap();
    assert!(house.is_held(&cat).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_taken_away_is_said_loudly_and_nothing_is_missed() {
    let house = House::new().await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    house.import().await;
    let replica = house.replica();
    let running = replica.run("a");
    eventually("the first catching up", SOON, async || {
        running.standing().caught_up.then_some(())
    })
    .await;
    for (role, alarm) in [("view-events", "refuses us"), ("view-users", "lacks view-users")] {
        let taken = house.take_role(role).await;
        // The token is renewed, as it is every few minutes.
        house.front.answer("/events/config", 401, 1);
        eventually(alarm, SOON, async || {
            let alarms = running.standing().alarms;
            alarms.iter().any(|said| said.contains(alarm)).then_some(())
        })
        .await;
        house.audited("log_alarm", alarm).await;
        let named = replica
            .idp
            .health()
            .await
            .unwrap_or_else(|error| vec![error.to_string()]);
        assert!(named.iter().any(|fault| fault.contains(role)), "{named:?}");
        let (name, sub) = if role == "view-events" {
            ("ann", &ann)
        } else {
            ("bob", &bob)
        };
        house.reset(name).await;
        if role == "view-events" {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!house.is_held(sub).await);
        } else {
            // Who may manage users may see them, too: said, but nothing is lost.
            eventually("the hold", SOON, async || house.is_held(sub).await.then_some(())).await;
        }
        house.give_back(taken).await;
        house.front.answer("/events/config", 401, 1);
        eventually("the recovery", SOON, async || {
            let standing = running.standing();
            (standing.alarms.is_empty() && standing.fault.is_none()).then_some(())
        })
        .await;
        house.audited("log_alarm_over", alarm).await;
        eventually("the hold", SOON, async || house.is_held(sub).await.then_some(())).await;
    }
}

// P10: the page fills with rows of one instant, and rows of the same instant are before and behind it
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_equal_timestamps_skip_nothing_and_end() {
    let house = House::new().await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    house.reset("ann").await;
    house.reset("bob").await;
    // The instant of ann's reset is that of ten thousand log-ins; bob's reset is later.
    let rows = house.realm.events().await;
    let instant = rows
        .iter()
        .find(|row| row["type"] == "UPDATE_CREDENTIAL" && row["userId"] == ann)
        .unwrap()["time"]
        .clone();
    let row = |n: u32| {
        json!({
            "id": format!("{n:08x}-0000-4000-8000-000000000000"), "time": instant, "type": "LOGIN",
            "realmId": "r", "clientId": "shop", "details": {},
        })
    };
    house.front.crowd((0..10_000).map(row).collect());
    let mut polls = 0;
    while replica.poll("a").await.unwrap() {
        polls += 1;
        assert!(polls < 200, "it ends");
    }
    assert!(house.is_held(&ann).await, "in the middle of the crowd");
    assert!(house.is_held(&bob).await, "behind it");
    // The next cycle reads them again, by design, and ends again, with nothing new.
    let before = (house.record(&ann).await, house.record(&bob).await);
    let mut polls = 0;
    while replica.poll("a").await.unwrap() {
        polls += 1;
        assert!(polls < 200, "it ends");
    }
    assert_eq!((house.record(&ann).await, house.record(&bob).await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_full_is_followed_by_the_next() {
    let house = House::new().await;
    house.import().await;
    let replica = house.replica_with(|settings| settings.page = 4);
    while replica.poll("a").await.unwrap() {}
    let mut subs = Vec::new();
    for name in ["ann", "bob", "cat"] {
        subs.push(house.user(name).await);
        house.reset(name).await;
    }
    let mut polls = 0;
    while replica.poll("a").await.unwrap() {
        polls += 1;
        assert!(polls < 200, "it ends");
    }
    for sub in subs {
        assert!(house.is_held(&sub).await, "what stood on a later page was read");
    }
    assert!(polls > 1, "more than one page");
}

// P6; domain "Start": off by more than 60 s, receipt counts
#[tokio::test(flavor = "multi_thread")]
async fn keycloaks_clock_ahead_or_behind_by_ten_minutes_and_set_right_again() {
    let house = House::new().await;
    let people = ["ann", "bob", "cat", "dan", "eve"];
    let mut subs = Vec::new();
    for name in people {
        subs.push(house.user(name).await);
    }
    house.import().await;
    for (step, ahead) in [0, 600, 0, -600, 0].into_iter().enumerate() {
        house.front.set_clock(ahead);
        // A new token tells the new time, as it does every few minutes.
        let replica = house.replica();
        let named = replica.idp.health().await.unwrap();
        assert_eq!(
            named.iter().any(|fault| fault.contains("clock differs")),
            ahead != 0,
            "{named:?}"
        );
        while replica.poll("a").await.unwrap() {}
        let before = i64::try_from(now_ms()).unwrap();
        house.reset(people[step]).await;
        while replica.poll("a").await.unwrap() {}
        let record = house
            .record(&subs[step])
            .await
            .unwrap_or_else(|| panic!("step {step}: the reset was missed"));
        let at = record.causes[0].at.millis();
        let now = i64::try_from(now_ms()).unwrap();
        assert!(
            (before - 3_000..=now).contains(&at),
            "step {step}: {at} is not between {before} and {now}"
        );
    }
    for sub in &subs {
        assert_eq!(house.record(sub).await.unwrap().causes.len(), 1, "and each once");
    }
}

// P6; domain "Start": also where no line tells of a change, and only a date does
#[tokio::test(flavor = "multi_thread")]
async fn keycloaks_clock_behind_by_ten_minutes_begins_no_silent_hold_early() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    house.import().await;
    let mut config = house.realm.get("events/config").await;
    config["eventsEnabled"] = json!(false);
    config["adminEventsEnabled"] = json!(false);
    house.realm.put("events/config", &config).await;
    house.front.set_clock(-600);
    let replica = house.replica();
    let before = i64::try_from(now_ms()).unwrap();
    house.reset("ann").await;
    ingest::login_check(&replica.flow, &house.subject(&ann))
        .await
        .unwrap();
    let record = house.record(&ann).await.unwrap();
    let (at, now) = (record.causes[0].at.millis(), i64::try_from(now_ms()).unwrap());
    assert!(
        (before - 3_000..=now).contains(&at),
        "{at} is not between {before} and {now}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_polling_one_polls_and_the_other_takes_over() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    let bob = house.user("bob").await;
    house.import().await;
    let (one, two) = (house.replica(), house.replica_behind_a_front().await);
    let first = one.run("one");
    eventually("one to catch up", SOON, async || {
        first.standing().caught_up.then_some(())
    })
    .await;
    let second = two.run("two");
    eventually("two to know that one has", SOON, async || {
        second.standing().caught_up.then_some(())
    })
    .await;
    house.reset("ann").await;
    eventually("the hold", SOON, async || house.is_held(&ann).await.then_some(())).await;
    assert_eq!(two.front.asked("/admin-events"), 0, "only one polls");
    // A wake-up that reaches the one that does not poll: it asks about the account that was named, no more.
    let gate = house.front.close().await;
    house.reset("bob").await;
    second
        .wakes
        .wake(&UpstreamId::parse("main").unwrap(), Some(bob.clone()));
    eventually("the named account to be looked at", SOON, async || {
        house.is_held(&bob).await.then_some(())
    })
    .await;
    assert_eq!(two.front.asked("/events/config"), 0, "it did not poll");
    drop(gate);
    // The one stops and hands its lease back.
    first.stop().await;
    let cat = house.user("cat").await;
    house.reset("cat").await;
    eventually("the other to take over", SOON, async || {
        house.is_held(&cat).await.then_some(())
    })
    .await;
    assert!(two.front.asked("/events/config") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_paused_for_longer_than_its_lease_and_then_woken_moves_nothing() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    house.import().await;
    let (one, two) = (house.replica_behind_a_front().await, house.replica());
    while one.poll("one").await.unwrap() {}
    house.reset("ann").await;
    // It stops in the middle of a poll, with the lease in its hand.
    let closed = one.front.close().await;
    let Replica { flow, .. } = &one;
    let paused = {
        let (flow, upstream) = (std::sync::Arc::clone(flow), house.upstream.clone());
        tokio::spawn(async move { poll::once(&flow, &upstream, "one", &mut poll::Seen::default()).await })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Its lease runs out, and somebody else has it.
    house.store.release("poll:main", "one").await.unwrap();
    while two.poll("two").await.unwrap() {}
    assert!(house.is_held(&ann).await);
    let (record, cursor) = (house.record(&ann).await, house.cursor().await);
    drop(closed);
    let woken = paused.await.unwrap();
    assert!(
        matches!(woken, Err(FlowError::Store(StoreError::StaleLease(_)))),
        "{woken:?}"
    );
    assert_eq!(
        house.record(&ann).await,
        record,
        "marks: the same lines stored nothing"
    );
    assert_eq!(
        house.cursor().await,
        cursor,
        "the fence: the cursor is the new leader's"
    );
}

// held administrators that our roles do not show: an alarm, once
#[tokio::test(flavor = "multi_thread")]
async fn what_our_roles_do_not_show_is_said_once_and_so_is_its_end() {
    let house = House::new().await;
    house.import().await;
    let round = async |house: &House| {
        let flow = house.replica().flow;
        reconcile::whole(&flow, &house.upstream, "a")
            .await
            .unwrap()
            .unwrap();
    };
    round(&house).await;
    round(&house).await;
    assert_eq!(
        (house.said("unseen").await, house.said("unseen_over").await),
        (1, 0)
    );
    house
        .realm
        .grant_realm_management("reentry", &["view-clients"])
        .await;
    round(&house).await;
    round(&house).await;
    assert_eq!(
        (house.said("unseen").await, house.said("unseen_over").await),
        (1, 1)
    );
    house.take_role("view-clients").await;
    round(&house).await;
    assert_eq!(house.said("unseen").await, 2, "taken away: said again");
}

// P15: a process that cannot reach the server holds up no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_cannot_reach_the_server_hands_the_log_over() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    house.import().await;
    let (one, two) = (house.replica(), house.replica_behind_a_front().await);
    let first = one.run("one");
    eventually("one to catch up", SOON, async || {
        first.standing().caught_up.then_some(())
    })
    .await;
    let second = two.run("two");
    first.cut();
    house.reset("ann").await;
    eventually("the hold", SOON, async || house.is_held(&ann).await.then_some(())).await;
    assert!(two.front.asked("/events/config") > 0, "the other one polls");
    drop((first, second));
}
