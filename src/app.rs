//! The only place that names concrete adapters: wiring, workers, life cycle.

pub mod assemble;
pub mod audit;
pub mod clock;
pub mod doctor;
pub mod farewell;
pub mod keys;
pub mod listener;
pub mod serving;
pub mod wire;
pub mod workers;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::clock::SystemClock;
use crate::app::listener::Bounds;
use crate::app::serving::Serving;
use crate::app::workers::supervised;
use crate::config::Config;
use crate::config::server::Server;
use crate::domain::policy::Policy;
use crate::domain::subject::UpstreamId;
use crate::flow::{Flow, inforce};
use crate::http::context::Context;
use crate::http::peer::Proxies;
use crate::oidc::settings::SecretHash;
use crate::ports::clock::Clock as _;
use crate::ports::store::Store;
use crate::store::seal::Keys;
use crate::telemetry::metric::Metrics;

/// How often measurements are folded into their buckets.
const FOLD: std::time::Duration = std::time::Duration::from_secs(5);
/// How often the keys directory is read again.
const RELOAD: std::time::Duration = std::time::Duration::from_mins(1);
/// How often a policy that waits is looked at.
const WAITING: std::time::Duration = std::time::Duration::from_secs(15);
/// The same while the store does not say what was in force.
const UNANSWERED: std::time::Duration = std::time::Duration::from_secs(1);

/// Serves until `stop` is cancelled. An IdP or a Redis that is not there yet is waited for: until then tokens are
/// restricted and `/ready` says why.
///
/// # Errors
/// When something is configured that cannot be used, or an address is taken.
pub async fn serve(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let broker = assemble::broker(&config)?;
    let flow = assemble::flow(&config, &broker).await?;
    let keys = Arc::clone(&broker.keys);
    let (server, pace) = (&config.server, assemble::pace(&config));
    let listen = |at| async move {
        TcpListener::bind(at)
            .await
            .with_context(|| format!("cannot listen on {at}"))
    };
    let (public, operations) = (listen(server.listen).await?, listen(server.operations).await?);
    let mut context = serving::context(
        flow,
        broker,
        assemble::brand(&config)?,
        assemble::wording(&config),
    )?;
    context.admin_key = config
        .admin
        .read_key
        .map(|hash| SecretHash::from_digest(hash.as_bytes()));
    let metrics = Metrics::install()?;
    context.metrics = Some(metrics.clone());
    context = context.with_limits(crate::http::context::Limits {
        body: server.body_limit,
        time: server.request_timeout,
        body_time: server.bounds.body_timeout,
        at_once: config.limits.at_once,
    });
    context = context.with_rates(
        config.limits,
        Proxies {
            trusted: server.trusted_proxies.clone(),
            header: server.forwarded_by,
        },
    );
    tracing::info!(issuer = server.issuer.as_str(), listen = %server.listen, operations = %server.operations, "reentry serves");
    let tending = keys::Tending {
        keys,
        store: Arc::clone(&context.flow.store),
        owner: context.flow.random::<12>(),
        schedule: assemble::schedule(&config),
    };
    keep(&config, &context, metrics, tending, &stop);
    serving::run(
        Serving {
            context,
            public,
            operations,
            pace,
            drain: server.shutdown_grace,
            bounds: bounds(server),
        },
        stop,
    )
    .await
}

/// Starts what keeps measurements, keys and the policy as they should be.
fn keep(
    config: &Config,
    context: &Context,
    metrics: Metrics,
    tending: keys::Tending,
    stop: &CancellationToken,
) {
    let watch = serving::watch(context);
    let begin = |name: &str| (name.to_owned(), Arc::clone(&watch), stop.clone());
    let (name, told, token) = begin("metrics");
    let end = stop.clone();
    let folding = move || keep_metrics(metrics.clone(), end.clone());
    tokio::spawn(supervised(name, told, token, folding));
    let (name, told, token) = begin("keys");
    let (tending, end) = (Arc::new(tending), stop.clone());
    let rotating = move || keep_keys(Arc::clone(&tending), end.clone());
    tokio::spawn(supervised(name, told, token, rotating));
    let Some(upstream) = config.upstreams.first().map(|u| u.id.clone()) else {
        return;
    };
    let (name, told, token) = begin("policy");
    let (flow, today) = (Arc::clone(&context.flow), Arc::new(config.policy.clone()));
    let end = stop.clone();
    let settling = move || {
        keep_policy(
            Arc::clone(&flow),
            upstream.clone(),
            Arc::clone(&today),
            end.clone(),
        )
    };
    tokio::spawn(supervised(name, told, token, settling));
}

