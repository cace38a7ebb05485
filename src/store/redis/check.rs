//! Whether Redis is fit to be relied on. Each fault says what to do.

use std::collections::BTreeMap;

use redis::{Pipeline, Value};

use super::link::{Link, is_master};
use super::{text, time};
use crate::config::store::Durability;
use crate::ports::store::{Room, Soundness, StoreError};
use crate::store::shared::wall_clock;

/// The oldest version with the commands that are used (`GETDEL`).
const OLDEST: (u32, u32) = (6, 2);
/// How far the two clocks may be apart, in ms.
const CLOCKS: i64 = 5000;

pub(super) async fn check(link: &Link) -> Result<Soundness, StoreError> {
    let mut asked = Pipeline::new();
    asked.cmd("ROLE").cmd("TIME").cmd("INFO").arg("all");
    let masters = link.masters(&asked).await?;
    let mut found = Soundness {
        facts: vec![link.told()],
        ..Soundness::default()
    };
    for (at, replicas, answers) in masters {
        let (facts, faults) = node(&answers, replicas, &link.durability)?;
        let here = |what: &String| format!("{at}: {what}");
        found.facts.extend(facts.iter().map(here));
        found.faults.extend(faults.iter().map(here));
    }
    Ok(found)
}

/// How much of its room the fullest node has used; nothing where none has a limit. What the server itself leaves out
/// before it compares with the limit is left out here.
pub(super) async fn room(link: &Link) -> Result<Option<Room>, StoreError> {
    let mut asked = Pipeline::new();
    asked.cmd("INFO").arg("memory");
    let mut fullest: Option<Room> = None;
    for (_, _, answers) in link.masters(&asked).await? {
        let told = match answers.into_iter().next().unwrap_or_default() {
            Value::VerbatimString { text, .. } => text,
            other => text("its memory", other)?.unwrap_or_default(),
        };
        let facts = facts(&told);
        let number = |name: &str| facts.get(name).and_then(|n| n.trim().parse::<u64>().ok());
        let Some(most) = number("maxmemory").filter(|most| *most > 0) else {
            continue;
        };
        let spared = number("mem_not_counted_for_evict").unwrap_or(0);
        let used = number("used_memory").unwrap_or(0).saturating_sub(spared);
        let own = Room { used, most };
        if fullest.is_none_or(|other| other.percent() < own.percent()) {
            fullest = Some(own);
        }
    }
    Ok(fullest)
}

/// What is to be said of one node, and what is wrong with it.
fn node(
    answers: &[Value],
    replicas: u8,
    durability: &Durability,
) -> Result<(Vec<String>, Vec<String>), StoreError> {
    let [role, clock, told] = answers else {
        return Err(super::strange("itself"));
    };
    let mut faults = Vec::new();
    if !is_master(role) {
        faults.push("the server is a replica: point the URL at the master".to_owned());
    }
    let offset = time(clock.clone())?.since(wall_clock()).millis();
    if offset.abs() > CLOCKS {
        faults.push(format!(
            "the server's clock is {offset} ms away from ours: holds end by the slower of both. Run NTP on both machines"
        ));
    }
    let told = match told {
        Value::VerbatimString { text, .. } => text.clone(),
        other => text("itself", other.clone())?.unwrap_or_default(),
    };
    let facts = facts(&told);
    judge(&facts, replicas, durability, &mut faults);
    Ok((describe(&facts), faults))
}

/// Role, persistence, memory and replicas in words.
fn describe(facts: &BTreeMap<&str, &str>) -> Vec<String> {
    let fact = |name: &str| facts.get(name).copied().unwrap_or("unknown");
    let fsync = if fact("aof_enabled") == "1" { "on" } else { "off" };
    let waitaof = version(facts) >= WAITAOF;
    let waitaof = if waitaof {
        "WAIT and WAITAOF"
    } else {
        "WAIT (WAITAOF needs Redis 7.2)"
    };
    vec![
        format!("Redis {}, role {}", fact("redis_version"), fact("role")),
        format!(
            "append-only file {fsync}, maxmemory-policy {}",
            fact("maxmemory_policy")
        ),
        format!(
            "{} replicas connected, durability by {waitaof}",
            fact("connected_slaves")
        ),
    ]
}

/// What is to be said of a server that is nearly full.
fn full(room: Room) -> String {
    format!(
        "{} of {} MiB of its memory are used: log-ins are refused from {} % on, so that holds and reports can still be stored. Give it more (`CONFIG SET maxmemory`), and look for what fills it",
        room.used >> 20,
        room.most >> 20,
        Room::TIGHT
    )
}

/// The first version with `WAITAOF`.
const WAITAOF: (u32, u32) = (7, 2);

