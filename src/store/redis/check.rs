//! Whether a Redis server is fit to be relied on. Each fault says what to do.

use std::collections::BTreeMap;

use redis::Pipeline;

use super::link::{Link, is_master};
use super::{text, time};
use crate::ports::store::{Soundness, StoreError};
use crate::store::shared::wall_clock;

/// The oldest version with the commands that are used (`GETDEL`).
const OLDEST: (u32, u32) = (6, 2);
/// How far the two clocks may be apart, in ms.
const CLOCKS: i64 = 5000;

pub(super) async fn check(link: &Link) -> Result<Soundness, StoreError> {
    let mut asked = Pipeline::new();
    asked.cmd("ROLE").cmd("TIME").cmd("INFO").arg("all");
    let mut answers = link.together(&asked).await?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let mut faults = Vec::new();
    if !is_master(&next()) {
        faults.push("the server is a replica: point the URL at the master".to_owned());
    }
    let offset = time(next())?.since(wall_clock()).millis();
    if offset.abs() > CLOCKS {
        faults.push(format!(
            "the server's clock is {offset} ms away from ours: holds end by the slower of both. Run NTP on both machines"
        ));
    }
    let told = next();
    let told = match told {
        redis::Value::VerbatimString { text, .. } => text,
        other => text("itself", other)?.unwrap_or_default(),
    };
    judge(&facts(&told), &mut faults);
    Ok(Soundness {
        faults,
        restricted_partitions: Vec::new(),
    })
}

/// `name:value` lines.
fn facts(told: &str) -> BTreeMap<&str, &str> {
    told.lines().filter_map(|l| l.split_once(':')).collect()
}

fn judge(facts: &BTreeMap<&str, &str>, faults: &mut Vec<String>) {
    let fact = |name: &str| facts.get(name).copied().unwrap_or_default();
    let version = fact("redis_version");
    let mut numbers = version.split('.').map(|n| n.parse().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < OLDEST {
        faults.push(format!(
            "the server's version is {version}: use Redis 7 or later, or Valkey (6.2 at least)"
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(told: &str) -> Vec<String> {
        let mut faults = Vec::new();
        judge(&facts(told), &mut faults);
        faults
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
