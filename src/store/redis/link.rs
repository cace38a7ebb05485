//! The way to Redis, whatever it is: one server, a master under Sentinel, or a cluster.
//!
//! Every command says which slot it belongs to. Off a cluster that means nothing, and in a cluster it finds the
//! master; in either case a reading is one round trip to one node. See [`node`] for what holds of each connection.

mod cluster;
mod connection;
mod dial;
mod durable;
mod fault;
mod map;
mod node;
mod reckoned;
mod sentinel;
mod slot;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisResult, Value};

use self::cluster::Cluster;
pub(super) use self::dial::{Dial, Endpoint};
use self::fault::judge;
pub(super) use self::node::is_master;
use self::node::{Fixed, Node};
use self::sentinel::Sentinels;
pub(super) use self::slot::{Slot, of as slot_of};
use crate::config::store::url::{RedisUrl, Topology};
use crate::config::store::{Durability, Replicas};
use crate::ports::store::StoreError;

/// Why something is away, for those who shared the way.
fn why(fault: StoreError) -> String {
    match fault {
        StoreError::Unavailable(why) => why,
        other => other.to_string(),
    }
}

/// How a command travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// With all others.
    Shared,
    /// On a connection of its own, until it is as durable as configured.
    Durable,
}

/// The way to Redis.
pub(super) struct Link {
    to: To,
    /// What is waited for before a durable write is acknowledged.
    pub(super) durability: Durability,
    /// Whether Sentinels say where the server is.
    sentinel: bool,
}

enum To {
    One(Node),
    Many(Cluster),
}

impl Link {
    /// Starts to connect, and waits for the first connection at most `patience`. Without one it goes on trying.
    pub(super) async fn start(
        url: &RedisUrl,
        dial: Dial,
        sentinel: Dial,
        pulse: Duration,
        durability: Durability,
    ) -> Self {
        let patience = dial.connect_timeout;
        let dial = Arc::new(dial);
        let hosts: Vec<Endpoint> = url.hosts.iter().map(|(h, p)| Endpoint::new(h, *p)).collect();
        let to = match &url.topology {
            Topology::Cluster => To::Many(Cluster::start(hosts, &dial, pulse, durability)),
            Topology::Sentinel { master } => {
                let find = Sentinels::new(master, sentinel, hosts);
                To::One(Node::start(find, &dial, pulse, durability))
            }
            Topology::Plain => {
                let at = hosts.into_iter().next();
                let find = Fixed(at.unwrap_or_else(|| Endpoint::new("localhost", 6379)));
                To::One(Node::start(find, &dial, pulse, durability))
            }
        };
        match &to {
            To::One(node) => node.settle(patience).await,
            To::Many(cluster) => cluster.settle(patience).await,
        }
        Self {
            to,
            durability,
            sentinel: matches!(url.topology, Topology::Sentinel { .. }),
        }
    }