fn version(facts: &BTreeMap<&str, &str>) -> (u32, u32) {
    let version = facts.get("redis_version").copied().unwrap_or_default();
    let mut numbers = version.split('.').map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// `name:value` lines.
fn facts(told: &str) -> BTreeMap<&str, &str> {
    told.lines().filter_map(|l| l.split_once(':')).collect()
}

/// `replicas`: how many are reckoned with, connected or not.
fn judge(facts: &BTreeMap<&str, &str>, replicas: u8, durability: &Durability, faults: &mut Vec<String>) {
    let fact = |name: &str| facts.get(name).copied().unwrap_or_default();
    if version(facts) < OLDEST {
        faults.push(format!(
            "the server's version is {}: use Redis 7 or later, or Valkey (6.2 at least)",
            fact("redis_version")
        ));
    }
    let policy = fact("maxmemory_policy");
    if policy != "noeviction" {
        faults.push(format!(
            "maxmemory-policy is `{policy}`: the server may throw holds away. Set `maxmemory-policy noeviction`"
        ));
    }
    if fact("aof_enabled") != "1" {
        faults.push(
            "the append-only file is off: a crash loses the latest holds. Set `appendonly yes` and `appendfsync always` (or `everysec`)"
                .to_owned(),
        );
    } else if fact("aof_last_write_status") == "err" {
        faults.push("the server cannot write its append-only file: look at its disk and its log".to_owned());
    }
    let number = |name: &str| fact(name).parse::<u64>().unwrap_or(0);
    let (used, most) = (number("used_memory"), number("maxmemory"));
    if most > 0 && (Room { used, most }).is_tight() {
        faults.push(full(Room { used, most }));
    }
    let connected = fact("connected_slaves").parse().unwrap_or(0);
    let wanted = durability.replicas.wanted(replicas.max(connected));
    if connected < wanted {
        faults.push(format!(
            "{connected} replicas are connected and a write has to reach {wanted} (`store.durability.replicas`): no event is acknowledged until there are enough"
        ));
    }
    if connected > wanted {
        faults.push(format!(
            "{connected} replicas are connected and `store.durability.replicas` is {wanted}: one that lacks an acknowledged hold may become the master. Set `store.durability.replicas: all`"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::store::Replicas;

    fn faults(told: &str) -> Vec<String> {
        let mut faults = Vec::new();
        judge(&facts(told), 0, &Durability::NONE, &mut faults);
        faults
    }

    #[test]
    fn replicas_that_are_too_few_or_not_waited_for_are_a_fault() {
        let told = "redis_version:7.2.4\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\nrole:master\r\nconnected_slaves:1\r\n";
        let reckoned = |replicas, reckoned| {
            let mut faults = Vec::new();
            let durability = Durability {
                replicas,
                ..Durability::NONE
            };
            judge(&facts(told), reckoned, &durability, &mut faults);
            faults
        };
        let wanted = |replicas| reckoned(replicas, 1);
        let sound: [Replicas; 3] = [
            Replicas::Just(1),
            Replicas::All { at_least: 0 },
            Replicas::All { at_least: 1 },
        ];
        for replicas in sound {
            assert_eq!(wanted(replicas), Vec::<String>::new(), "{replicas:?}");
        }
        for replicas in [Replicas::Just(2), Replicas::All { at_least: 2 }] {
            let too_few = |f: &String| f.contains("1 replicas are connected and a write has to reach 2");
            assert!(wanted(replicas).iter().any(too_few), "{replicas:?}");
        }
        let away = reckoned(Replicas::All { at_least: 1 }, 2);
        assert!(
            away.iter().any(|f| f.contains("a write has to reach 2")),
            "{away:?}"
        );
        let ignored = |f: &String| f.contains("Set `store.durability.replicas: all`");
        assert!(wanted(Replicas::Just(0)).iter().any(ignored));
        let said = describe(&facts(told)).join("; ");
        for expected in [
            "role master",
            "append-only file on",
            "noeviction",
            "1 replicas",
            "WAITAOF",
        ] {
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_server_that_is_nearly_full_is_named_with_what_to_do() {
        let told = "redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\naof_last_write_status:ok\r\n";
        let with = |used: u64| faults(&format!("{told}used_memory:{used}\r\nmaxmemory:1000000000\r\n"));
        assert_eq!(with(700_000_000), Vec::<String>::new());
        let said = with(900_000_000).join("; ");
        assert!(
            said.contains("858 of 953 MiB") && said.contains("maxmemory"),
            "{said}"
        );
    }

    #[test]
    fn a_server_that_may_lose_holds_is_named_with_what_to_do() {
        let sound = "redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\naof_last_write_status:ok\r\n";
        assert_eq!(faults(sound), Vec::<String>::new());
        let found = faults("redis_version:6.0.16\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0");
        assert_eq!(found.len(), 3);
        assert!(found.iter().any(|f| f.contains("noeviction")));
        assert!(found.iter().any(|f| f.contains("appendonly yes")));
        assert!(faults(&sound.replace("status:ok", "status:err")).len() == 1);
    }
}
