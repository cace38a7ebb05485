//! Keys of clients that publish them: fetched when needed, kept, and fetched again a bounded number of times. Where they
//! are the client says, so they are fetched by the way that reaches public addresses only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::oidc::assertion::PublicKeys;
use crate::oidc::settings::{BrokerSettings, ClientAuth, ClientKeys};
use crate::ports::outbound::Outbound;

/// Keys are used so long without asking again.
const FRESH: Duration = Duration::from_mins(15);
/// Between two fetches, whatever anybody sends.
const PAUSE: Duration = Duration::from_secs(10);
/// While the client's server does not answer, known keys are used so long.
const KEEP: Duration = Duration::from_hours(24);

/// Largest key set in octets.
const MAX_KEYS: usize = 512 * 1024;

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keys of the client {client} cannot be had: {why}")]
pub struct KeysUnavailable {
    client: String,
    why: String,
}

#[derive(Default)]
struct Memory {
    known: Option<(Arc<PublicKeys>, Instant)>,
    tried: Option<(Instant, String)>,
}

/// The published keys of every client.
pub struct Published {
    slots: BTreeMap<String, Mutex<Memory>>,
    outbound: Arc<dyn Outbound>,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.slots.keys()).finish()
    }
}

impl Published {
    /// For the clients that publish theirs.
    pub(super) fn new(settings: &BrokerSettings, outbound: Arc<dyn Outbound>) -> Self {
        let publishes = |auth: &ClientAuth| {
            matches!(
                auth,
                ClientAuth::PrivateKey {
                    keys: ClientKeys::Published(_),
                    ..
                }
            )
        };
        let clients = settings.clients.values().filter(|c| publishes(&c.auth));
        Self {
            slots: clients.map(|c| (c.id.clone(), Mutex::default())).collect(),
            outbound,
        }
    }

    /// The keys of a client; `stale` are those that turned out not to do.
    ///
    /// # Errors
    /// [`KeysUnavailable`].
    pub async fn of(
        &self,
        client: &str,
        url: &str,
        stale: Option<&Arc<PublicKeys>>,
    ) -> Result<Arc<PublicKeys>, KeysUnavailable> {
        let unavailable = |why: String| KeysUnavailable {
            client: client.to_owned(),
            why,
        };
        let slot = self
            .slots
            .get(client)
            .ok_or_else(|| unavailable("it publishes none".to_owned()))?;
        let mut memory = slot.lock().await;
        let resting = memory.tried.as_ref().filter(|(at, _)| at.elapsed() < PAUSE);
        match (&memory.known, resting) {
            (Some((known, at)), resting) => {
                let wanted = at.elapsed() >= FRESH || stale.is_some_and(|s| Arc::ptr_eq(s, known));
                if at.elapsed() < KEEP && (!wanted || resting.is_some()) {
                    return Ok(Arc::clone(known));
                }
            }
            (None, Some((_, why))) => return Err(unavailable(why.clone())),
            (None, None) => {}
        }
        match self.fetch(url).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                memory.known = Some((Arc::clone(&keys), Instant::now()));
                memory.tried = Some((Instant::now(), String::new()));
                Ok(keys)
            }
            Err(why) => {
                tracing::warn!(client, why, "keys of a client");
                memory.tried = Some((Instant::now(), why.clone()));
                let known = memory.known.as_ref().filter(|(_, at)| at.elapsed() < KEEP);
                known
                    .map(|(keys, _)| Arc::clone(keys))
                    .ok_or_else(|| unavailable(why))
            }
        }
    }

    async fn fetch(&self, url: &str) -> Result<PublicKeys, String> {
        let answer = self
            .outbound
            .get(url, MAX_KEYS)
            .await
            .map_err(|e| e.to_string())?;
        if !answer.taken() {
            return Err(format!("the answer has the status {}", answer.status));
        }
        let text = String::from_utf8(answer.body).map_err(|_| "the answer is no text".to_owned())?;
        PublicKeys::parse(&text).map_err(|e| e.to_string())
    }
}
