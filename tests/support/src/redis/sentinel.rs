//! A master with two replicas, and three Sentinels that watch it.

use std::time::{Duration, Instant};

use super::{KEEPER, Options, Redis};
use crate::clock;

/// What the Sentinels call the master.
pub const NAME: &str = "mymaster";
/// How long a master must be silent before Sentinels replace it.
const DOWN_AFTER: Duration = Duration::from_secs(1);

/// The set; it ends with this value.
#[derive(Debug)]
pub struct SentinelSet {
    /// The servers, the first master first.
    pub nodes: Vec<Redis>,
    /// The Sentinels.
    pub sentinels: Vec<Redis>,
    /// How often another node took the master's place.
    pub failovers: u32,
}

impl SentinelSet {
    /// Starts everything and waits until the Sentinels know each other and both replicas are in step.
    pub fn start() -> Self {
        Self::with(Options::default)
    }

    /// The same, guarded: see [`Options::guarded`].
    pub fn guarded() -> Self {
        Self::with(|| Options::default().guarded())
    }

    fn with(options: fn() -> Options) -> Self {
        let server = || {
            options()
                .append_only("everysec")
                .arg("--repl-diskless-sync-delay")
                .arg("0")
        };
        let master = server().start();
        let port = master.served_port().to_string();
        let replica = || server().arg("--replicaof").arg("127.0.0.1").arg(&port).start();
        let nodes = vec![replica(), replica()];
        let passwords = if master.is_guarded() {
            format!("sentinel auth-pass {NAME} \"{KEEPER}\"\nsentinel sentinel-pass \"{KEEPER}\"\n")
        } else {
            String::new()
        };
        let lines = format!(
            "sentinel monitor {NAME} 127.0.0.1 {port} 2\n{passwords}\
             sentinel down-after-milliseconds {NAME} {}\n\
             sentinel failover-timeout {NAME} 4000\n\
             sentinel parallel-syncs {NAME} 2\n",
            DOWN_AFTER.as_millis()
        );
        let sentinels = (0..3).map(|_| options().sentinel(&lines).start()).collect();
        let set = Self {
            nodes: std::iter::once(master).chain(nodes).collect(),
            sentinels,
            failovers: 0,
        };
        set.settle();
        set
    }

    /// `redis+sentinel://127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT/mymaster/0`.
    pub fn url(&self) -> String {
        let at: Vec<String> = self.sentinels.iter().map(|s| s.address().to_string()).collect();
        format!("redis+sentinel://{}/{NAME}/0", at.join(","))
    }

    /// The same by TLS, as `user`.
    pub fn tls_url(&self, user: &str) -> String {
        let at = self
            .sentinels
            .iter()
            .map(|s| format!("127.0.0.1:{}", s.served_port()));
        format!(
            "rediss+sentinel://{user}@{}/{NAME}/0",
            at.collect::<Vec<_>>().join(",")
        )
    }

    /// Which of the nodes most Sentinels name as the master.
    pub fn master(&self) -> usize {
        let named: Vec<u16> = self
            .sentinels
            .iter()
            .filter(|s| s.is_running())
            .filter_map(|s| s.try_cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok())
            .filter_map(|told| told.lines().nth(1)?.parse().ok())
            .collect();
        let most = named
            .iter()
            .max_by_key(|port| named.iter().filter(|p| p == port).count());
        let port = most.expect("a Sentinel that names a master");
        let found = self.nodes.iter().position(|n| n.served_port() == *port);
        found.expect("the master is one of the nodes")
    }