/// Folds measurements into their buckets now and then, also when nobody collects them.
async fn keep_metrics(metrics: Metrics, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(FOLD)).await.is_some() {
        metrics.upkeep();
    }
}

fn bounds(server: &Server) -> Bounds {
    Bounds {
        connections: server.bounds.connections,
        head: server.bounds.header_timeout,
        rest: server.bounds.keep_alive,
        ..Bounds::default()
    }
}

/// Rotates keys when it is time, and reads their directory now and then: a new key is published and a retired one stops
/// signing without a restart. A directory that no longer loads leaves the keys as they were.
async fn keep_keys(tending: Arc<keys::Tending>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RELOAD) => {}
            () = stop.cancelled() => return,
        }
        tending.tend().await;
    }
}

/// Brings a policy that waits into force when its time has come (P14), and asks again where the store did not answer at
/// the start.
async fn keep_policy(flow: Arc<Flow>, upstream: UpstreamId, today: Arc<Policy>, stop: CancellationToken) {
    loop {
        let (store, seal) = (flow.store.as_ref(), flow.seal.as_ref());
        let pause = match inforce::settle(store, seal, &upstream, &today, flow.clock.now()).await {
            Ok(settled) => {
                flow.policy.store(Arc::new(settled.policy));
                if settled.until.is_none() {
                    return stop.cancelled().await;
                }
                WAITING
            }
            Err(_) => UNANSWERED,
        };
        if stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Creates the store's keys, if there are none, and the markers of a new installation. Says whether markers were
/// created (`false`: they were there and are ours).
///
/// # Errors
/// When the keys cannot be made or read, or the store has markers of another installation.
pub async fn store_init(config: &Config, moved: Option<&UpstreamId>) -> anyhow::Result<bool> {
    let path = &config.store.keys_file;
    let keys = if path.exists() {
        Keys::load(path)
    } else {
        Keys::create(path)
    };
    let keys = keys
        .with_context(|| format!("the key file {}", path.display()))?
        .identified(config.upstreams.iter().map(|u| (&u.id, u.identity())));
    let keys = Arc::new(keys);
    let store = assemble::store(config, Arc::clone(&keys)).await?;
    if let Some(moved) = moved {
        store.moved(moved).await?;
    }
    let created = store.init().await?;
    for upstream in &config.upstreams {
        crate::flow::holders::found(store.as_ref(), keys.as_ref(), &upstream.id).await?;
    }
    Ok(created)
}

/// Marks every partition as lost, so that a running `serve` rebuilds it.
///
/// # Errors
/// When the store cannot be reached, or is one of other keys or for other identity providers.
pub async fn store_rebuild(config: &Config) -> anyhow::Result<()> {
    let store = opened(config).await?;
    let now = SystemClock.now();
    for partition in 0..=u8::MAX {
        store.begin_rebuild(partition, now, now).await?;
    }
    Ok(())
}

/// Asks a running `serve` to compare every account now.
///
/// # Errors
/// When the store cannot be reached.
pub async fn store_reconcile(config: &Config) -> anyhow::Result<()> {
    let store = opened(config).await?;
    for upstream in &config.upstreams {
        let stamp = crate::flow::reconcile::stamp_name(&upstream.id);
        store.set_setting(&stamp, "0", None).await?;
    }
    Ok(())
}

async fn opened(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let path = &config.store.keys_file;
    let keys = Keys::load(path)
        .with_context(|| format!("the key file {}", path.display()))?
        .identified(config.upstreams.iter().map(|u| (&u.id, u.identity())));
    assemble::store(config, Arc::new(keys)).await
}
