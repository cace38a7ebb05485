//! The tasks beside the listeners: one poller per IdP, the outbox, the sweeper, the first import.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::domain::subject::UpstreamId;
use crate::flow::hook::Wakes;
use crate::flow::{Flow, deliver, heads, import, mend, poll, rebuild, reconcile, room, sweep};

/// How often the workers look.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Between two polls of each IdP.
    pub poll: BTreeMap<UpstreamId, Duration>,
    /// Between two looks at what is due.
    pub sweep: Duration,
    /// Between two comparisons of each IdP's accounts with what is known.
    pub reconcile: BTreeMap<UpstreamId, Duration>,
    /// File in which this process keeps what it saw of the store's fences.
    pub witness: Option<PathBuf>,
}

/// Starts every worker. They end by themselves when `stop` is cancelled, each after the step it is in.
pub fn start(
    flow: &Arc<Flow>,
    pace: &Pace,
    report: &poll::Report,
    wakes: &Arc<Wakes>,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let owner: Arc<str> = flow.random::<12>().into();
    let mut tasks = JoinSet::new();
    for (upstream, interval) in &pace.poll {
        let (flow, upstream, interval) = (Arc::clone(flow), upstream.clone(), *interval);
        let (owner, report, stop) = (Arc::clone(&owner), Arc::clone(report), stop.clone());
        let wakes = Arc::clone(wakes);
        tasks.spawn(async move {
            poll::run(&flow, &upstream, interval, &owner, (&report, &wakes), &stop).await;
        });
    }
    for upstream in pace.poll.keys() {
        let (flow, upstream, stop) = (Arc::clone(flow), upstream.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = import_all(&flow, &upstream) => {}
                () = stop.cancelled() => {}
            }
        });
    }
    for (upstream, interval) in &pace.reconcile {
        let (flow, upstream, interval) = (Arc::clone(flow), upstream.clone(), *interval);
        let (owner, stop) = (Arc::clone(&owner), stop.clone());
        tasks.spawn(async move { reconcile::run(&flow, &upstream, interval, &owner, &stop).await });
    }
    let (store, token, name) = (Arc::clone(flow), stop.clone(), Arc::clone(&owner));
    let keep = pace.witness.clone().map(|path| witness(flow, path));
    tasks.spawn(async move { rebuild::run(&store, &name, keep.as_ref(), &token).await });
    let (altered, token) = (Arc::clone(flow), stop.clone());
    tasks.spawn(async move { mend::run(&altered, &token).await });
    let (watched, token) = (Arc::clone(flow), stop.clone());
    tasks.spawn(async move { room::run(&watched, &token).await });
    let (audited, token, name) = (Arc::clone(flow), stop.clone(), Arc::clone(&owner));
    tasks.spawn(async move { heads::run(&audited, &name, &token).await });
    let (outbox, token, name) = (Arc::clone(flow), stop.clone(), Arc::clone(&owner));
    tasks.spawn(async move { deliver::run(&outbox, &name, &token).await });
    let (counted, token) = (Arc::clone(flow), stop.clone());
    tasks.spawn(async move { deliver::gauge::run(&counted, &token).await });
    let (sweeper, token, pause) = (Arc::clone(flow), stop.clone(), pace.sweep);
    tasks.spawn(async move { sweep::run(&sweeper, pause, &token).await });
    tasks
}

/// Imports snapshots until it succeeds once.
async fn import_all(flow: &Flow, upstream: &UpstreamId) {
    let said = |n: u32| tracing::info!(%upstream, accounts = n, "importing contacts and factors");
    let mut pause = Duration::from_secs(1);
    loop {
        match import::run(flow, upstream, &said).await {
            Ok(count) => {
                tracing::info!(%upstream, new = count, "contacts and factors of every account are known");
                return;
            }
            Err(error) => tracing::warn!(%upstream, %error, "the import is tried again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_mins(1));
    }
}

/// Tells the store what a process before this one saw of it, and gives what keeps it for the next one.
fn witness(flow: &Flow, path: PathBuf) -> rebuild::Keep {
    match std::fs::read_to_string(&path) {
        Ok(line) => flow.store.remember(&line),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "store.witness_file cannot be read: a store that went back in time before this start goes unnoticed");
        }
    }
    Arc::new(move |line: &str| {
        if let Err(error) = replace(&path, line) {
            tracing::error!(path = %path.display(), %error, "store.witness_file cannot be written");
        }
    })
}

/// Wholly or not at all.
fn replace(path: &Path, line: &str) -> std::io::Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, format!("{line}\n"))?;
    std::fs::rename(next, path)
}
