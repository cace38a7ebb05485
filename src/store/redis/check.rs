//! Whether Redis is fit to be relied on. Each fault says what to do.

use std::collections::BTreeMap;

use redis::{Pipeline, Value};

use super::link::{Link, is_master};
use super::{text, time};
use crate::config::store::Durability;
use crate::ports::store::{Soundness, StoreError};
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
