//! One account, line or answer that cannot be read, per reader: everybody else goes on, and it is restricted alone.

use std::time::Duration;

use reentry::domain::hold::Told;
use reentry::domain::time::Span;
use reentry::flow::{ingest, poll, rebuild, reconcile, sweep};
use reentry::idp::keycloak::admin::{Admin, Credentials};
use reentry::idp::keycloak::wire::{self, WirePlanInput};
use reentry::ports::idp::IdentityProvider as _;
use reentry::ports::store::Parts;
use reentry_test_support::clock::{eventually, now_ms};
use reentry_test_support::keycloak::{ADMIN, user};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::SOON;
use crate::house::{House, Replica};

const PASSWORD: &str = "set by somebody else";

impl House {
    /// An administrator sets an account's password.
    async fn set_password(&self, sub: &str) {
        let path = format!("users/{}/reset-password", escaped(sub));
        let body = json!({"type": "password", "value": PASSWORD, "temporary": false});
        self.realm.put(&path, &body).await;
    }

    /// A line about an account that changes nothing.
    async fn edit(&self, sub: &str) {
        let path = format!("users/{sub}");
        let mut person = self.realm.get(&path).await;
        person["firstName"] = json!(format!("{}a", person["firstName"].as_str().unwrap_or("A")));
        self.realm.put(&path, &person).await;
    }

    async fn is_unreadable(&self, sub: &str) -> bool {
        let record = self.record(sub).await;
        record.is_some_and(|record| record.unreadable.is_some())
    }

    /// How often the audit log says `action` of an account, with its id.
    async fn said_of(&self, sub: &str, action: &str) -> usize {
        let key = self.key(sub);
        let end = reentry::domain::time::Timestamp::from_millis(i64::MAX);
        let lines = self.store.audit(Some(&key), end, 100).await.unwrap();
        let of = |entry: &reentry::domain::audit::Entry| {
            entry.action == action && entry.details.get("sub").is_some_and(|said| said == sub)
        };
        lines.iter().filter(|(_, entry)| of(entry)).count()
    }

    /// The sweeper works until the account can be read.
    async fn swept_until_readable(&self, replica: &Replica, sub: &str) {
        let mut resting = sweep::Resting::default();
        for _ in 0..150 {
            sweep::round(&replica.flow, &mut resting).await.unwrap();
            if !self.is_unreadable(sub).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{sub} stays unreadable");
    }
}

impl House {
    /// The addresses that our snapshot of an account has.
    async fn contacts(&self, sub: &str) -> Vec<String> {
        let read = self.store.read(&self.key(sub), Parts::ACCOUNT).await.unwrap();
        let contacts = read.account.unwrap().contacts;
        contacts.into_iter().map(|contact| contact.address).collect()
    }
}

fn escaped(sub: &str) -> String {
    let octet = |octet: u8| {
        if octet.is_ascii_alphanumeric() || octet == b'-' {
            char::from(octet).to_string()
        } else {
            format!("%{octet:02X}")
        }
    };
    sub.bytes().map(octet).collect()
}

// P15, by the poller
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_read_holds_up_nobody_and_is_taken_in_when_it_can() {
    let house = House::new().await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    house.import().await;
    let replica = house.replica();
    let running = replica.run("a");
    eventually("the first catching up", SOON, async || {
        running.standing().caught_up.then_some(())
    })
    .await;
    house
        .front
        .answer(&format!("/users/{ann}/credentials"), 500, u32::MAX);
    house.set_password(&ann).await;
    house.set_password(&bob).await;
    eventually("bob's hold", SOON, async || {
        house.is_held(&bob).await.then_some(())
    })
    .await;
    eventually("ann's mark", SOON, async || {
        house.is_unreadable(&ann).await.then_some(())
    })
    .await;
    assert!(house.is_held(&ann).await, "nothing is allowed to her");
    assert!(!house.is_unreadable(&bob).await);
    assert_eq!(house.said_of(&ann, "account_unreadable").await, 1);
    // More lines about her hold up nobody, and tell nobody anything new.
    house.edit(&ann).await;
    house.edit(&bob).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(house.said_of(&ann, "account_unreadable").await, 1);
    assert_eq!(running.standing().fault, None);
    running.stop().await;
    house.swept_until_readable(&replica, &ann).await;
    assert_eq!(house.said_of(&ann, "account_readable").await, 1);
    let record = house.record(&ann).await.unwrap();
    assert_eq!(record.causes.len(), 1, "what came meanwhile: {:?}", record.causes);
    assert!(house.is_held(&ann).await);
}

// P15, P10: an account that is not found for a moment is not gone: its lines wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_not_found_for_a_moment_loses_no_line() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    house.import().await;
    let replica = house.replica();
    let running = replica.run("a");
    eventually("the first catching up", SOON, async || {
        running.standing().caught_up.then_some(())
    })
    .await;
    for below in ["", "/credentials", "/sessions", "/role-mappings/realm/composite"] {
        house.front.answer(&format!("/users/{ann}{below}"), 404, u32::MAX);
    }
    house.set_password(&ann).await;
    eventually("ann's mark", SOON, async || {
        house.is_unreadable(&ann).await.then_some(())
    })
    .await;
    assert!(house.is_held(&ann).await, "nothing is allowed to her meanwhile");
    running.stop().await;
    house.swept_until_readable(&replica, &ann).await;
    let record = house.record(&ann).await.unwrap();
    assert_eq!(record.causes.len(), 1, "what came meanwhile: {:?}", record.causes);
    assert!(house.is_held(&ann).await);
}

