//! Several replicas on one store: who delivers what, and whose cursor counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use reentry::app::clock::{SystemClock, SystemEntropy};
use reentry::domain::hold::Effect;
use reentry::domain::notice::{Content, Message, Notice};
use reentry::domain::policy::Policy;
use reentry::domain::subject::account::{ChannelId, ContactKind};
use reentry::domain::time::Span;
use reentry::flow::{Flow, deliver};
use reentry::ports::notifier::{Notifier, NotifyError, Outgoing};
use reentry::ports::seal::Seal as _;
use reentry::ports::store::{Parts, Store, StoreError, Write};
use reentry::store::seal::Keys;
use tokio_util::sync::CancellationToken;

use crate::house::{House as _, Redis};
use crate::values::{ADDRESS, at, effect_ids, record, subject};

/// Which replica accepted which notice.
pub type Accepted = Arc<Mutex<Vec<(String, String)>>>;

/// A gateway that writes down what it takes, and for one replica falls asleep over its first.
struct Gateway {
    replica: String,
    accepted: Accepted,
    sleeps: Mutex<Option<Duration>>,
}

#[async_trait]
impl Notifier for Gateway {
    async fn deliver(&self, outgoing: &Outgoing<'_>) -> Result<(), NotifyError> {
        let entry = (self.replica.clone(), outgoing.id.to_owned());
        self.accepted.lock().unwrap().push(entry);
        if let Some(time) = self.sleeps.lock().unwrap().take() {
            // The whole process stands still, as under SIGSTOP: its thread does nothing else meanwhile.
            #[expect(clippy::disallowed_methods, reason = "this thread has to stand still")]
            std::thread::sleep(time);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(())
    }
}

/// The use cases over a store and a gateway.
pub fn flow(store: Arc<dyn Store>, keys: Arc<Keys>, notifier: Arc<dyn Notifier>) -> Arc<Flow> {
    Arc::new(Flow {
        store,
        seal: keys,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        policy: ArcSwap::from_pointee(Policy::standard()),
        upstreams: BTreeMap::new(),
        watch: Flow::watching(&BTreeMap::new()),
        notifier,
        issuer: "https://id.example.com".to_owned(),
    })
}

fn notice() -> Effect {
    Effect::Notice(Box::new(Notice {
        case: "case".to_owned(),
        channel: ChannelId("c1".to_owned()),
        kind: ContactKind::Email,
        address: ADDRESS.to_owned(),
        before: false,
        link: false,
        content: Content {
            message: Message::PasswordChanged,
            change: None,
            at: at(0),
            origin: None,
            allowed: None,
            until: None,
            locale: None,
            count: None,
            frozen: false,
            ended: None,
            at_end: None,
            name: "Alice".to_owned(),
        },
    }))
}

/// Stores one notice for each of so many accounts.
pub async fn notices(store: &dyn Store, keys: &Keys, from: usize, count: usize) {
    for n in from..from + count {
        let sub = format!("u{n}");
        let write = Write {
            record: Some(record(&sub, 1)),
            effects: vec![(format!("notice:{n}"), notice())],
            ..Write::default()
        };
        let key = keys.subject(&subject(&sub));
        store
            .update(&key, Parts::RECORD, None, &|_| Some(write.clone()))
            .await
            .unwrap();
    }
}

/// A replica's worker on a thread of its own, and what stops it.
fn replica(
    house: &Redis,
    store: Arc<dyn Store>,
    name: &'static str,
    accepted: &Accepted,
    sleeps: Option<Duration>,
) -> (CancellationToken, std::thread::JoinHandle<()>) {
    let gateway = Gateway {
        replica: name.to_owned(),
        accepted: Arc::clone(accepted),
        sleeps: Mutex::new(sleeps),
    };
    let flow = flow(store, house.keys(), Arc::new(gateway));
    let stop = CancellationToken::new();
    let token = stop.clone();
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(deliver::run(&flow, name, &token));
    });
    (stop, worker)
}

