//! A Redis Cluster: a kept connection to each master, and a map from slots to masters.
//!
//! The client's own cluster connection retries and queues by itself, and cannot say on which connection a `WAIT`
//! travels; so the map is kept here, and each master has the same [`Node`] as a plain server, with its deadlines and
//! its watch over roles. Replicas are never read from. `MOVED` renews the map and follows; `ASK` is followed for
//! exactly those commands of a round trip that got it, since what is still at the old place must be read there.
//! While a slot is on its way from one master to another, a script that names a key that is nowhere yet is refused
//! by both ends (`TRYAGAIN`): writes to it fail until the move is done, and nothing is half done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Way;
use super::dial::{Dial, Endpoint};
use super::fault::is_redirection;
use super::map::{View, best};
use super::node::{Fixed, Node};
use super::slot::Slot;
use crate::config::store::Durability;
use crate::ports::store::StoreError;

/// How often the map is asked for when nothing asks for it.
const PERIOD: Duration = Duration::from_secs(1);
/// The least time between two readings of the map.
const LEAST: Duration = Duration::from_millis(50);
/// How often a command is sent after a redirection.
const REDIRECTIONS: u32 = 4;

/// The masters and who has which slot.
#[derive(Default)]
struct Map {
    nodes: BTreeMap<Endpoint, Arc<Node>>,
    /// First and last slot, and whose they are; by the first slot.
    slots: Vec<(u16, u16, Endpoint)>,
}

impl Map {
    fn owner(&self, slot: Slot) -> Option<&Arc<Node>> {
        let upto = self.slots.partition_point(|(first, _, _)| *first <= slot.0);
        let (_, last, at) = self.slots.get(upto.checked_sub(1)?)?;
        if *last < slot.0 {
            return None;
        }
        self.nodes.get(at)
    }
}

struct Shared {
    dial: Arc<Dial>,
    pulse: Duration,
    durability: Durability,
    map: ArcSwap<Map>,
    /// Everybody who was ever named, to ask when no master answers.
    known: Mutex<BTreeSet<Endpoint>>,
    /// When the map was last asked for; held while it is.
    asked: Mutex<Option<Instant>>,
    stale: Notify,
    why: ArcSwap<String>,
}

/// A cluster.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    pilot: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.pilot.abort();
    }
}

impl Cluster {
    /// Starts with these nodes.
    pub(super) fn start(
        seeds: Vec<Endpoint>,
        dial: &Arc<Dial>,
        pulse: Duration,
        durability: Durability,
    ) -> Self {
        let shared = Arc::new(Shared {
            dial: Arc::clone(dial),
            pulse,
            durability,
            map: ArcSwap::default(),
            known: Mutex::new(seeds.into_iter().collect()),
            asked: Mutex::default(),
            stale: Notify::new(),
            why: ArcSwap::from_pointee("not connected yet".to_owned()),
        });
        let pilot = tokio::spawn(steer(Arc::clone(&shared)));
        Self { shared, pilot }
    }