// P15: an IdP that is away is no account that cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_provider_that_dies_marks_nobody() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    let before = house.cursor().await;
    house
        .front
        .answer(&format!("/users/{ann}/credentials"), 500, u32::MAX);
    // The page still comes; the question whether it answers does not.
    house.set_password(&ann).await;
    house.front.answer_after("/events/config", 503, 1);
    replica.poll("a").await.unwrap_err();
    assert!(!house.is_unreadable(&ann).await);
    assert_eq!(house.cursor().await, before, "nothing is missed");
    house.front.pass();
    replica.poll("a").await.unwrap();
    assert!(house.is_held(&ann).await);
    assert!(!house.is_unreadable(&ann).await);
}

// P15: what every account of a directory sends, and what nobody promised.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_without_id_or_date_and_a_name_that_is_no_text_are_read() {
    let house = House::new().await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    let credentials = [
        r#"[{"type":"password","createdDate":-1,"federationLink":"c0ffee"}]"#,
        r#"[{"type":"password","federationLink":"c0ffee"}]"#,
        r#"[{"id":null,"type":"password","createdDate":null,"federationLink":"c0ffee"}]"#,
    ];
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    for (n, forged) in credentials.iter().enumerate() {
        house.front.pass();
        house.front.forge(&format!("/users/{ann}/credentials"), forged);
        house.edit(&ann).await;
        replica.poll("a").await.unwrap();
        assert!(!house.is_unreadable(&ann).await, "{n}");
    }
    let whole = house.realm.get(&format!("users/{ann}")).await.to_string();
    let poisoned = whole.replacen(r#""username""#, r#""lastName":"\ud83d","username""#, 1);
    house.front.forge(&format!("/users/{ann}"), &poisoned);
    house.edit(&ann).await;
    house.set_password(&bob).await;
    replica.poll("a").await.unwrap();
    assert!(house.is_held(&bob).await);
    assert!(!house.is_unreadable(&ann).await, "only people read a name");
    ingest::login_check(&replica.flow, &house.subject(&ann))
        .await
        .unwrap();
}

// P15, by the log-in: it is refused its rights alone, and gets them when it can be read.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_read_at_its_log_in_is_marked_until_it_can() {
    let house = House::new().await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    house.front.answer(&format!("/users/{ann}"), 500, u32::MAX);
    let check = async |sub: &str| ingest::login_check(&replica.flow, &house.subject(sub)).await;
    check(&ann).await.unwrap_err();
    assert!(house.is_unreadable(&ann).await && house.is_held(&ann).await);
    check(&bob).await.unwrap();
    assert!(!house.is_held(&bob).await);
    house.front.pass();
    check(&ann).await.unwrap();
    assert!(!house.is_held(&ann).await);
    assert_eq!(
        (
            house.said_of(&ann, "account_unreadable").await,
            house.said_of(&ann, "account_readable").await
        ),
        (1, 1)
    );
}

