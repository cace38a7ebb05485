//! A Redis Cluster of three masters, with a replica for each where wanted.

use std::time::{Duration, Instant};

use super::{Options, Redis};
use crate::{clock, free_port};

/// How many masters there are.
pub const MASTERS: usize = 3;

/// The cluster; it ends with this value.
#[derive(Debug)]
pub struct Cluster {
    /// The first three are the masters at first; what follows are their replicas in the same order.
    pub nodes: Vec<Redis>,
    buses: Vec<u16>,
}

impl Cluster {
    /// Three masters.
    pub fn start() -> Self {
        Self::with(0, Options::default)
    }

    /// Three masters with a replica each.
    pub fn with_replicas() -> Self {
        Self::with(1, Options::default)
    }

    /// Three masters, guarded: see [`Options::guarded`].
    pub fn guarded() -> Self {
        let options = || {
            let options = Options::default().guarded();
            options.arg("--tls-cluster").arg("yes")
        };
        Self::with(0, options)
    }

    fn with(replicas: usize, options: fn() -> Options) -> Self {
        let count = MASTERS * (1 + replicas);
        let buses: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let node = |bus: &u16| {
            options()
                .append_only("always")
                .arg("--cluster-enabled")
                .arg("yes")
                .arg("--cluster-port")
                .arg(&bus.to_string())
                .arg("--cluster-node-timeout")
                .arg("2000")
                // One master that is away takes its own slots along, and no others.
                .arg("--cluster-require-full-coverage")
                .arg("no")
                .arg("--cluster-replica-validity-factor")
                .arg("0")
                .arg("--repl-diskless-sync-delay")
                .arg("0")
                .start()
        };
        let nodes: Vec<Redis> = buses.iter().map(node).collect();
        let cluster = Self { nodes, buses };
        cluster.join(replicas);
        cluster
    }

    fn join(&self, replicas: usize) {
        const LAST: usize = 16383;
        let first = &self.nodes[0];
        for (index, node) in self.nodes.iter().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index < MASTERS {
                let from = (LAST + 1) * index / MASTERS;
                let to = (LAST + 1) * (index + 1) / MASTERS - 1;
                node.cli(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
            }
            if index > 0 {
                let (port, bus) = (node.served_port().to_string(), self.buses[index].to_string());
                first.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
            }
        }
        self.wait("know each other", |node| {
            node.cli(&["CLUSTER", "NODES"]).lines().count() == self.nodes.len()
                && !node.cli(&["CLUSTER", "NODES"]).contains("handshake")
        });
        if replicas > 0 {
            for (index, node) in self.nodes.iter().enumerate().skip(MASTERS) {
                let master = self.nodes[index % MASTERS].cli(&["CLUSTER", "MYID"]);
                node.cli(&["CLUSTER", "REPLICATE", &master]);
            }
        }
        self.settle();
    }

    /// Waits until every node that runs says that the cluster is well and all slots are served, and every replica is
    /// in step.
    pub fn settle(&self) {
        self.wait("are well", |node| {
            let info = node.try_cli(&["CLUSTER", "INFO"]).unwrap_or_default();
            let replication = node.try_cli(&["INFO", "replication"]).unwrap_or_default();
            info.contains("cluster_state:ok")
                && info.contains("cluster_slots_ok:16384")
                && (replication.contains("role:master") || replication.contains("master_link_status:up"))
        });
        let replicas = self.nodes.len() - MASTERS;
        if replicas > 0 {
            let start = Instant::now();
            loop {
                let online = |n: &Redis| {
                    let info = n.try_cli(&["INFO", "replication"]).unwrap_or_default();
                    info.lines().filter(|l| l.contains("state=online")).count()
                };
                let running = self.nodes.iter().filter(|n| n.is_running());
                let online: usize = running.clone().map(online).sum();
                if online + MASTERS == running.count() {
                    return;
                }
                assert!(
                    start.elapsed() < Duration::from_secs(60),
                    "replicas do not get in step"
                );
                clock::pause(Duration::from_millis(50));
            }
        }
    }

    fn wait(&self, what: &str, is: impl Fn(&Redis) -> bool) {
        let start = Instant::now();
        while !self.nodes.iter().filter(|n| n.is_running()).all(&is) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the nodes of the cluster do not {what}:\n{}",
                self.nodes[0].try_cli(&["CLUSTER", "NODES"]).unwrap_or_default()
            );
            clock::pause(Duration::from_millis(50));
        }
    }

    /// `redis+cluster://127.0.0.1:PORT,...`: all nodes of the beginning.
    pub fn url(&self) -> String {
        let at: Vec<String> = self.nodes.iter().map(|n| n.address().to_string()).collect();
        format!("redis+cluster://{}", at.join(","))
    }

    /// The same by TLS, as `user`.
    pub fn tls_url(&self, user: &str) -> String {
        let at = self
            .nodes
            .iter()
            .map(|n| format!("127.0.0.1:{}", n.served_port()));
        format!("rediss+cluster://{user}@{}", at.collect::<Vec<_>>().join(","))
    }

    /// The nodes that are masters now.
    pub fn masters(&self) -> Vec<usize> {
        let is_master = |n: &Redis| n.try_cli(&["ROLE"]).is_ok_and(|role| role.starts_with("master"));
        (0..self.nodes.len())
            .filter(|i| self.nodes[*i].is_running() && is_master(&self.nodes[*i]))
            .collect()
    }

    /// The master that has the slot of `key`.
    pub fn owner(&self, key: &str) -> usize {
        let masters = self.masters();
        let slot = self.nodes[masters[0]].cli(&["CLUSTER", "KEYSLOT", key]);
        let owner = masters.into_iter().find(|i| {
            let counted = self.nodes[*i].try_cli(&["CLUSTER", "NODES"]).unwrap_or_default();
            let own = counted.lines().find(|l| l.contains("myself"));
            own.is_some_and(|line| {
                let slot: u16 = slot.parse().expect("a slot");
                line.split_whitespace().skip(8).any(|range| {
                    let (from, to) = range.split_once('-').unwrap_or((range, range));
                    let bounds = from.parse::<u16>().ok().zip(to.parse::<u16>().ok());
                    bounds.is_some_and(|(from, to)| (from..=to).contains(&slot))
                })
            })
        });
        owner.expect("a master of the slot")
    }

    /// Removes everything that is stored.
    pub fn flush(&self) {
        for index in self.masters() {
            self.nodes[index].cli(&["FLUSHALL"]);
        }
    }

    /// Kills every node at once and starts them again with what they left on disk.
    pub fn crash(&mut self) {
        for node in &mut self.nodes {
            node.kill9();
        }
        for node in &mut self.nodes {
            node.restart();
        }
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::{Cluster, MASTERS};

    #[test]
    fn three_masters_share_the_slots_and_keep_what_they_have_over_a_crash() {
        let mut cluster = Cluster::start();
        assert_eq!(cluster.masters().len(), MASTERS);
        let owner = cluster.owner("k");
        assert_eq!(cluster.nodes[owner].cli(&["SET", "k", "v"]), "OK");
        cluster.crash();
        assert_eq!(cluster.nodes[owner].cli(&["GET", "k"]), "v");
    }
}
