//! What handlers work with: one extractor, not twelve.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use crate::config::limits::AtOnce;
use crate::flow::Flow;
use crate::flow::hook::Wakes;
use crate::http::broker::known::{self, KnownTokens};
use crate::http::limits::Limiter;
use crate::http::pages::Pages;
use crate::http::peer::Proxies;
use crate::http::readiness::Readiness;
use crate::http::rooms::Rooms;
use crate::http::views::Views;
use crate::oidc::Broker;
use crate::oidc::settings::SecretHash;
use crate::telemetry::metric::Metrics;

/// Bounds on what a request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest body in octets.
    pub body: usize,
    /// Longest handling; 503 afterwards.
    pub time: Duration,
    /// Longest time in which a body has to arrive; 408 afterwards.
    pub body_time: Duration,
    /// Most requests at once, and bodies under way; the rest are shed with 503 and `Retry-After`.
    pub at_once: AtOnce,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 * 1024,
            time: Duration::from_secs(20),
            body_time: Duration::from_secs(10),
            at_once: AtOnce::default(),
        }
    }
}

/// Everything a handler needs. Each request clones it several times, so a clone is one count; whoever changes a clone
/// changes that clone alone.
#[derive(Clone)]
pub struct Context(Arc<Everything>);

impl Deref for Context {
    type Target = Everything;

    fn deref(&self) -> &Everything {
        &self.0
    }
}

impl DerefMut for Context {
    fn deref_mut(&mut self) -> &mut Everything {
        Arc::make_mut(&mut self.0)
    }
}

/// What a [`Context`] holds.
#[derive(Clone)]
pub struct Everything {
    /// The use cases.
    pub flow: Arc<Flow>,
    /// Protocol rules: settings, signing, upstreams.
    pub broker: Arc<Broker>,
    /// How pages look, as the broker asks for them.
    pub views: Arc<dyn Views>,
    /// Every page.
    pub pages: Arc<Pages>,
    /// A key that may read the admin API and never approves.
    pub admin_key: Option<SecretHash>,
    /// What is counted, for the operations listener.
    pub metrics: Option<Metrics>,
    /// Access tokens whose signature was right.
    pub known: Arc<KnownTokens>,
    /// Whether this replica takes traffic.
    pub readiness: Arc<Readiness>,
    /// Wakes the pollers of this process.
    pub wakes: Arc<Wakes>,
    /// Bounds on requests.
    pub limits: Limits,
    /// How often.
    pub limiter: Arc<Limiter>,
    /// Who stands before us.
    pub proxies: Arc<Proxies>,
    /// Places for requests.
    pub rooms: Rooms,
}

impl Context {
    /// A context with default limits.
    #[must_use]
    pub fn new(flow: Arc<Flow>, broker: Arc<Broker>, pages: Arc<Pages>) -> Self {
        let limits = Limits::default();
        let readiness = Arc::new(Readiness::new(flow.upstreams.keys().cloned()));
        let wakes = Arc::new(Wakes::new(flow.upstreams.keys().cloned()));
        Self(Arc::new(Everything {
            readiness,
            wakes,
            flow,
            broker,
            views: Arc::clone(&pages) as Arc<dyn Views>,
            pages,
            admin_key: None,
            known: Arc::new(KnownTokens::new(known::MOST)),
            metrics: None,
            limits,
            limiter: Arc::new(Limiter::new(crate::config::limits::Limits::default())),
            proxies: Arc::default(),
            rooms: Rooms::new(limits.at_once),
        }))
    }

    /// The same with other rates, behind these proxies.
    #[must_use]
    pub fn with_rates(mut self, rates: crate::config::limits::Limits, proxies: Proxies) -> Self {
        self.limiter = Arc::new(Limiter::new(rates));
        self.proxies = Arc::new(proxies);
        self
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self.rooms = Rooms::new(limits.at_once);
        self
    }
}
