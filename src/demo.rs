//! `reentry demo`: the whole story on one machine, with nothing else installed.
//!
//! The sidecar is the real one, with the embedded store: the same use cases, broker, pages and checker that
//! `serve` wires. Around it stand a small identity provider, a small bank that obeys `recovery_scope` through
//! the shipped checker, a mailbox, and a clock that can be moved. Everything is gone when the demo stops.

pub mod bank;
pub mod book;
pub mod clock;
pub mod guide;
pub mod idp;
pub mod mailbox;
pub mod page;
pub mod people;
pub mod provider;
pub mod reset;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::clock::SystemEntropy;
use crate::app::serving::{self, Serving};
use crate::app::workers::Pace;
use crate::demo::clock::DemoClock;
use crate::demo::mailbox::{Mailbox, MailboxNotifier};
use crate::demo::people::People;
use crate::demo::provider::DemoProvider;
use crate::domain::ceiling::Class;
use crate::domain::policy::{Choice, Policy};
use crate::domain::subject::UpstreamId;
use crate::domain::tier::{Expression, TierName};
use crate::domain::wording::{Terms, Wording};
use crate::flow::Flow;
use crate::http::pages::Brand;
use crate::notify::mail::{Messages, Sender};
use crate::notify::outbound;
use crate::oidc::Broker;
use crate::oidc::keys::{self, KeyRing};
use crate::oidc::settings::{BrokerSettings, Client, Upstream};
use crate::ports::clock::{Clock, Entropy};
use crate::ports::idp::IdentityProvider;
use crate::ports::signer::Algorithm;
use crate::rp::profile::Profile;
use crate::rp::{Checker, Config};

/// What the demo may be told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The first of the five ports; the next free ones are taken when it or a neighbour is in use.
    pub port: u16,
}

/// Where everything is, once it runs.
#[derive(Clone, Debug)]
pub struct Places {
    /// The first page.
    pub guide: String,
    /// The bank.
    pub bank: String,
    /// The identity provider.
    pub idp: String,
    /// The mailbox.
    pub mailbox: String,
    /// Reentry itself.
    pub issuer: String,
}

/// A private directory that goes when the demo ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "the demo's directory could not be removed");
        }
    }
}

/// Runs the demo until `stop` is cancelled; `ready` is called once, with the addresses.
///
/// # Errors
/// When a port, the directory or the store cannot be had.
pub async fn run(
    options: Options,
    stop: CancellationToken,
    ready: impl FnOnce(&Places),
) -> anyhow::Result<()> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let clock = Arc::new(DemoClock::default());
    let scratch = scratch(entropy.as_ref())?;
    let (listeners, places) = listen(options.port).await?;
    let [guide_at, issuer_at, bank_at, idp_at, mailbox_at, operations_at] = listeners;

    let people = Arc::new(Mutex::new(People::new(clock.now())));
    let mailbox = Arc::new(Mailbox::default());
    let secrets = Secrets::new(entropy.as_ref());
    let ring = ring(&scratch.0.join("keys"), &clock)?;
    let idp_ring = self::ring(&scratch.0.join("idp-keys"), &clock)?;
    let context = sidecar(&Parts {
        scratch: &scratch.0,
        places: &places,
        people: &people,
        mailbox: &mailbox,
        secrets: &secrets,
        ring: &ring,
        clock: &clock,
        entropy: &entropy,
    })
    .await?;
    let demo_clock: Arc<dyn Clock> = clock.clone();

    let idp = idp::Idp {
        issuer: places.idp.clone(),
        client_id: "reentry".to_owned(),
        client_secret: secrets.idp.clone(),
        redirect_uri: format!("{}/callback/demo", places.issuer),
        bank: places.bank.clone(),
        people,
        mailbox: Arc::clone(&mailbox),
        signer: idp_ring,
        clock: Arc::clone(&demo_clock),
        entropy: Arc::clone(&entropy),
    };
    let bank = bank(&places, &secrets, ring, &demo_clock, &entropy)?;
    let mut side = beside(
        [
            (guide_at, guide::router(guide(&places, clock))),
            (bank_at, bank::router(bank)),
            (idp_at, idp::router(idp)),
            (mailbox_at, mailbox::router(mailbox)),
        ],
        &stop,
    );
    let serving = serving(context, issuer_at, operations_at)?;
    ready(&places);
    let served = serving::run(serving, stop).await;
    while side.join_next().await.is_some() {}
    served
}

