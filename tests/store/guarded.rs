//! Sentinels, their servers, and a Cluster that speak TLS and ask for passwords, each with a user that may do what it
//! must and nothing else. Real servers, and what they refuse.

use std::sync::Arc;
use std::time::Duration;

use reentry::config::store::{Credentials, Durability, Replicas};
use reentry::ports::seal::Seal as _;
use reentry::ports::store::{Parts, Store, StoreError};
use reentry::store::redis::Settings;
use reentry::store::seal::Keys;
use reentry_test_support::redis::cluster::Cluster;
use reentry_test_support::redis::sentinel::SentinelSet;
use reentry_test_support::redis::{CERTIFICATES, Redis};

use crate::house::{recovered, settings};
use crate::server::RIGHTS;
use crate::values::{END, subject, write};

/// What a user of Sentinel needs (Redis 7.0 knows no `client|setinfo` yet).
const WATCHING: [&str; 5] = [
    "+auth",
    "+client|setname",
    "+sentinel|get-master-addr-by-name",
    "+sentinel|master",
    "+sentinel|replicas",
];
/// What the store's user needs in a cluster beside the rest.
const IN_A_CLUSTER: [&str; 3] = ["+cluster|info", "+cluster|slots", "+asking"];

fn user(server: &Redis, name: &str, password: &str, rights: &[&str]) {
    let password = format!(">{password}");
    let begin = ["ACL", "SETUSER", name, "reset", "on", &password];
    server.cli(&[&begin[..], rights].concat());
}

fn authority() -> Vec<u8> {
    std::fs::read(format!("{CERTIFICATES}/ca.pem")).unwrap()
}

async fn connect(settings: Settings, keys: &Arc<Keys>) -> Arc<dyn Store> {
    reentry::store::redis::connect(settings, Arc::clone(keys))
        .await
        .unwrap()
}

/// What a store that cannot be had says of its reason.
async fn why(settings: Settings, keys: &Arc<Keys>) -> String {
    let store = connect(settings, keys).await;
    let read = store.read(&keys.subject(&subject("u")), Parts::RECORD).await;
    match read.unwrap_err() {
        StoreError::Unavailable(why) => why,
        other => panic!("{other}"),
    }
}

/// Writes for some accounts and reads them back.
async fn used(store: &Arc<dyn Store>, keys: &Keys, round: i64) {
    for sub in ["ann", "bob", "cat", "dan", "eve", "fay"] {
        let key = keys.subject(&subject(sub));
        store
            .update(&key, Parts::ALL, None, &|_| Some(write(sub, round)))
            .await
            .unwrap();
        let loaded = store.read(&key, Parts::RECORD).await.unwrap();
        assert_eq!(loaded.record.unwrap().epoch, round);
    }
    assert!(!store.pending(END, 9).await.unwrap().is_empty());
    assert!(
        store.check().await.unwrap().faults.is_empty(),
        "{:?}",
        store.check().await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_their_servers_by_tls_each_with_credentials_of_its_own() {
    let mut servers = SentinelSet::guarded();
    for node in &servers.nodes {
        user(node, "reentry", "stored", &[&RIGHTS[..], &["+wait"]].concat());
    }
    for sentinel in &servers.sentinels {
        user(sentinel, "watcher", "watching", &WATCHING);
    }
    let keys = Arc::new(Keys::ephemeral().unwrap());
    let right = Settings {
        password: Some("stored".into()),
        sentinel: Credentials {
            user: Some("watcher".to_owned()),
            password: Some("watching".into()),
        },
        ca: Some(authority()),
        durability: Durability {
            replicas: Replicas::All { at_least: 1 },
            ..Durability::NONE
        },
        response_timeout: Duration::from_secs(5),
        ..settings(&servers.tls_url("reentry"))
    };
    assert!(!format!("{right:?}").contains("stored") && !format!("{right:?}").contains("watching"));
    let store = connect(right.clone(), &keys).await;
    assert!(store.init().await.unwrap());
    used(&store, &keys, 1).await;
    // The next master is found, reached and believed the same way.
    servers.failover();
    recovered(&store, Duration::from_secs(20)).await;
    servers.settle();
    used(&store, &keys, 2).await;

    let refused = |why: &str| why.contains("WRONGPASS") || why.contains("uthentication");
    let wrong_store = Settings {
        password: Some("wrong".into()),
        ..right.clone()
    };
    let said = why(wrong_store, &keys).await;
    assert!(refused(&said) && !said.contains("Sentinel names"), "{said}");
    let wrong_sentinel = Settings {
        sentinel: Credentials {
            user: Some("watcher".to_owned()),
            password: Some("stored".into()),
        },
        ..right.clone()
    };
    let said = why(wrong_sentinel, &keys).await;
    assert!(
        refused(&said) && said.contains("no Sentinel names the master"),
        "{said}"
    );
    // Sentinel's credentials are its own: those of the servers are not sent to it.
    let none = Settings {
        sentinel: Credentials {
            user: None,
            password: None,
        },
        ..right.clone()
    };
    let said = why(none, &keys).await;
    assert!(
        said.contains("NOAUTH") || said.contains("uthentication"),
        "{said}"
    );
    let stranger = Settings { ca: None, ..right };
    let said = why(stranger, &keys).await;
    assert!(said.contains("certificate"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_by_tls_with_a_user_of_few_rights() {
    let servers = Cluster::guarded();
    for node in &servers.nodes {
        user(node, "reentry", "stored", &[&RIGHTS[..], &IN_A_CLUSTER].concat());
    }
    let keys = Arc::new(Keys::ephemeral().unwrap());
    let right = Settings {
        password: Some("stored".into()),
        ca: Some(authority()),
        response_timeout: Duration::from_secs(5),
        ..settings(&servers.tls_url("reentry"))
    };
    let store = connect(right.clone(), &keys).await;
    assert!(store.init().await.unwrap());
    used(&store, &keys, 1).await;
    let counted: Vec<usize> = servers
        .nodes
        .iter()
        .map(|node| node.cli(&["DBSIZE"]).parse().unwrap())
        .collect();
    assert!(
        counted.iter().all(|count| *count > 50),
        "all of them are used: {counted:?}"
    );
    for node in &servers.nodes {
        let list = node.cli(&["CLIENT", "LIST"]);
        let ours: Vec<&str> = list
            .lines()
            .filter(|line| line.contains("user=reentry"))
            .collect();
        let port = format!(":{}", node.served_port());
        assert!(!ours.is_empty(), "{list}");
        assert!(
            ours.iter().all(|line| line.contains(&port)),
            "by TLS and no other way: {ours:?}"
        );
    }
    let said = why(
        Settings {
            password: Some("wrong".into()),
            ..right.clone()
        },
        &keys,
    )
    .await;
    assert!(
        said.contains("WRONGPASS") || said.contains("uthentication"),
        "{said}"
    );
    let said = why(
        Settings {
            ca: None,
            ..right.clone()
        },
        &keys,
    )
    .await;
    assert!(said.contains("certificate"), "{said}");
    // A right too few is named, and nothing passes for an absent record.
    for node in &servers.nodes {
        user(node, "reentry", "stored", &["~other:*", "+@all"]);
    }
    let read = connect(right, &keys).await;
    let read = read.read(&keys.subject(&subject("ann")), Parts::RECORD).await;
    let said = read.unwrap_err().to_string();
    assert!(
        said.contains("NOPERM") || said.to_lowercase().contains("permission"),
        "{said}"
    );
}
