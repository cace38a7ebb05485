//! `reentry serve`: run the sidecar until it is told to stop.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{Outcome, Session};
use crate::{app, telemetry};

/// `reentry serve`
#[derive(Clone, Copy, Debug, Args)]
#[command(
    after_help = "Examples:\n  reentry serve\n  reentry --config /etc/reentry.yaml serve\n  RUST_LOG=info,reentry::flow=debug reentry serve\n\nSIGTERM and SIGINT stop it: nothing new is accepted, requests under way end."
)]
pub struct Serve {}

impl Serve {
    /// Runs it.
    ///
    /// # Errors
    /// When something is configured that cannot be used, or an address is taken.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let Some(config) = session.load() else {
            return Ok(Outcome::Refused);
        };
        let filter = session.environment.get("RUST_LOG");
        let _lines = telemetry::init(config.telemetry, filter, session.err.is_colourful())?;
        serving_runtime()?.block_on(async {
            let stop = stopped_by_signals()?;
            app::serve(config, stop).await
        })?;
        Ok(Outcome::Done)
    }
}

/// A runtime for the listeners. With one core one thread does everything: handing work over to others of the same core
/// would cost a quarter more (measured; see `make bench`).
///
/// # Errors
/// When the system gives no threads.
fn serving_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let mut builder = if several {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    Ok(builder.enable_all().build()?)
}

/// A token that SIGTERM and SIGINT cancel.
///
/// # Errors
/// When signals cannot be listened for.
pub fn stopped_by_signals() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        token.cancel();
    });
    Ok(stop)
}
