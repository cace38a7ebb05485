//! Who the master is, as Sentinels know it.
//!
//! All of them are asked at once, since one that was cut off goes on naming the former master: the answer with the
//! highest configuration epoch counts, and its node is used only when it says itself that it is the master.
//! They are asked before and after every connecting and with every pulse, so that a master that was cut off together with us, and
//! still believes in itself, is left as soon as a Sentinel can be reached that knows better.
//!
//! An ACL user of Sentinel needs `+auth +client|setname +sentinel|get-master-addr-by-name +sentinel|master
//! +sentinel|replicas`, from Redis 7.2 on also `+client|setinfo`, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::{Pipeline, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connection::Connection;
use super::dial::{Dial, Endpoint};
use super::node::Find;
use super::reckoned::Successors;

/// A Sentinel's own default for `down-after-milliseconds`.
const DOWN_AFTER: i64 = 30_000;
/// A replica that has lost its master for so many times `down-after-milliseconds` is not chosen.
const CHOSEN_WITHIN: i64 = 10;
/// What stragglers get once most Sentinels have answered, while a connection stands.
const GRACE: Duration = Duration::from_millis(100);

/// Some Sentinels, and what they call the master.
pub(super) struct Sentinels {
    master: String,
    dial: Dial,
    known: Vec<Sentinel>,
}

struct Sentinel {
    at: Endpoint,
    connection: Mutex<Option<Connection>>,
    /// Whether it was said that it does not tell of replicas.
    refused: AtomicBool,
}

/// What a Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    epoch: i64,
    at: Endpoint,
    /// How many replicas could be chosen in its place; `None` when it does not say so.
    up: Option<u8>,
}

impl Sentinels {
    pub(super) fn new(master: &str, dial: Dial, at: Vec<Endpoint>) -> Self {
        let sentinel = |at| Sentinel {
            at,
            connection: Mutex::default(),
            refused: AtomicBool::new(false),
        };
        Self {
            master: master.to_owned(),
            dial,
            known: at.into_iter().map(sentinel).collect(),
        }
    }

    /// Asks all at once. Most of them are enough, with this grace for the others.
    async fn ask(&self, grace: Duration) -> Result<(Endpoint, Successors), String> {
        let mut asked: FuturesUnordered<_> = self
            .known
            .iter()
            .map(|s| s.ask(&self.dial, &self.master))
            .collect();
        let (mut said, mut why) = (Vec::new(), "there is none".to_owned());
        loop {
            let enough = said.len() * 2 > self.known.len();
            let patience = if enough { grace } else { Duration::MAX };
            match timeout(patience, asked.next()).await {
                Ok(Some(Ok(one))) => said.push(one),
                Ok(Some(Err(fault))) => why = fault,
                Ok(None) | Err(_) => break,
            }
        }
        newest(said, self.known.len())
            .ok_or_else(|| format!("no Sentinel names the master `{}`: {why}", self.master))
    }
}

/// What the Sentinel says that knows of the latest failover. Who could be chosen is known from most of them only: the
/// others may be cut off from those who choose.
fn newest(mut said: Vec<Said>, known: usize) -> Option<(Endpoint, Successors)> {
    let epoch = said.iter().map(|one| one.epoch).max()?;
    said.retain(|one| one.epoch == epoch);
    let at = said.first()?.at.clone();
    let counts: Vec<u8> = said.iter().filter_map(|one| one.up).collect();
    let successors = match counts.iter().max() {
        Some(up) if counts.len() * 2 > known => Successors::Up(*up),
        _ => Successors::Unanswered,
    };
    Some((at, successors))
}

impl Sentinel {
    async fn ask(&self, dial: &Dial, master: &str) -> Result<Said, String> {
        let mut kept = self.connection.lock().await;
        let connection = match kept.take() {
            Some(connection) => connection,
            None => dial
                .open(&self.at, Duration::ZERO)
                .await
                .map_err(|e| format!("{}: {e}", self.at))?,
        };
        let mut asked = Pipeline::with_capacity(3);
        asked.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        asked.cmd("SENTINEL").arg("MASTER").arg(master);
        asked.cmd("SENTINEL").arg("REPLICAS").arg(master);
        let answers = connection.send(&asked).await;
        let answers = answers.map_err(|e| format!("{}: {e}", self.at))?;
        *kept = Some(connection);
        drop(kept);
        let mut answers = answers.into_iter();
        let named: Result<Vec<Value>, _> = answers.by_ref().take(2).collect();
        let named = named.map_err(|e| format!("{}: {e}", self.at))?;
        let replicas = match answers.next() {
            Some(Ok(replicas)) => Some(replicas),
            Some(Err(error)) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(at = %self.at, %error, "a Sentinel does not say which replicas there are: its user needs +sentinel|replicas");
                }
                None
            }
            None => None,
        };
        said(&named, replicas.as_ref()).ok_or_else(|| format!("{} does not know it", self.at))
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(octets) => std::str::from_utf8(octets).ok(),
        _ => None,
    }
}

/// One of a list of names and values.
fn fact<'a>(facts: &'a [Value], wanted: &str) -> Option<&'a str> {
    facts.chunks(2).find_map(|fact| match fact {
        [name, value] if text(name) == Some(wanted) => text(value),
        _ => None,
    })
}