    /// Whether partitions are in different places, so that no command may name several.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.to, To::Many(_))
    }

    /// The number of the connection to one server. A new one has another, and may be to another server.
    pub(super) fn number(&self) -> Option<u64> {
        match &self.to {
            To::One(node) => node.number(),
            To::Many(_) => None,
        }
    }

    async fn exchange(
        &self,
        slot: Slot,
        pipeline: &Pipeline,
        way: Way,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        match (&self.to, way) {
            (To::One(node), Way::Shared) => node.exchange(pipeline).await,
            (To::One(node), Way::Durable) => node.durable(pipeline).await,
            (To::Many(cluster), way) => cluster.exchange(slot, pipeline, way).await,
        }
    }

    async fn single(&self, slot: Slot, command: Cmd, way: Way) -> Result<Value, StoreError> {
        let mut alone = Pipeline::with_capacity(1);
        alone.add_command(command);
        let mut answers = self.exchange(slot, &alone, way).await?;
        let answer = answers.pop().unwrap_or(Ok(Value::Nil));
        answer.map_err(|e| judge(&e).0)
    }

    /// Sends one command.
    pub(super) async fn one(&self, slot: Slot, command: Cmd) -> Result<Value, StoreError> {
        self.single(slot, command, Way::Shared).await
    }

    /// Sends one command, and comes back when what it wrote is as durable as configured.
    pub(super) async fn durable(&self, slot: Slot, command: Cmd) -> Result<Value, StoreError> {
        self.single(slot, command, Way::Durable).await
    }

    /// Sends several commands of one slot in one round trip; the first fault fails them all.
    pub(super) async fn together(&self, slot: Slot, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let answers = self.exchange(slot, pipeline, Way::Shared).await?;
        let judged = |a: RedisResult<Value>| a.map_err(|e| judge(&e).0);
        answers.into_iter().map(judged).collect()
    }

    /// Sends many commands, each to where its slot is; each has an answer of its own.
    pub(super) async fn each(&self, asked: Vec<(Slot, Cmd)>) -> Vec<Result<Value, StoreError>> {
        match &self.to {
            To::Many(cluster) => cluster.each(&asked).await,
            To::One(node) => {
                let many = asked.len();
                let mut pipeline = Pipeline::with_capacity(many);
                for (_, command) in asked {
                    pipeline.add_command(command);
                }
                match node.exchange(&pipeline).await {
                    Ok(answers) => {
                        let judged = |a: RedisResult<Value>| a.map_err(|e| judge(&e).0);
                        answers.into_iter().map(judged).collect()
                    }
                    Err(fault) => {
                        let why = why(fault);
                        let gone = |_| Err(StoreError::Unavailable(why.clone()));
                        (0..many).map(gone).collect()
                    }
                }
            }
        }
    }

    /// Whether a durable write has anything to wait for there.
    pub(super) fn waits(&self, slot: Slot) -> bool {
        match &self.to {
            To::One(node) => node.waits(),
            To::Many(cluster) => cluster.owner(slot).map_or(true, |node| node.waits()),
        }
    }

    /// The node said that it is no master: drop it.
    pub(super) fn demoted(&self, slot: Slot) -> StoreError {
        match &self.to {
            To::One(node) => node.demoted(),
            To::Many(cluster) => match cluster.owner(slot) {
                Ok(node) => node.demoted(),
                Err(fault) => fault,
            },
        }
    }

    /// What was found at the URL.
    pub(super) fn told(&self) -> String {
        let reached = match self.durability.replicas {
            Replicas::Just(0) => "the master has it".to_owned(),
            Replicas::Just(n) => format!("{n} replicas have it"),
            Replicas::All { at_least: 0 } => "all its replicas have it".to_owned(),
            Replicas::All { at_least } => {
                format!("all its replicas that are up, at least {at_least}, have it")
            }
        };
        let disk = if self.durability.fsync { ", on disk" } else { "" };
        let durability = format!("a write counts when {reached}{disk}");
        match &self.to {
            To::One(node) if self.sentinel => {
                let at = node.endpoint().map(|at| at.to_string()).unwrap_or_default();
                format!("the Sentinels name {at} as the master; {durability}")
            }
            To::One(_) => format!("one server; {durability}"),
            To::Many(cluster) => {
                format!(
                    "a Redis Cluster of {} masters; {durability}",
                    cluster.masters().len()
                )
            }
        }
    }

    /// Asks every master the same, and says where it is and how many replicas of it are reckoned with.
    pub(super) async fn masters(
        &self,
        pipeline: &Pipeline,
    ) -> Result<Vec<(String, u8, Vec<Value>)>, StoreError> {
        let several;
        let nodes: Vec<&Node> = match &self.to {
            To::One(node) => vec![node],
            To::Many(cluster) => {
                several = cluster.masters();
                several.iter().map(AsRef::as_ref).collect()
            }
        };
        if nodes.is_empty() {
            return Err(StoreError::Unavailable(
                "no node of the Redis Cluster can be reached".to_owned(),
            ));
        }
        let mut found = Vec::new();
        for node in nodes {
            let answers = node.exchange(pipeline).await?;
            let judged = |a: RedisResult<Value>| a.map_err(|e| judge(&e).0);
            let answers: Result<Vec<Value>, StoreError> = answers.into_iter().map(judged).collect();
            let at = node.endpoint().map(|at| at.to_string()).unwrap_or_default();
            found.push((at, node.replicas(), answers?));
        }
        Ok(found)
    }
}