    /// Waits for a map and its masters, at most `patience`.
    pub(super) async fn settle(&self, patience: Duration) {
        let _ = timeout(patience, async {
            while self.shared.map.load().slots.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// The connected masters.
    pub(super) fn masters(&self) -> Vec<Arc<Node>> {
        self.shared.map.load().nodes.values().cloned().collect()
    }

    /// The master of a slot.
    pub(super) fn owner(&self, slot: Slot) -> Result<Arc<Node>, StoreError> {
        let map = self.shared.map.load();
        map.owner(slot).cloned().ok_or_else(|| {
            self.shared.stale.notify_one();
            let why = self.shared.why.load();
            StoreError::Unavailable(format!("nobody in the Redis Cluster has slot {}: {why}", slot.0))
        })
    }

    /// Sends commands of one slot in one round trip, and follows where it went.
    pub(super) async fn exchange(
        &self,
        slot: Slot,
        pipeline: &Pipeline,
        way: Way,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let mut last = Vec::new();
        for attempt in 0..REDIRECTIONS {
            if attempt > 0 {
                self.shared.renew().await;
            }
            let node = self.owner(slot)?;
            let mut answers = self.send(&node, pipeline, way).await?;
            self.follow(pipeline, &mut answers, way).await?;
            if !answers
                .iter()
                .filter_map(|a| a.as_ref().err())
                .any(is_redirection)
            {
                return Ok(answers);
            }
            last = answers;
        }
        Ok(last)
    }

    async fn send(
        &self,
        node: &Node,
        pipeline: &Pipeline,
        way: Way,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let sent = match way {
            Way::Shared => node.exchange(pipeline).await,
            Way::Durable => node.durable(pipeline).await,
        };
        // A master that is away may have a successor already.
        sent.inspect_err(|_| self.shared.stale.notify_one())
    }

    /// Sends to its new place what was answered `ASK`, and nothing else.
    async fn follow(
        &self,
        pipeline: &Pipeline,
        answers: &mut [RedisResult<Value>],
        way: Way,
    ) -> Result<(), StoreError> {
        for (command, answer) in pipeline.cmd_iter().zip(answers.iter_mut()) {
            let Some(at) = answer.as_ref().err().and_then(asked_elsewhere) else {
                continue;
            };
            let node = self.shared.node(&at).await;
            let mut asking = Pipeline::with_capacity(2);
            asking.cmd("ASKING").add_command(command.clone());
            let mut second = self.send(&node, &asking, way).await?;
            if let Some(there) = second.pop() {
                *answer = there;
            }
        }
        Ok(())
    }

    /// Sends each command to the master of its slot: one round trip to each master, all at the same time.
    pub(super) async fn each(&self, asked: &[(Slot, Cmd)]) -> Vec<Result<Value, StoreError>> {
        let mut shares: BTreeMap<Option<Endpoint>, Vec<usize>> = BTreeMap::new();
        {
            let map = self.shared.map.load();
            for (index, (slot, _)) in asked.iter().enumerate() {
                let at = map.owner(*slot).and_then(|node| node.endpoint());
                shares.entry(at).or_default().push(index);
            }
        }
        let shares = shares.into_values().map(|share| self.share(asked, share));
        let mut found: Vec<(usize, Result<Value, StoreError>)> =
            join_all(shares).await.into_iter().flatten().collect();
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, answer)| answer).collect()
    }

    /// One master's share of many commands.
    async fn share(
        &self,
        asked: &[(Slot, Cmd)],
        share: Vec<usize>,
    ) -> Vec<(usize, Result<Value, StoreError>)> {
        let mut pipeline = Pipeline::with_capacity(share.len());
        let mut first = None;
        for (slot, command) in share.iter().filter_map(|i| asked.get(*i)) {
            pipeline.add_command(command.clone());
            first.get_or_insert(*slot);
        }
        let sent = match first.map(|slot| self.owner(slot)) {
            Some(Ok(node)) => self.send(&node, &pipeline, Way::Shared).await,
            Some(Err(fault)) => Err(fault),
            None => Ok(Vec::new()),
        };
        let answers = match sent {
            Ok(answers) => answers,
            Err(fault) => {
                let why = super::why(fault);
                let gone = |index| (index, Err(StoreError::Unavailable(why.clone())));
                return share.into_iter().map(gone).collect();
            }
        };
        let mut found = Vec::with_capacity(share.len());
        for (index, answer) in share.into_iter().zip(answers) {
            let answer = match (answer, asked.get(index)) {
                (Err(error), Some((slot, command))) if is_redirection(&error) => {
                    self.again(*slot, command).await
                }
                (answer, _) => answer.map_err(|e| super::fault::judge(&e).0),
            };
            found.push((index, answer));
        }
        found
    }

    async fn again(&self, slot: Slot, command: &Cmd) -> Result<Value, StoreError> {
        let mut alone = Pipeline::with_capacity(1);
        alone.add_command(command.clone());
        let mut answers = self.exchange(slot, &alone, Way::Shared).await?;
        let answer = answers.pop().unwrap_or(Ok(Value::Nil));
        answer.map_err(|e| super::fault::judge(&e).0)
    }
}

/// Where an `ASK` points to.
fn asked_elsewhere(error: &redis::RedisError) -> Option<Endpoint> {
    let ask = redis::ErrorKind::Server(redis::ServerErrorKind::Ask);
    if error.kind() != ask {
        return None;
    }
    Endpoint::parse(error.redirect_node()?.0)
}

impl Shared {
    /// The kept connection to a node, made when there is none yet.
    async fn node(&self, at: &Endpoint) -> Arc<Node> {
        if let Some(node) = self.map.load().nodes.get(at) {
            return Arc::clone(node);
        }
        let fresh = Node::start(Fixed(at.clone()), &self.dial, self.pulse, self.durability);
        fresh.settle(self.dial.connect_timeout).await;
        let fresh = Arc::new(fresh);
        self.map.rcu(|map| Map {
            nodes: map
                .nodes
                .clone()
                .into_iter()
                .chain([(at.clone(), Arc::clone(&fresh))])
                .collect(),
            slots: map.slots.clone(),
        });
        fresh
    }