// P15, by reconciling, which takes the first snapshots too: an account, and a place in the list.
#[tokio::test(flavor = "multi_thread")]
async fn reconciling_passes_an_account_and_a_place_that_cannot_be_read() {
    let house = House::new().await;
    let mut people = Vec::new();
    for name in ["ann", "bob", "cat", "dan", "eve"] {
        people.push(house.user(name).await);
    }
    house
        .front
        .answer(&format!("/users/{}/credentials", people[1]), 500, u32::MAX);
    house.front.spoil(3);
    let replica = house.replica();
    let done = reconcile::whole(&replica.flow, &house.upstream, "a")
        .await
        .unwrap();
    assert!(done.is_some());
    let mut known = Vec::new();
    for sub in &people {
        let loaded = house.store.read(&house.key(sub), Parts::ACCOUNT).await.unwrap();
        known.push(loaded.account.is_some());
    }
    assert_eq!(known, [true, false, true, false, true]);
    assert!(house.is_unreadable(&people[1]).await);
    assert_eq!(house.said("accounts_unlisted").await, 1);
    // Short pages are no end.
    house.front.pass();
    house.front.shorten(2);
    reconcile::whole(&replica.flow, &house.upstream, "a")
        .await
        .unwrap();
    let loaded = house
        .store
        .read(&house.key(&people[3]), Parts::ACCOUNT)
        .await
        .unwrap();
    assert!(loaded.account.is_some());
}

// P15, by a rebuild: 255 partitions do not wait for one account.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_releases_every_partition_and_marks_the_account_that_cannot_be_read() {
    let house = House::new().await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    house.import().await;
    let replica = house.replica();
    house
        .front
        .answer(&format!("/users/{ann}/credentials"), 500, u32::MAX);
    house.set_password(&ann).await;
    let now = replica.flow.now(None).latest();
    for partition in 0..=u8::MAX {
        house.store.begin_rebuild(partition, now, now).await.unwrap();
    }
    let stop = CancellationToken::new();
    let worker = {
        let (flow, stop) = (std::sync::Arc::clone(&replica.flow), stop.clone());
        tokio::spawn(async move { rebuild::run(&flow, "a", None, &stop).await })
    };
    eventually("every partition", Duration::from_mins(1), async || {
        house.store.lost().await.unwrap().is_empty().then_some(())
    })
    .await;
    assert!(house.is_unreadable(&ann).await && house.is_held(&ann).await);
    assert!(!house.is_held(&bob).await);
    house.front.pass();
    house.swept_until_readable(&replica, &ann).await;
    assert!(house.is_held(&ann).await, "what the log tells of before the loss");
    stop.cancel();
    worker.await.unwrap();
}

// P15, by `wire --check`
#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_the_place_that_cannot_be_listed_and_looks_at_the_others() {
    let house = House::new().await;
    let mut people = Vec::new();
    for name in ["ann", "bob", "cat"] {
        people.push(house.user(name).await);
    }
    let default = house
        .realm
        .get(&format!(
            "roles/default-roles-{}",
            house.realm.name().to_lowercase()
        ))
        .await;
    let path = format!("users/{}/role-mappings/realm", people[2]);
    house.realm.delete(&path, Some(&json!([default]))).await;
    let credentials = Credentials::Password {
        realm: "master".to_owned(),
        username: ADMIN.0.to_owned(),
        password: SecretString::from(ADMIN.1.to_owned()),
    };
    let base = Url::parse(&house.front.base).unwrap();
    let admin = Admin::new(&base, house.realm.name(), credentials, Duration::from_secs(30)).unwrap();
    house.front.spoil(0);
    house.front.shorten(1);
    let input = WirePlanInput::new(House::levels(), std::collections::BTreeMap::new());
    let findings = wire::check(&admin, &input, &|_, _, _| {}).await.unwrap();
    let said = |code: &str| {
        let found = findings.iter().find(|finding| finding.code == code);
        found.map(|finding| finding.text.clone()).unwrap_or_default()
    };
    assert!(said("accounts-unreadable").contains("at place 0"), "{findings:?}");
    assert!(
        said("accounts-without-default-role").contains("cat"),
        "{findings:?}"
    );
}

// Ids of whatever shape, compared exactly.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_held_by_its_own_lines_whatever_its_id_is_made_of() {
    let house = House::new().await;
    let ids = [
        "x:7:bob",
        "x:7:bobby",
        "x:7:a_c",
        "x:7:abc",
        "x:7:ann lee",
        "x:7:a/b",
        "x:7:50%",
        "x:7:jürgen",
        "x:7:a;b",
    ];
    let person = |(n, id): (usize, &&str)| {
        let mut person = reentry_test_support::keycloak::user(
            &format!("user{n}"),
            &format!("user{n}@example.test"),
            "correct horse",
        );
        person["id"] = json!(id);
        person["realmRoles"] = json!([format!("default-roles-{}", house.realm.name())]);
        person
    };
    let users: Vec<_> = ids.iter().enumerate().map(person).collect();
    let body = json!({"users": users, "ifResourceExists": "FAIL"});
    house.realm.post("partialImport", &body).await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    let reset = [
        "x:7:bobby",
        "x:7:abc",
        "x:7:ann lee",
        "x:7:a/b",
        "x:7:50%",
        "x:7:jürgen",
        "x:7:a;b",
    ];
    for sub in reset {
        house.set_password(sub).await;
    }
    while replica.poll("a").await.unwrap() {}
    for sub in ids {
        assert_eq!(house.is_held(sub).await, reset.contains(&sub), "{sub}");
    }
    for sub in ids {
        ingest::login_check(&replica.flow, &house.subject(sub))
            .await
            .unwrap();
        assert_eq!(
            house.is_held(sub).await,
            reset.contains(&sub),
            "{sub} at its log-in"
        );
    }
}