async fn until_empty(store: &dyn Store, within: Duration) {
    let start = Instant::now();
    while !effect_ids(store).await.is_empty() {
        assert!(
            start.elapsed() < within,
            "{:?} are left",
            effect_ids(store).await.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How often each notice was sent, and by whom.
fn counted(accepted: &Accepted) -> BTreeMap<String, Vec<String>> {
    let mut counted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (replica, id) in accepted.lock().unwrap().iter() {
        counted.entry(id.clone()).or_default().push(replica.clone());
    }
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_share_the_outbox_and_send_nothing_twice() {
    let house = Redis::start().await;
    let (store, keys) = (house.store(), house.keys());
    let accepted = Accepted::default();
    let (stop_a, a) = replica(&house, house.other().await, "a", &accepted, None);
    let (stop_b, b) = replica(&house, house.other().await, "b", &accepted, None);
    // Until both know of each other, one of them may have it all.
    tokio::time::sleep(Duration::from_secs(7)).await;
    notices(&*store, &keys, 0, 200).await;
    until_empty(&*store, Duration::from_secs(20)).await;
    let sent = counted(&accepted);
    assert_eq!(sent.len(), 200);
    assert!(sent.values().all(|by| by.len() == 1), "{sent:?}");
    for name in ["a", "b"] {
        let share = sent.values().filter(|by| by[0] == name).count();
        println!("{name} sent {share} of 200");
        assert!(share > 40, "{name} sent {share}");
    }
    // One goes in good order: the other has everything without waiting for a lease to end.
    stop_b.cancel();
    b.join().unwrap();
    let start = Instant::now();
    notices(&*store, &keys, 200, 50).await;
    until_empty(&*store, Duration::from_secs(6)).await;
    println!("the other had taken over {:?} after", start.elapsed());
    assert!(counted(&accepted).values().all(|by| by.len() == 1));
    stop_a.cancel();
    a.join().unwrap();
}

// A replica that stands still for longer than its leases, in the middle of its work, and wakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_slept_through_its_lease_sends_nothing_of_what_others_took_over() {
    let house = Redis::start().await;
    let (store, keys) = (house.store(), house.keys());
    let accepted = Accepted::default();
    notices(&*store, &keys, 0, 120).await;
    let (stop_a, a) = replica(
        &house,
        house.other().await,
        "a",
        &accepted,
        Some(Duration::from_secs(11)),
    );
    let start = Instant::now();
    while accepted.lock().unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never began");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (stop_b, b) = replica(&house, house.other().await, "b", &accepted, None);
    until_empty(&*store, Duration::from_secs(30)).await;
    assert!(
        start.elapsed() < Duration::from_secs(11),
        "the sleeper woke before its share was done"
    );
    tokio::time::sleep(Duration::from_secs(12).saturating_sub(start.elapsed())).await;
    stop_a.cancel();
    stop_b.cancel();
    a.join().unwrap();
    b.join().unwrap();
    let sent = counted(&accepted);
    assert_eq!(sent.len(), 120);
    // What it fell asleep over may have been sent by the other as well, with the same id; nothing else.
    let twice: Vec<&String> = sent
        .iter()
        .filter(|(_, by)| by.len() > 1)
        .map(|(id, _)| id)
        .collect();
    println!("sent twice: {twice:?}");
    assert!(twice.len() <= 1, "{twice:?}");
}

// The leader of two that poll is paused for longer than its lease and then woken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_paused_longer_than_its_lease_moves_no_cursor() {
    let house = Redis::start().await;
    let (leader, other) = (house.store(), house.other().await);
    let short = Span::from_millis(200);
    let stale = leader
        .lease("poll:keycloak", "leader", short)
        .await
        .unwrap()
        .unwrap();
    leader
        .set_setting("cursor:keycloak", "1", Some(&stale))
        .await
        .unwrap();
    // It stands still here, after it has read the page and before it moves the cursor.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let fresh = other
        .lease("poll:keycloak", "other", short)
        .await
        .unwrap()
        .unwrap();
    assert!(fresh.fence > stale.fence);
    other
        .set_setting("cursor:keycloak", "3", Some(&fresh))
        .await
        .unwrap();
    let late = leader.set_setting("cursor:keycloak", "2", Some(&stale)).await;
    assert!(matches!(late, Err(StoreError::StaleLease(_))), "{late:?}");
    // Also when its own name has the lease anew: that is another fence.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let again = leader
        .lease("poll:keycloak", "leader", short)
        .await
        .unwrap()
        .unwrap();
    assert!(again.fence > fresh.fence);
    let late = leader.set_setting("cursor:keycloak", "2", Some(&stale)).await;
    assert!(matches!(late, Err(StoreError::StaleLease(_))), "{late:?}");
    assert_eq!(
        leader.setting("cursor:keycloak").await.unwrap().as_deref(),
        Some("3")
    );
}

// A node that took over and never heard of the last holder gives no fence away twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lost_in_a_failover_is_given_under_a_higher_fence() {
    let house = Redis::start().await;
    let store = house.store();
    let long = Span::from_mins(1);
    let lost = store
        .lease("poll:keycloak", "leader", long)
        .await
        .unwrap()
        .unwrap();
    house.server.cli(&["DEL", "re:{control}:lease:poll:keycloak"]);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let fresh = store
        .lease("poll:keycloak", "other", long)
        .await
        .unwrap()
        .unwrap();
    assert!(fresh.fence > lost.fence);
    let late = store.set_setting("cursor:keycloak", "2", Some(&lost)).await;
    assert!(matches!(late, Err(StoreError::StaleLease(_))), "{late:?}");
}