fn said(named: &[Value], replicas: Option<&Value>) -> Option<Said> {
    let [Value::Array(address), Value::Array(facts)] = named else {
        return None;
    };
    let [host, port] = address.as_slice() else {
        return None;
    };
    let at = Endpoint::new(text(host)?, text(port)?.parse().ok()?);
    let number = |name| fact(facts, name).and_then(|n| n.parse::<i64>().ok());
    let up = replicas.and_then(|replicas| match replicas {
        Value::Array(each) => {
            let most = number("down-after-milliseconds").unwrap_or(DOWN_AFTER) * CHOSEN_WITHIN;
            let is_up = !fact(facts, "flags").unwrap_or_default().contains("down");
            let could = each
                .iter()
                .filter(|replica| could_be_chosen(replica, is_up.then_some(most)));
            Some(u8::try_from(could.count()).unwrap_or(u8::MAX))
        }
        _ => None,
    });
    Some(Said {
        epoch: number("config-epoch").unwrap_or(0),
        at,
        up,
    })
}

/// Whether a Sentinel would choose this replica: not one that is down, or that has lost its master for longer than `most`
/// milliseconds, while that one is up. One that is never to be chosen counts as well: a write that reached it, and not the
/// one that was chosen and has left, would look as good.
fn could_be_chosen(replica: &Value, most: Option<i64>) -> bool {
    let Value::Array(facts) = replica else { return true };
    let down = fact(facts, "flags").is_some_and(|flags| flags.contains("s_down"));
    let lost = fact(facts, "master-link-down-time").and_then(|time| time.parse::<i64>().ok());
    let behind = fact(facts, "master-link-status") == Some("err")
        && lost.zip(most).is_some_and(|(lost, most)| lost > most);
    !down && !behind
}

#[async_trait]
impl Find for Sentinels {
    async fn master(&self) -> Result<(Endpoint, Successors), String> {
        // The one that led a failover knows of it before the others do: it is not passed over for being slow.
        self.ask(self.dial.response_timeout).await
    }

    async fn confirm(&self, used: &Endpoint) -> Result<Successors, String> {
        // Sentinels that cannot be reached take nothing away from a master that says it is one.
        match self.ask(GRACE).await {
            Ok((newest, _)) if newest != *used => Err(format!("the Sentinels name another master, {newest}")),
            Ok((_, successors)) => Ok(successors),
            Err(_) => Ok(Successors::Unanswered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_answer_counts() {
        let said = |epoch, host: &str, up| Said {
            epoch,
            at: Endpoint::new(host, 1),
            up,
        };
        let all = vec![
            said(1, "old", Some(3)),
            said(2, "new", Some(1)),
            said(2, "new", Some(2)),
            said(1, "old", Some(3)),
        ];
        let new = || Endpoint::new("new", 1);
        assert_eq!(newest(all.clone(), 3), Some((new(), Successors::Up(2))));
        // Those who know are not most of them: whom the others choose is not known.
        assert_eq!(newest(all, 4), Some((new(), Successors::Unanswered)));
        let silent = vec![
            said(2, "new", None),
            said(2, "new", None),
            said(2, "new", Some(2)),
        ];
        assert_eq!(newest(silent, 3), Some((new(), Successors::Unanswered)));
        assert_eq!(newest(Vec::new(), 3), None);
    }

    fn list(pairs: &[(&str, &str)]) -> Value {
        let text = |t: &str| Value::BulkString(t.as_bytes().to_vec());
        Value::Array(pairs.iter().flat_map(|(n, v)| [text(n), text(v)]).collect())
    }

    fn master(flags: &str) -> Value {
        list(&[
            ("flags", flags),
            ("config-epoch", "7"),
            ("down-after-milliseconds", "1000"),
        ])
    }

    // P1, P8: all that could be the next master count, and nobody waits for one that could not.
    #[test]
    fn replicas_that_could_be_chosen_are_counted() {
        let address = Value::Array(vec![
            Value::BulkString(b"here".to_vec()),
            Value::BulkString(b"6379".to_vec()),
        ]);
        let ok = ("master-link-status", "ok");
        let err = ("master-link-status", "err");
        let replicas = Value::Array(vec![
            list(&[("flags", "slave"), ok, ("slave-priority", "100")]),
            list(&[("flags", "slave"), err, ("master-link-down-time", "9000")]),
            list(&[("flags", "slave"), err, ("master-link-down-time", "11000")]),
            list(&[("flags", "slave"), ok, ("slave-priority", "0")]),
            list(&[("flags", "s_down,slave,disconnected"), ok]),
        ]);
        let up = |flags: &str, replicas: Option<&Value>| {
            let said = said(&[address.clone(), master(flags)], replicas).unwrap();
            assert_eq!((said.epoch, said.at), (7, Endpoint::new("here", 6379)));
            said.up
        };
        assert_eq!(up("master", Some(&replicas)), Some(3));
        // Since it is down, its replicas have all lost it.
        assert_eq!(up("s_down,master", Some(&replicas)), Some(4));
        assert_eq!(up("master", None), None);
    }
}