    /// Waits until there is one master that all agree on, every other node that runs is its replica and in step,
    /// and the Sentinels would elect another.
    pub fn settle(&self) {
        let start = Instant::now();
        while !self.settled() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the Sentinels do not settle"
            );
            clock::pause(Duration::from_millis(50));
        }
    }

    fn settled(&self) -> bool {
        let running: Vec<&Redis> = self.nodes.iter().filter(|n| n.is_running()).collect();
        let Some(master) = running.iter().find(|n| {
            let port = n.served_port().to_string();
            let names = |s: &Redis| {
                let named = s.try_cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
                named.is_ok_and(|told| told.lines().nth(1) == Some(port.as_str()))
            };
            self.sentinels.iter().filter(|s| s.is_running()).all(names)
        }) else {
            return false;
        };
        let info = master.try_cli(&["INFO", "replication"]).unwrap_or_default();
        let online = info.lines().filter(|l| l.contains("state=online")).count();
        let wanted = running.len() - 1;
        let ready = |s: &&Redis| s.try_cli(&["SENTINEL", "CKQUORUM", NAME]).is_ok() && knows(s, wanted);
        info.contains("role:master")
            && online == wanted
            && self
                .sentinels
                .iter()
                .filter(|s| s.is_running())
                .all(|s| ready(&s))
    }

    /// Kills the master for good, and waits until another node is in its place.
    pub fn kill_master(&mut self) -> usize {
        let old = self.master();
        self.nodes[old].kill9();
        self.replaced(old);
        self.failovers += 1;
        old
    }

    /// Waits until another node than `old` is the master.
    pub fn replaced(&self, old: usize) {
        assert!(self.replaced_within(old, Duration::from_secs(60)), "no failover");
    }

    fn replaced_within(&self, old: usize, patience: Duration) -> bool {
        let start = Instant::now();
        loop {
            let now = self.master();
            // The old one may hang: it is never asked.
            let info = || self.nodes[now].try_cli(&["INFO", "replication"]);
            if now != old && info().is_ok_and(|info| info.contains("role:master")) {
                return true;
            }
            if start.elapsed() > patience {
                return false;
            }
            clock::pause(Duration::from_millis(50));
        }
    }

    /// Has the Sentinels put another node in the master's place while it lives, and waits for it. A Sentinel whose choice
    /// does not obey in time gives up, and has to be asked again.
    pub fn failover(&mut self) {
        let old = self.master();
        let start = Instant::now();
        let mut said = String::new();
        loop {
            assert!(start.elapsed() < Duration::from_secs(60), "no failover: {said}");
            match self.sentinels[0].try_cli(&["SENTINEL", "FAILOVER", NAME]) {
                Ok(_) if self.replaced_within(old, Duration::from_secs(10)) => break,
                Ok(told) | Err(told) => said = told,
            }
            clock::pause(Duration::from_millis(100));
        }
        self.failovers += 1;
    }

    /// Starts every node again that was killed, and waits until it is a replica in step.
    pub fn revive(&mut self) {
        let port = self.nodes[self.master()].served_port().to_string();
        for sentinel in self.sentinels.iter_mut().filter(|s| !s.is_running()) {
            sentinel.restart();
        }
        for node in self.nodes.iter_mut().filter(|n| !n.is_running()) {
            node.restart();
            // The Sentinels would do the same, after ten seconds.
            if node.served_port().to_string() != port {
                node.cli(&["REPLICAOF", "127.0.0.1", &port]);
            }
        }
        self.settle();
    }
}

/// Whether this Sentinel sees that many replicas that could be elected.
fn knows(sentinel: &Redis, replicas: usize) -> bool {
    let told = sentinel
        .try_cli(&["SENTINEL", "REPLICAS", NAME])
        .unwrap_or_default();
    let lines: Vec<&str> = told.lines().collect();
    let flags = lines.windows(2).filter(|w| w[0] == "flags" && w[1] == "slave");
    flags.count() >= replicas
}

#[cfg(test)]
mod tests {
    use super::SentinelSet;

    #[test]
    fn a_replica_takes_over_and_the_old_master_comes_back_as_one() {
        let mut set = SentinelSet::start();
        let old = set.master();
        assert_eq!(set.nodes[old].cli(&["SET", "k", "v"]), "OK");
        while set.nodes.iter().any(|n| n.cli(&["GET", "k"]) != "v") {
            crate::clock::pause(std::time::Duration::from_millis(10));
        }
        assert_eq!(set.kill_master(), old);
        let new = set.master();
        assert_ne!(new, old);
        assert_eq!(set.nodes[new].cli(&["GET", "k"]), "v");
        set.revive();
        assert!(
            set.nodes[old]
                .cli(&["INFO", "replication"])
                .contains("role:slave")
        );
    }
}
