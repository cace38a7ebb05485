//! Signing keys for the command line: the clock and the directory put together.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use serde::Serialize;

use crate::app::clock::SystemClock;
use crate::domain::time::Span;
use crate::oidc::keys::file::{KeyFile, algorithm, instant};
use crate::oidc::keys::rotation::{Schedule, rotate};
use crate::oidc::keys::{self, KEEP_RETIRED, KeyRing};
use crate::ports::clock::Clock as _;
use crate::ports::signer::Algorithm;
use crate::ports::store::Store;

/// Who has this lease rotates the keys.
const LEASE: &str = "signing-keys";
/// How long one replica has it.
const LEASE_FOR: Span = Span::from_mins(2);

/// The keys of a running replica.
pub struct Tending {
    /// The ring.
    pub keys: Arc<KeyRing>,
    /// Where the lease is.
    pub store: Arc<dyn Store>,
    /// This replica's name in leases.
    pub owner: String,
    /// When keys come and go by themselves, if they do.
    pub schedule: Option<Schedule>,
}

impl Tending {
    /// Rotates when it is time and this replica's turn, then reads the directory again. Faults are said and leave the
    /// keys as they were.
    pub async fn tend(&self) {
        if let Some(schedule) = &self.schedule {
            self.rotate(schedule).await;
        }
        if let Err(fault) = self.keys.reload() {
            tracing::error!(%fault, "the signing keys could not be read again; the old ones stay");
        }
    }

    async fn rotate(&self, schedule: &Schedule) {
        match self.store.lease(LEASE, &self.owner, LEASE_FOR).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "nobody can be sure to rotate the signing keys alone: later");
                return;
            }
        }
        let (directory, schedule) = (self.keys.directory().to_owned(), *schedule);
        // Making an RSA key takes its time.
        let work = move || rotate(&directory, &schedule, SystemClock.now());
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(turns)) => {
                for turn in turns {
                    tracing::info!(?turn, "signing keys");
                }
            }
            Ok(Err(fault)) => tracing::error!(%fault, "the signing keys cannot be rotated"),
            Err(error) => tracing::error!(%error, "the signing keys cannot be rotated"),
        }
    }
}

/// What a key does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It signs, or could: the newest of these does.
    Signs,
    /// It is published and signs later.
    Waits,
    /// It is retired and still verifies.
    Verifies,
    /// Nothing that it signed is alive.
    Gone,
}

/// A key as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its id.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: &'static str,
    /// When it was made, RFC 3339.
    pub created: String,
    /// From when on it signs, RFC 3339.
    pub active_from: String,
    /// Since when it is retired, RFC 3339.
    pub retired: Option<String>,
    /// What it does now.
    pub standing: Standing,
}

fn listed(key: &KeyFile) -> Listed {
    let now = SystemClock.now();
    let standing = match key.retired {
        Some(at) if at.plus(KEEP_RETIRED) <= now => Standing::Gone,
        Some(_) => Standing::Verifies,
        None if key.active_from > now => Standing::Waits,
        None => Standing::Signs,
    };
    Listed {
        kid: key.kid.clone(),
        algorithm: key.algorithm.as_str(),
        created: instant(key.created),
        active_from: instant(key.active_from),
        retired: key.retired.map(instant),
        standing,
    }
}

/// Makes a key.
///
/// # Errors
/// An unknown algorithm, or a directory that cannot be used.
pub fn create(directory: &Path, name: &str, at_once: bool) -> anyhow::Result<Listed> {
    let wanted = algorithm(name).ok_or_else(|| anyhow!("`{name}` is none of RS256, ES256, EdDSA"))?;
    Ok(listed(&keys::create(
        directory,
        wanted,
        at_once,
        SystemClock.now(),
    )?))
}

/// Makes what the broker cannot do without, as far as it is missing.
///
/// # Errors
/// When the directory cannot be used.
pub fn create_missing(directory: &Path) -> anyhow::Result<Vec<Listed>> {
    let there = if directory.exists() {
        keys::list(directory)?
    } else {
        Vec::new()
    };
    let mut made = Vec::new();
    for wanted in [Algorithm::Rs256, Algorithm::Es256] {
        if !there.iter().any(|k| k.algorithm == wanted && k.retired.is_none()) {
            made.push(listed(&keys::create(directory, wanted, true, SystemClock.now())?));
        }
    }
    Ok(made)
}

/// Every key, newest first.
///
/// # Errors
/// When the directory or a key cannot be used.
pub fn list(directory: &Path) -> anyhow::Result<Vec<Listed>> {
    Ok(keys::list(directory)?.iter().map(listed).collect())
}

/// Retires a key.
///
/// # Errors
/// When there is no such key, or it is the last one the broker cannot do without.
pub fn retire(directory: &Path, kid: &str) -> anyhow::Result<Listed> {
    Ok(listed(&keys::retire(directory, kid, SystemClock.now())?))
}