// P15: a log that cannot be followed is an alarm whatever the cause.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_followed_for_long_is_an_alarm_and_its_end_is_said() {
    let house = House::new().await;
    let replica = house.replica();
    let running = replica.run("a");
    eventually("the first catching up", SOON, async || {
        running.standing().caught_up.then_some(())
    })
    .await;
    house.front.answer("/admin-events", 500, u32::MAX);
    house.audited("log_alarm", "cannot be followed").await;
    assert!(running.standing().fault.is_some());
    // Its accounts are compared meanwhile.
    eventually("a round", SOON, async || {
        house.store.setting("reconcile_wanted:main").await.unwrap()
    })
    .await;
    house.front.pass();
    house.audited("log_alarm_over", "cannot be followed").await;
    running.stop().await;
}

// An address that changes without a line, as in a directory, is found at the log-in as a credential is.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_went_without_a_line_is_a_change_at_the_log_in() {
    let house = House::new().await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    let mut config = house.realm.get("events/config").await;
    config["adminEventsEnabled"] = json!(false);
    house.realm.put("events/config", &config).await;
    let path = format!("users/{ann}");
    let mut person = house.realm.get(&path).await;
    person["email"] = json!("thief@example.test");
    house.realm.put(&path, &person).await;
    for sub in [&ann, &bob] {
        ingest::login_check(&replica.flow, &house.subject(sub))
            .await
            .unwrap();
    }
    let causes = house.record(&ann).await.unwrap().causes;
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert!(
        house
            .record(&bob)
            .await
            .is_none_or(|record| record.causes.is_empty())
    );
    ingest::login_check(&replica.flow, &house.subject(&ann))
        .await
        .unwrap();
    assert_eq!(house.record(&ann).await.unwrap().causes.len(), 1, "once");
}

/// The lines of the installation about its log.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_cannot_be_understood_is_said_and_the_others_count() {
    let house = House::new().await;
    let bob = house.user("bob").await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    house.set_password(&bob).await;
    let mut rows = house.realm.admin_events().await;
    rows.insert(
        0,
        json!({"id": "strange", "time": rows[0]["time"], "operationType": 7, "resourcePath": "clients/x"}),
    );
    let page = serde_json::to_string(&rows).unwrap();
    house.front.forge_once("/admin-events", &page);
    poll::once(&replica.flow, &house.upstream, "a", &mut poll::Seen::default())
        .await
        .unwrap();
    house
        .audited("log_alarm", "line strange of the log of admin events")
        .await;
    assert!(house.is_held(&bob).await);
}

// What an administrator's script did to hundreds of accounts does not make a password behind it wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_set_behind_a_bulk_change_is_judged_before_it() {
    const CROWD: usize = 260;
    let house = House::new().await;
    let bob = house.user("bob").await;
    let person = |n: usize| json!({"username": format!("zz-{n}"), "enabled": true});
    let users: Vec<_> = (0..CROWD).map(person).collect();
    let body = json!({"users": users, "ifResourceExists": "FAIL"});
    house.realm.post("partialImport", &body).await;
    let replica = house.replica();
    while replica.poll("a").await.unwrap() {}
    let listed = house.realm.get("users?search=zz-&max=1000").await;
    let group = house.realm.post("groups", &json!({"name": "newsletter"})).await;
    for person in listed.as_array().unwrap() {
        let path = format!("users/{}/groups/{group}", person["id"].as_str().unwrap());
        house.realm.put(&path, &json!({})).await;
    }
    house.set_password(&bob).await;
    let before = house.front.asked("/credentials");
    let mut turns = 0;
    let since = std::time::Instant::now();
    while !house.is_held(&bob).await {
        replica.poll("a").await.unwrap();
        turns += 1;
        assert!(turns < 10, "never held");
    }
    let judged = house.front.asked("/credentials") - before;
    println!(
        "held after {:?}, {turns} turns and {judged} readings of {CROWD} accounts",
        since.elapsed()
    );
    assert!(judged < 100, "{judged}");
    // And nobody is forgotten.
    while replica.poll("a").await.unwrap() {}
    let judged = house.front.asked("/credentials") - before;
    assert!(judged as usize > CROWD, "{judged}");
}

