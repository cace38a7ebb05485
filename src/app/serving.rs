//! The life of the sidecar: listeners up, workers beside them, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::listener::{self, Bounds};
use crate::app::workers::{self, Pace, Watch};
use crate::domain::wording::Wording;
use crate::flow::Flow;
use crate::flow::poll;
use crate::http;
use crate::http::context::Context;
use crate::http::pages::{Brand, Pages};
use crate::oidc::Broker;
use crate::ports::store::Room;

/// What runs.
pub struct Serving {
    /// The handlers' context.
    pub context: Context,
    /// The public listener.
    pub public: TcpListener,
    /// The operations listener.
    pub operations: TcpListener,
    /// How often the workers look.
    pub pace: Pace,
    /// How long requests under way may take after the signal to stop, and workers after that.
    pub drain: Duration,
    /// Bounds of the public listener.
    pub bounds: Bounds,
}

/// Serves until `stop` is cancelled: then accepts nothing new, lets requests under way end, and stops the workers
/// after the step each is in.
///
/// # Errors
/// None at present: a connection that fails is no error.
pub async fn run(serving: Serving, stop: CancellationToken) -> anyhow::Result<()> {
    let Serving {
        context,
        public,
        operations,
        pace,
        drain,
        bounds,
    } = serving;
    let readiness = Arc::clone(&context.readiness);
    let report: poll::Report = Arc::new(move |upstream, standing| readiness.polled(upstream, standing));
    let watch = watch(&context);
    let (seen, token) = (context.clone(), stop.clone());
    let mut tasks = workers::start(&context.flow, &pace, &report, &context.wakes, &watch, &stop);
    let store = workers::supervised("store".to_owned(), watch, stop.clone(), move || {
        watch_store(seen.clone(), token.clone())
    });
    tasks.spawn(store);
    let (outer, inner) = (http::public(context.clone()), http::operations(context));
    let ends = async {
        tokio::join!(
            listener::serve(public, outer, bounds.within_files(), stop.clone()),
            // Probes and metrics answer until the very end, however crowded the other listener is.
            listener::serve(operations, inner, Bounds::few(), stop.clone()),
        )
    };
    let deadline = async {
        stop.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        _ = ends => {}
        () = deadline => tracing::warn!("requests were still under way at the end of the drain"),
    }
    stop.cancel();
    let rest = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, rest).await.is_err() {
        tracing::warn!("a worker did not stop in time; what it was doing comes again at the next start");
    }
    Ok(())
}

/// Lets `/ready` say how the workers stand.
#[must_use]
pub fn watch(context: &Context) -> Watch {
    let readiness = Arc::clone(&context.readiness);
    Arc::new(move |name, fault| readiness.worker(name, fault))
}

/// Asks the store how it stands, for readiness and for the log: often until it is sound, then now and then.
async fn watch_store(context: Context, stop: CancellationToken) {
    let mut said = None;
    while !stop.is_cancelled() {
        let fault = match context.flow.store.check().await {
            Ok(soundness) if soundness.restricted_partitions.is_empty() => None,
            Ok(soundness) => Some(format!(
                "{} of its partitions cannot be believed; {}",
                soundness.restricted_partitions.len(),
                soundness.faults.join("; ")
            )),
            Err(error) => Some(error.to_string()),
        };
        if fault != said {
            if let Some(fault) = &fault {
                tracing::error!(fault, "the store is not sound: tokens are restricted");
            } else {
                tracing::info!("the store is sound");
            }
            said.clone_from(&fault);
        }
        let pause = if fault.is_some() {
            Duration::from_millis(500)
        } else {
            Duration::from_secs(30)
        };
        context.readiness.store(fault);
        let room = context.flow.store.room().await.ok().flatten();
        context.readiness.room(
            room.filter(Room::is_tight)
                .map(|room| format!("{} % of its room is used: log-ins are refused", room.percent())),
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The handlers' context over the wired use cases, with the deployment's look and words.
///
/// # Errors
/// When the pages' templates do not compile.
pub fn context(flow: Arc<Flow>, broker: Broker, brand: Brand, wording: Wording) -> anyhow::Result<Context> {
    let pages = Pages::new(brand, wording, broker.settings.base_path())?;
    Ok(Context::new(flow, Arc::new(broker), Arc::new(pages)))
}