    /// Asks for the map, unless somebody just did.
    async fn renew(&self) {
        let mut asked = self.asked.lock().await;
        if let Some(at) = *asked {
            // What is new needs a moment to get around.
            let since = at.elapsed();
            if since < LEAST {
                tokio::time::sleep(LEAST.saturating_sub(since)).await;
            }
        }
        match self.view().await {
            Ok(view) => self.adopt(view).await,
            Err(why) => self.why.store(Arc::new(why)),
        }
        *asked = Some(Instant::now());
    }

    /// The newest view of those that answer: the masters in use, or else anybody who was ever named.
    async fn view(&self) -> Result<View, String> {
        let map = self.map.load_full();
        let views = join_all(map.nodes.iter().map(|(at, node)| async move {
            let answers = node
                .exchange(&View::question())
                .await
                .map_err(|e| e.to_string())?;
            View::read(at, answers)
        }));
        match best(views.await) {
            Ok(view) => return Ok(view),
            Err(why) if map.nodes.is_empty() => drop(why),
            Err(why) => tracing::debug!(why, "no master of the Redis Cluster tells the map"),
        }
        let known: Vec<Endpoint> = self.known.lock().await.iter().cloned().collect();
        let views = join_all(known.iter().map(|at| async move {
            let told = |e: redis::RedisError| format!("{at}: {e}");
            let connection = self.dial.open(at, Duration::ZERO).await.map_err(told)?;
            let answers = connection.send(&View::question()).await.map_err(told)?;
            View::read(at, answers)
        }));
        best(views.await)
    }

    /// Takes a view over: connects to masters that are new, and lets those go that are none any more.
    async fn adopt(&self, view: View) {
        let old = self.map.load_full();
        let masters: BTreeSet<&Endpoint> = view.slots.iter().map(|(_, _, at)| at).collect();
        let fresh: Vec<Node> = masters
            .iter()
            .filter(|at| !old.nodes.contains_key(**at))
            .map(|at| Node::start(Fixed((*at).clone()), &self.dial, self.pulse, self.durability))
            .collect();
        join_all(fresh.iter().map(|node| node.settle(self.dial.connect_timeout))).await;
        let fresh_at = masters.iter().filter(|at| !old.nodes.contains_key(**at));
        let fresh = fresh_at
            .map(|at| (*at).clone())
            .zip(fresh.into_iter().map(Arc::new))
            .collect::<BTreeMap<_, _>>();
        let kept = old.nodes.iter().filter(|(at, _)| masters.contains(at));
        let kept = kept.map(|(at, node)| (at.clone(), Arc::clone(node)));
        let nodes: BTreeMap<Endpoint, Arc<Node>> = kept.chain(fresh).collect();
        if !old.slots.is_empty() && old.slots != view.slots {
            metrics::counter!("reentry_store_failovers_total").increment(1);
            tracing::warn!(
                masters = nodes.len(),
                "slots of the Redis Cluster have other masters"
            );
        }
        self.known.lock().await.extend(view.all);
        self.map.store(Arc::new(Map {
            nodes,
            slots: view.slots,
        }));
    }
}

/// Keeps the map fresh.
async fn steer(shared: Arc<Shared>) {
    loop {
        shared.renew().await;
        let _ = timeout(PERIOD, shared.stale.notified()).await;
    }
}