// P15: an id that no account can have here is said, and holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_about_an_id_that_cannot_be_named_is_said_and_the_others_count() {
    let house = House::new().await;
    let bob = house.user("bob").await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    let now = i64::try_from(now_ms()).unwrap();
    let strange =
        json!({"id": "e-1", "time": now, "type": "LOGOUT", "userId": "x:7:\u{1}bob", "sessionId": "s"});
    house.front.crowd(vec![strange]);
    house.set_password(&bob).await;
    replica.poll("a").await.unwrap();
    assert!(house.is_held(&bob).await);
    house.audited("log_alarm", "cannot be named").await;
}

// Listing makes some IdPs import the users of a directory: two who do it at once make it fail for both.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_lists_accounts_while_another_does() {
    let house = House::new().await;
    let ann = house.user("ann").await;
    let another = async || {
        house
            .store
            .lease("list:main", "another", Span::from_secs(60))
            .await
    };
    another().await.unwrap().unwrap();
    let replica = house.replica();
    let round = {
        let (flow, upstream) = (std::sync::Arc::clone(&replica.flow), house.upstream.clone());
        tokio::spawn(async move { reconcile::whole(&flow, &upstream, "a").await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let listed = format!("/admin/realms/{}/users", house.realm.name());
    assert_eq!(house.front.asked(&listed), 0, "its turn has not come");
    house.store.release("list:main", "another").await.unwrap();
    round.await.unwrap().unwrap();
    assert!(house.front.asked(&listed) > 0);
    let loaded = house.store.read(&house.key(&ann), Parts::ACCOUNT).await.unwrap();
    assert!(loaded.account.is_some());
}

// P15: an answer about somebody else is no answer. Their address is told nothing of what happened to her.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_another_account_is_not_believed() {
    let house = House::new().await;
    let (ann, zed) = (house.user("ann").await, house.user("zed").await);
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    let before = house.contacts(&ann).await;
    let of_zed = house.realm.get(&format!("users/{zed}")).await;
    house.front.forge(&format!("/users/{ann}"), &of_zed.to_string());
    house.set_password(&ann).await;
    replica.poll("a").await.unwrap();
    assert!(house.is_unreadable(&ann).await && house.is_held(&ann).await);
    assert!(!house.is_held(&zed).await);
    assert_eq!(house.contacts(&ann).await, before);
    assert!(replica.idp.account(&ann).await.is_err());
    house.front.pass();
    house.swept_until_readable(&replica, &ann).await;
    assert!(house.is_held(&ann).await);
    assert_eq!(house.contacts(&ann).await, before);
    // The same of her lines.
    let of_zed = json!([{"id": "l", "time": 1_000, "type": "LOGIN", "userId": zed}]).to_string();
    house.front.forge("/events", &of_zed);
    assert!(replica.idp.account(&ann).await.is_err());
}

// P15: dates that no account can have, as an import may bring them.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_an_impossible_date_holds_up_nobody_and_is_held_as_any() {
    let house = House::new().await;
    let bob = house.user("bob").await;
    house.import().await;
    let replica = house.replica();
    replica.poll("a").await.unwrap();
    for (name, made) in [("max", i64::MAX), ("min", i64::MIN), ("far", 4_102_444_800_000)] {
        let mut person = user(name, &format!("{name}@example.test"), PASSWORD);
        person["createdTimestamp"] = json!(made);
        let all = json!({"ifResourceExists": "FAIL", "users": [person]});
        house.realm.call(Method::POST, "partialImport", Some(&all)).await;
        let sub = house.realm.user_id(name).await;
        assert_eq!(
            house.realm.get(&format!("users/{sub}")).await["createdTimestamp"],
            made
        );
        replica.poll("a").await.unwrap();
        house.set_password(&sub).await;
        replica.poll("a").await.unwrap();
        assert!(house.is_held(&sub).await, "{name}");
        assert!(!house.is_unreadable(&sub).await, "{name}");
        let causes = house.record(&sub).await.unwrap().causes;
        assert!(
            causes.iter().all(|cause| cause.told == Told::Pending),
            "{causes:?}"
        );
    }
    house.set_password(&bob).await;
    replica.poll("a").await.unwrap();
    assert!(house.is_held(&bob).await);
}
