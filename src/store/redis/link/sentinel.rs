//! Who the master is, as Sentinels know it.
//!
//! All of them are asked at once, since one that was cut off goes on naming the former master: the answer with the
//! highest configuration epoch counts, and its node is used only when it says itself that it is the master.
//! They are asked before and after every connecting and with every pulse, so that a master that was cut off together with us, and
//! still believes in itself, is left as soon as a Sentinel can be reached that knows better.
//!
//! An ACL user of Sentinel needs `+auth +client|setname +sentinel|get-master-addr-by-name +sentinel|master
//! +sentinel|replicas`, from Redis 7.2 on also `+client|setinfo`, and nothing else.

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
}

/// What a Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    epoch: i64,
    at: Endpoint,
    /// How many of its replicas are up.
    up: u8,
}

impl Sentinels {
    pub(super) fn new(master: &str, dial: Dial, at: Vec<Endpoint>) -> Self {
        let sentinel = |at| Sentinel {
            at,
            connection: Mutex::default(),
        };
        Self {
            master: master.to_owned(),
            dial,
            known: at.into_iter().map(sentinel).collect(),
        }
    }

    /// Asks all at once. Most of them are enough, with this grace for the others.
    async fn ask(&self, grace: Duration) -> Result<(Endpoint, u8), String> {
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
        newest(said).ok_or_else(|| format!("no Sentinel names the master `{}`: {why}", self.master))
    }
}

/// What the Sentinel says that knows of the latest failover, and how many replicas are up for any that knows of it.
fn newest(said: Vec<Said>) -> Option<(Endpoint, u8)> {
    let newest = said.into_iter().max_by_key(|one| (one.epoch, one.up));
    newest.map(|one| (one.at, one.up))
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
        let answers: Result<Vec<Value>, _> = answers.into_iter().collect();
        let answers = answers.map_err(|e| format!("{}: {e}", self.at))?;
        said(&answers).ok_or_else(|| format!("{} does not know it", self.at))
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

fn said(answers: &[Value]) -> Option<Said> {
    let [Value::Array(address), Value::Array(facts), Value::Array(replicas)] = answers else {
        return None;
    };
    let [host, port] = address.as_slice() else {
        return None;
    };
    let at = Endpoint::new(text(host)?, text(port)?.parse().ok()?);
    let epoch = fact(facts, "config-epoch").and_then(|epoch| epoch.parse().ok());
    let is_up = |replica: &&Value| match replica {
        Value::Array(facts) => !fact(facts, "flags").is_some_and(|flags| flags.contains("s_down")),
        _ => true,
    };
    Some(Said {
        epoch: epoch.unwrap_or(0),
        at,
        up: u8::try_from(replicas.iter().filter(is_up).count()).unwrap_or(u8::MAX),
    })
}

#[async_trait]
impl Find for Sentinels {
    async fn master(&self) -> Result<(Endpoint, Successors), String> {
        // The one that led a failover knows of it before the others do: it is not passed over for being slow.
        let (at, up) = self.ask(self.dial.response_timeout).await?;
        Ok((at, Successors::Up(up)))
    }

    async fn confirm(&self, used: &Endpoint) -> Result<Successors, String> {
        // Sentinels that cannot be reached take nothing away from a master that says it is one.
        match self.ask(GRACE).await {
            Ok((newest, _)) if newest != *used => Err(format!("the Sentinels name another master, {newest}")),
            Ok((_, up)) => Ok(Successors::Up(up)),
            Err(_) => Ok(Successors::Unanswered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Said, newest};

    #[test]
    fn the_newest_answer_counts() {
        let said = |epoch, host: &str, up| Said {
            epoch,
            at: Endpoint::new(host, 1),
            up,
        };
        let all = vec![
            said(1, "old", 3),
            said(2, "new", 1),
            said(2, "new", 2),
            said(1, "old", 3),
        ];
        assert_eq!(newest(all), Some((Endpoint::new("new", 1), 2)));
        assert_eq!(newest(Vec::new()), None);
    }
}
