//! Who the master is, as Sentinels know it.
//!
//! All of them are asked at once, since one that was cut off goes on naming the former master: the answer with the
//! highest configuration epoch counts, and its node is used only when it says itself that it is the master.
//! They are asked before and after every connecting and with every pulse, so that a master that was cut off together with us, and
//! still believes in itself, is left as soon as a Sentinel can be reached that knows better.
//!
//! An ACL user of Sentinel needs `+auth +client|setname +sentinel|get-master-addr-by-name +sentinel|master`, from Redis
//! 7.2 on also `+client|setinfo`, and nothing else.

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
    async fn ask(&self, grace: Duration) -> Result<Endpoint, String> {
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

/// What the Sentinel says that knows of the latest failover.
fn newest(said: Vec<Said>) -> Option<Endpoint> {
    said.into_iter().max_by_key(|one| one.epoch).map(|one| one.at)
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
        let mut asked = Pipeline::with_capacity(2);
        asked.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        asked.cmd("SENTINEL").arg("MASTER").arg(master);
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

fn said(answers: &[Value]) -> Option<Said> {
    let [Value::Array(address), Value::Array(facts)] = answers else {
        return None;
    };
    let [host, port] = address.as_slice() else {
        return None;
    };
    let at = Endpoint::new(text(host)?, text(port)?.parse().ok()?);
    let mut names = facts.chunks(2);
    let epoch = names.find_map(|fact| match fact {
        [name, value] if text(name) == Some("config-epoch") => text(value)?.parse().ok(),
        _ => None,
    });
    Some(Said {
        epoch: epoch.unwrap_or(0),
        at,
    })
}

#[async_trait]
impl Find for Sentinels {
    async fn master(&self) -> Result<Endpoint, String> {
        // The one that led a failover knows of it before the others do: it is not passed over for being slow.
        self.ask(self.dial.response_timeout).await
    }

    async fn confirm(&self, used: &Endpoint) -> Result<(), String> {
        // Sentinels that cannot be reached take nothing away from a master that says it is one.
        match self.ask(GRACE).await {
            Ok(newest) if newest != *used => Err(format!("the Sentinels name another master, {newest}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Said, newest};

    #[test]
    fn the_newest_answer_counts() {
        let said = |epoch, host: &str| Said {
            epoch,
            at: Endpoint::new(host, 1),
        };
        let all = vec![said(1, "old"), said(2, "new"), said(1, "old")];
        assert_eq!(newest(all), Some(Endpoint::new("new", 1)));
        assert_eq!(newest(Vec::new()), None);
    }
}