/// The first page.
fn guide(places: &Places, clock: Arc<DemoClock>) -> guide::Guide {
    guide::Guide {
        bank: places.bank.clone(),
        idp: places.idp.clone(),
        mailbox: places.mailbox.clone(),
        issuer: places.issuer.clone(),
        clock,
    }
}

/// Where the sidecar listens, and how often its workers look.
fn serving(
    context: crate::http::context::Context,
    public: TcpListener,
    operations: TcpListener,
) -> anyhow::Result<Serving> {
    let pace = Pace {
        poll: BTreeMap::from([(upstream()?, Duration::from_millis(400))]),
        sweep: Duration::from_millis(400),
        // Once, at the start: it takes the first snapshots.
        reconcile: BTreeMap::from([(upstream()?, Duration::from_hours(24 * 365))]),
        witness: None,
    };
    Ok(Serving {
        context,
        public,
        operations,
        pace,
        drain: Duration::from_secs(5),
        bounds: crate::app::listener::Bounds::default(),
    })
}

/// Serves the places beside the sidecar until `stop` is cancelled.
fn beside(places: [(TcpListener, axum::Router); 4], stop: &CancellationToken) -> tokio::task::JoinSet<()> {
    let mut side = tokio::task::JoinSet::new();
    for (listener, router) in places {
        let stop = stop.clone();
        side.spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "a place of the demo stopped");
            }
        });
    }
    side
}

struct Secrets {
    idp: String,
    bank: String,
}

impl Secrets {
    fn new(entropy: &dyn Entropy) -> Self {
        Self {
            idp: random(entropy),
            bank: random(entropy),
        }
    }
}

struct Parts<'a> {
    scratch: &'a Path,
    places: &'a Places,
    people: &'a Arc<Mutex<People>>,
    mailbox: &'a Arc<Mailbox>,
    secrets: &'a Secrets,
    ring: &'a Arc<KeyRing>,
    clock: &'a Arc<DemoClock>,
    entropy: &'a Arc<dyn Entropy>,
}

fn random(entropy: &dyn Entropy) -> String {
    let mut buffer = [0; 16];
    entropy.fill(&mut buffer);
    crate::flow::converge::hex(&buffer)
}

fn upstream() -> anyhow::Result<UpstreamId> {
    UpstreamId::parse("demo").ok_or_else(|| anyhow!("the demo's identity provider has no usable id"))
}

fn scratch(entropy: &dyn Entropy) -> anyhow::Result<Scratch> {
    let path = std::env::temp_dir().join(format!("reentry-demo-{}", random(entropy)));
    std::fs::create_dir(&path).with_context(|| format!("cannot make the directory {}", path.display()))?;
    Ok(Scratch(path))
}

fn ring(directory: &Path, clock: &Arc<DemoClock>) -> anyhow::Result<Arc<KeyRing>> {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        keys::create(directory, algorithm, true, clock.now())?;
    }
    let clock: Arc<dyn Clock> = clock.clone();
    Ok(Arc::new(KeyRing::load(directory, clock)?))
}

/// Six listeners on loopback: from `port` on, the next free one where one is taken.
async fn listen(port: u16) -> anyhow::Result<([TcpListener; 6], Places)> {
    let mut found = Vec::new();
    let mut next = port;
    while found.len() < 6 {
        match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, next))).await {
            Ok(listener) => found.push(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context("cannot listen on loopback"),
        }
        next = next
            .checked_add(1)
            .ok_or_else(|| anyhow!("no free port is left above {port}"))?;
    }
    let address = |at: usize| -> anyhow::Result<String> {
        let listener = found.get(at).ok_or_else(|| anyhow!("a listener is missing"))?;
        Ok(format!("http://127.0.0.1:{}", listener.local_addr()?.port()))
    };
    let places = Places {
        guide: address(0)?,
        issuer: address(1)?,
        bank: address(2)?,
        idp: address(3)?,
        mailbox: address(4)?,
    };
    let listeners = <[TcpListener; 6]>::try_from(found).map_err(|_| anyhow!("a listener is missing"))?;
    Ok((listeners, places))
}

/// The standard table with the demo's tiers and scopes. Freezes keep the accounts' own sign-in closed.
fn policy() -> anyhow::Result<Policy> {
    let mut policy = Policy::standard();
    for (tier, when) in [
        ("b2b_admin", "'reentry-admin' in roles"),
        ("b2b_user", "'business' in roles"),
    ] {
        let when = Expression::compile(when).map_err(|e| anyhow!("the demo's tier expression {e}"))?;
        policy.choices.push(Choice {
            tier: TierName(tier.to_owned()),
            when,
        });
    }
    for (class, scope) in [
        ("read", "accounts:read"),
        ("write", "payees:write"),
        ("pay", "transfers:write"),
        ("export", "statements:export"),
    ] {
        let class = Class::parse(class).ok_or_else(|| anyhow!("{class} is no action class"))?;
        policy.scopes.insert(class, [scope.to_owned()].into());
    }
    policy.claims = ["name", "email", "email_verified", "preferred_username"]
        .map(str::to_owned)
        .into();
    Ok(policy)
}

