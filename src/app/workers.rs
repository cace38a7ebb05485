//! The tasks beside the listeners: one poller per IdP, the outbox, the sweeper, reconciling (which takes the first
//! snapshots).
//!
//! Each is watched: one that panics, or ends before the program does, is started again after a pause, and that is logged,
//! counted, and said by `/ready`. Nothing it was doing is lost by it, because every step is stored before it counts.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::private;
use crate::domain::subject::UpstreamId;
use crate::flow::hook::Wakes;
use crate::flow::{Flow, deliver, heads, mend, poll, rebuild, reconcile, room, sweep};

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

/// Told how a worker stands: what went wrong with it, until it has run for a while again.
pub type Watch = Arc<dyn Fn(&str, Option<String>) + Send + Sync>;

/// How a worker that stopped is started again.
#[derive(Clone, Copy, Debug)]
struct Restarts {
    /// Between its end and its next start, the first time; twice as long every further time.
    first: Duration,
    /// The longest such pause.
    longest: Duration,
    /// One that has run for so long is well again.
    well: Duration,
}

const RESTARTS: Restarts = Restarts {
    first: Duration::from_secs(1),
    longest: Duration::from_mins(1),
    well: Duration::from_mins(1),
};

/// Runs what `make` gives, and again whenever that panics, or ends too early.
pub async fn supervised<F, R>(name: String, watch: Watch, stop: CancellationToken, make: F)
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let watch = |fault: Option<String>| watch(&name, fault);
    restarted(&name, &watch, &stop, &make, RESTARTS).await;
}

async fn restarted<R: Future<Output = ()>>(
    name: &str,
    watch: &(dyn Fn(Option<String>) + Sync),
    stop: &CancellationToken,
    make: &(dyn Fn() -> R + Sync),
    how: Restarts,
) {
    let (mut pause, mut restarts) = (how.first, 0_u32);
    loop {
        let began = Instant::now();
        let mut running = std::pin::pin!(AssertUnwindSafe(make()).catch_unwind());
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = tokio::time::sleep(how.well), if restarts > 0 => {
                watch(None);
                running.await
            }
        };
        if stop.is_cancelled() {
            return;
        }
        let why = match ended {
            Ok(()) => "it ended by itself".to_owned(),
            Err(panic) => format!("it panicked: {}", words_of(panic.as_ref())),
        };
        restarts += 1;
        metrics::counter!("reentry_worker_restarts_total", "worker" => name.to_owned()).increment(1);
        tracing::error!(
            worker = name,
            why,
            restarts,
            "a worker stopped; it is started again"
        );
        watch(Some(format!("{why}; it is started again")));
        if began.elapsed() >= how.well {
            pause = how.first;
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
        pause = (pause * 2).min(how.longest);
    }
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a word")
}

/// Starts every worker. They end by themselves when `stop` is cancelled, each after the step it is in.
pub fn start(
    flow: &Arc<Flow>,
    pace: &Pace,
    report: &poll::Report,
    wakes: &Arc<Wakes>,
    watch: &Watch,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let owner: Arc<str> = flow.random::<12>().into();
    let crew = Crew {
        flow: Arc::clone(flow),
        owner,
        watch: Arc::clone(watch),
        stop: stop.clone(),
    };
    let mut tasks = JoinSet::new();
    for (upstream, interval) in &pace.poll {
        crew.poller(&mut tasks, upstream, *interval, report, wakes);
    }
    for (upstream, interval) in &pace.reconcile {
        let (upstream, interval) = (upstream.clone(), *interval);
        crew.hire(&mut tasks, format!("reconcile {upstream}"), move |c| {
            let upstream = upstream.clone();
            async move { Box::pin(reconcile::run(&c.flow, &upstream, interval, &c.owner, &c.stop)).await }
        });
    }
    let keep = pace.witness.clone().map(|path| witness(flow, path));
    crew.hire(&mut tasks, "rebuild".to_owned(), move |c| {
        let keep = keep.clone();
        async move { rebuild::run(&c.flow, &c.owner, keep.as_ref(), &c.stop).await }
    });
    crew.hire(&mut tasks, "mend".to_owned(), |c| async move {
        mend::run(&c.flow, &c.stop).await;
    });
    crew.hire(&mut tasks, "room".to_owned(), |c| async move {
        room::run(&c.flow, &c.stop).await;
    });
    crew.hire(&mut tasks, "heads".to_owned(), |c| async move {
        heads::run(&c.flow, &c.owner, &c.stop).await;
    });
    crew.hire(&mut tasks, "deliver".to_owned(), |c| async move {
        deliver::run(&c.flow, &c.owner, &c.stop).await;
    });
    crew.hire(&mut tasks, "gauge".to_owned(), |c| async move {
        let watch = |fault| (c.watch)("outbox", fault);
        deliver::gauge::run(&c.flow, &watch, &c.stop).await;
    });
    let pause = pace.sweep;
    crew.hire(&mut tasks, "sweep".to_owned(), move |c| async move {
        sweep::run(&c.flow, pause, &c.stop).await;
    });
    tasks
}

