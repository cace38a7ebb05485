//! What goes wrong, in the order that the seed gives: every kind at least once, then any.

use std::time::{Duration, Instant};

use reentry_test_support::clock::now_ms;
use reentry_test_support::redis::Redis;
use serde_json::json;

use crate::chance::Chance;
use crate::chronicle::Trouble;
use crate::company::{Company, RESIDENT, ROLE, name};
use crate::writer::Writer;

/// A thing that can happen.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// A replica is killed and started again.
    Kill,
    /// A replica is stopped for a moment.
    Pause,
    /// A replica is stopped for longer than it holds any lease.
    LongPause,
    /// The master is killed; another takes over; it comes back as a replica.
    Failover,
    /// The master hangs for so long that another takes over, and then wakes and still thinks it is the master.
    HungMaster,
    /// The master hands over in order.
    Handover,
    /// The store takes a second and a half for every answer.
    Slow,
    /// The directory of one person is away, just when the log has a line about that account.
    Unreadable,
    /// Somebody who can write to the store puts the records of some time ago back.
    PutBack,
}

const ALL: [Mishap; 8] = [
    Mishap::Kill,
    Mishap::Pause,
    Mishap::LongPause,
    Mishap::Failover,
    Mishap::HungMaster,
    Mishap::Handover,
    Mishap::Slow,
    Mishap::Unreadable,
];

/// Makes trouble until `until`; everything runs again when it returns.
pub async fn make(company: &mut Company, seed: u64, until: Instant) -> Trouble {
    let mut chance = Chance::new(seed, 0);
    let mut order = chance.shuffled(ALL.to_vec());
    // In the middle: by then records are others than those that were kept first, and people still act afterwards.
    order.insert(order.len() / 2, Mishap::PutBack);
    let mut trouble = Trouble::default();
    let mut writer = Writer::default();
    tokio::time::sleep(Duration::from_secs(4)).await;
    while Instant::now() < until {
        let mishap = order.pop().unwrap_or_else(|| ALL[chance.below(ALL.len())]);
        println!(
            "{:>4} s left, {}: {mishap:?}",
            until.saturating_duration_since(Instant::now()).as_secs(),
            now_ms(),
        );
        if matches!(mishap, Mishap::PutBack) {
            trouble.put_back += tokio::task::block_in_place(|| writer.put_back(master(company)));
        } else {
            tokio::task::block_in_place(|| writer.keep(master(company)));
            happens(company, mishap, &mut chance, &mut trouble).await;
        }
        tokio::time::sleep(chance.span(1_500, 5_000)).await;
    }
    trouble
}

async fn happens(company: &mut Company, mishap: Mishap, chance: &mut Chance, trouble: &mut Trouble) {
    let replica = chance.below(2);
    match mishap {
        Mishap::Kill => {
            trouble.kills += 1;
            company.replicas[replica].kill9();
            tokio::time::sleep(chance.span(300, 2_500)).await;
            company.replicas[replica].restart();
        }
        Mishap::Pause | Mishap::LongPause => {
            trouble.pauses += 1;
            let long = matches!(mishap, Mishap::LongPause);
            company.replicas[replica].signal("STOP");
            tokio::time::sleep(if long {
                chance.span(31_000, 34_000)
            } else {
                chance.span(800, 5_000)
            })
            .await;
            company.replicas[replica].signal("CONT");
        }
        Mishap::Failover | Mishap::HungMaster | Mishap::Handover => {
            trouble.failovers += 1;
            let after = chance.span(500, 4_000);
            tokio::task::block_in_place(|| failover(company, mishap));
            tokio::time::sleep(after).await;
            tokio::task::block_in_place(|| company.redis.revive());
        }
        Mishap::Slow => {
            trouble.slowness += 1;
            master(company).cli(&["CLIENT", "PAUSE", "1500", "ALL"]);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Mishap::PutBack => {}
        Mishap::Unreadable => {
            trouble.unreadable += 1;
            let resident = company.realm.user_id(&name(RESIDENT)).await;
            let role = company.realm.get(&format!("roles/{ROLE}")).await;
            let path = format!("users/{resident}/role-mappings/realm");
            company.realm.post(&path, &json!([role])).await;
            company.directory.stop();
            tokio::time::sleep(chance.span(3_000, 9_000)).await;
            tokio::task::block_in_place(|| company.directory.resume());
        }
    }
}

fn master(company: &Company) -> &Redis {
    &company.redis.nodes[company.redis.master()]
}

/// Another node becomes the master, one way or the other.
fn failover(company: &mut Company, mishap: Mishap) {
    let old = company.redis.master();
    match mishap {
        Mishap::Failover => {
            company.redis.kill_master();
        }
        Mishap::HungMaster => {
            company.redis.nodes[old].hang();
            company.redis.replaced(old);
            println!("             {}: it wakes", now_ms());
            company.redis.nodes[old].resume();
        }
        _ => company.redis.failover(),
    }
}