/// Whom the demo's customers turn to.
const SUPPORT: &str = "help@bank.example";

/// The sidecar itself, wired as `serve` wires it but for the store, the clock and the mailbox.
async fn sidecar(parts: &Parts<'_>) -> anyhow::Result<crate::http::context::Context> {
    let keys = Arc::new(crate::store::seal::Keys::ephemeral()?);
    let store = crate::store::embedded::open(&parts.scratch.join("state.redb"), Arc::clone(&keys)).await?;
    store.init().await?;
    let id = upstream()?;
    crate::flow::holders::found(store.as_ref(), keys.as_ref(), &id).await?;
    let provider: Arc<dyn IdentityProvider> =
        Arc::new(DemoProvider::new(id.clone(), Arc::clone(parts.people)));
    let sender = Sender {
        name: "Example Bank".to_owned(),
        accent: "#1d4f91".to_owned(),
        support: Some(SUPPORT.to_owned()),
    };
    let clock: Arc<dyn Clock> = parts.clock.clone();
    let notifier = MailboxNotifier {
        messages: Messages::new(wording()?, sender)?,
        mailbox: Arc::clone(parts.mailbox),
        clock: Arc::clone(&clock),
    };
    let upstreams = BTreeMap::from([(id.clone(), provider)]);
    let flow = Arc::new(Flow {
        watch: Flow::watching(&upstreams),
        store,
        seal: keys,
        clock,
        entropy: Arc::clone(parts.entropy),
        policy: ArcSwap::from_pointee(policy()?),
        upstreams,
        notifier: Arc::new(notifier),
        issuer: parts.places.issuer.clone(),
    });
    let outbound = Arc::new(outbound::Client::new(outbound::Limits::default())?);
    let broker = Broker::new(settings(parts, id)?, Arc::clone(parts.ring), outbound)?;
    let brand = Brand {
        name: "Example Bank".to_owned(),
        accent: Some(("#1d4f91".to_owned(), "#9cc3f5".to_owned())),
        support: Some(SUPPORT.to_owned()),
        ..Brand::default()
    };
    serving::context(flow, broker, brand, wording()?)
}

/// The words, with the demo's own clocks.
fn wording() -> anyhow::Result<Wording> {
    Ok(Wording::default().with(Terms::of(&policy()?)))
}

fn settings(parts: &Parts<'_>, id: UpstreamId) -> anyhow::Result<BrokerSettings> {
    let places = parts.places;
    let redirect = format!("{}/callback", places.bank);
    let scopes = [
        "profile",
        "accounts:read",
        "payees:write",
        "transfers:write",
        "statements:export",
    ];
    let mut bank = Client::confidential("bank", &parts.secrets.bank, &redirect, &scopes);
    "Example Bank".clone_into(&mut bank.name);
    bank.post_logout_redirect_uris = vec![format!("{}/", places.bank)];
    let upstream = Upstream {
        id,
        issuer: places.idp.clone(),
        client_id: "reentry".to_owned(),
        client_secret: Some(SecretString::from(parts.secrets.idp.clone())),
        scopes: vec!["profile".to_owned(), "email".to_owned()],
        name: "Demo".to_owned(),
        subject_prefix: String::new(),
        end_session: true,
    };
    BrokerSettings::new(&places.issuer, vec![bank], vec![upstream]).map_err(|faults| {
        let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow!("{}", all.join("; "))
    })
}

fn bank(
    places: &Places,
    secrets: &Secrets,
    ring: Arc<KeyRing>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> anyhow::Result<bank::Bank> {
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    Ok(bank::Bank {
        address: places.bank.clone(),
        issuer: places.issuer.clone(),
        client_id: "bank".to_owned(),
        client_secret: secrets.bank.clone(),
        ring,
        checker: Arc::new(Checker::new(Config {
            protected: [(places.issuer.clone(), Profile::Reentry)].into(),
            ..Config::default()
        })),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
        http,
        visits: Arc::new(Mutex::new(HashMap::new())),
        books: Arc::new(Mutex::new(HashMap::new())),
    })
}