/// What every worker has.
#[derive(Clone)]
struct Crew {
    flow: Arc<Flow>,
    owner: Arc<str>,
    watch: Watch,
    stop: CancellationToken,
}

impl Crew {
    fn hire<F, R>(&self, tasks: &mut JoinSet<()>, name: String, work: F)
    where
        F: Fn(Self) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let crew = self.clone();
        let (watch, stop) = (Arc::clone(&self.watch), self.stop.clone());
        tasks.spawn(supervised(name, watch, stop, move || work(crew.clone())));
    }

    fn poller(
        &self,
        tasks: &mut JoinSet<()>,
        upstream: &UpstreamId,
        interval: Duration,
        report: &poll::Report,
        wakes: &Arc<Wakes>,
    ) {
        let (upstream, report, wakes) = (upstream.clone(), Arc::clone(report), Arc::clone(wakes));
        self.hire(tasks, format!("poll {upstream}"), move |c| {
            let (upstream, report, wakes) = (upstream.clone(), Arc::clone(&report), Arc::clone(&wakes));
            async move {
                poll::run(&c.flow, &upstream, interval, &c.owner, (&report, &wakes), &c.stop).await;
            }
        });
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
    let _ = std::fs::remove_file(&next);
    private::create(&next)?.write_all(format!("{line}\n").as_bytes())?;
    std::fs::rename(next, path)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SOON: Restarts = Restarts {
        first: Duration::from_millis(10),
        longest: Duration::from_millis(80),
        well: Duration::from_millis(200),
    };

    #[tokio::test]
    async fn a_worker_that_panics_or_ends_is_started_again_and_that_is_said() {
        let (stop, runs, heard) = (
            CancellationToken::new(),
            AtomicU32::new(0),
            Mutex::new(Vec::new()),
        );
        let watch = |fault: Option<String>| heard.lock().unwrap().push(fault);
        let make = || {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            let stop = stop.clone();
            async move {
                assert!(run != 0, "of the first run");
                if run > 1 {
                    stop.cancelled().await;
                }
            }
        };
        let worker = restarted("poll kc", &watch, &stop, &make, SOON);
        let ends = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.cancel();
        };
        tokio::join!(worker, ends);
        assert_eq!(
            runs.load(Ordering::SeqCst),
            3,
            "once by a panic, once because it ended"
        );
        let said = heard.lock().unwrap().clone();
        assert!(
            said[0]
                .as_ref()
                .unwrap()
                .contains("it panicked: of the first run"),
            "{said:?}"
        );
        assert!(
            said[1].as_ref().unwrap().contains("it ended by itself"),
            "{said:?}"
        );
        assert_eq!(said[2..], [None], "well again after a while");
    }

    #[tokio::test]
    async fn one_that_panics_for_ever_is_started_ever_more_slowly() {
        let (stop, runs) = (CancellationToken::new(), AtomicU32::new(0));
        let make = || {
            runs.fetch_add(1, Ordering::SeqCst);
            async { panic!("for ever") }
        };
        let worker = restarted("sweep", &|_| {}, &stop, &make, SOON);
        tokio::time::timeout(Duration::from_secs(1), worker)
            .await
            .unwrap_err();
        let runs = runs.load(Ordering::SeqCst);
        assert!((3..=16).contains(&runs), "{runs}");
    }
}
