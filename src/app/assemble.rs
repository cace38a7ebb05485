//! From a checked configuration to adapters: the one place that names them all.

pub mod parties;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use secrecy::ExposeSecret as _;

use crate::app::clock::{SystemClock, SystemEntropy};
use crate::app::farewell::Farewells;
use crate::app::workers::Pace;
use crate::config::Config;
use crate::config::mail::{Mail, MailTls};
use crate::config::server::UnknownPrompt;
use crate::config::store::StoreKind;
use crate::config::upstream::{CannotHold as Cannot, Upstream};
use crate::config::webhook::Webhook;
use crate::domain::policy::Policy;
use crate::domain::time::Span;
use crate::domain::wording::{Terms, Wording};
use crate::flow::{Flow, inforce};
use crate::http::pages::{Brand, Logo};
use crate::idp::keycloak::hook::HookSettings;
use crate::idp::keycloak::{CannotHold, Keycloak, KeycloakSettings};
use crate::notify::Gateways;
use crate::notify::mail::{Messages, Sender};
use crate::notify::outbound::{self, Limits};
use crate::notify::smtp::{Mailer, Relay, Security};
use crate::notify::webhook::{Gone, Receiver, SigningSecret, Webhooks};
use crate::oidc::Broker;
use crate::oidc::keys::rotation::Schedule;
use crate::oidc::keys::{KEEP_RETIRED, KeyRing};
use crate::oidc::settings::BrokerSettings;
use crate::ports::clock::Clock as _;
use crate::ports::idp::IdentityProvider;
use crate::ports::notifier::{Notifier, NotifyError, Outgoing};
use crate::ports::outbound::Outbound;
use crate::ports::store::Store;
use crate::store::seal::Keys;

/// How often the sweeper looks at what is due.
const SWEEP: std::time::Duration = std::time::Duration::from_millis(500);

/// The accent of messages when a deployment has none of its own.
const ACCENT: &str = "#1d4f91";

/// The use cases over the adapters that the configuration names.
///
/// # Errors
/// When keys, store or an address cannot be used; says which and what to do.
pub async fn flow(config: &Config, broker: &Broker) -> anyhow::Result<Arc<Flow>> {
    let keys = Arc::new(
        Keys::load(&config.store.keys_file)
            .context("the store's keys cannot be used; `reentry store init` makes them")?
            .identified(config.upstreams.iter().map(|u| (&u.id, u.identity()))),
    );
    let store = store(config, Arc::clone(&keys)).await?;
    let policy = in_force(config, store.as_ref(), &keys).await;
    let upstreams = config
        .upstreams
        .iter()
        .map(|u| Ok((u.id.clone(), provider(u, &policy)?)));
    let upstreams = upstreams.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    Ok(Arc::new(Flow {
        watch: Flow::watching(&upstreams),
        store,
        seal: keys,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        policy: ArcSwap::from_pointee(policy),
        upstreams,
        notifier: notifier(config, broker)?,
        issuer: config.server.issuer.as_str().to_owned(),
    }))
}

/// The policy that holds now: today's, or what was in force where that is stricter (P14). While the store cannot be
/// reached nothing is decided anyway; `workers` asks again.
async fn in_force(config: &Config, store: &dyn Store, keys: &Keys) -> Policy {
    let Some(upstream) = config.upstreams.first() else {
        return config.policy.clone();
    };
    let now = SystemClock.now();
    match inforce::settle(store, keys, &upstream.id, &config.policy, now).await {
        Ok(settled) => settled.policy,
        Err(error) => {
            tracing::warn!(%error, "which policy was in force before is not known yet");
            config.policy.clone()
        }
    }
}

/// The store that the configuration names.
///
/// # Errors
/// When it cannot be opened.
pub async fn store(config: &Config, keys: Arc<Keys>) -> anyhow::Result<Arc<dyn Store>> {
    match &config.store.kind {
        StoreKind::Embedded { path } => Ok(crate::store::embedded::open(path, keys).await?),
        StoreKind::Redis(redis) => {
            let settings = crate::store::redis::Settings {
                password: redis.password.clone(),
                sentinel: redis.sentinel.clone(),
                ca: redis.ca.clone(),
                durability: redis.durability,
                connect_timeout: redis.connect_timeout,
                response_timeout: redis.timeout,
                ..crate::store::redis::Settings::new(redis.url.clone())
            };
            Ok(crate::store::redis::connect(settings, keys).await?)
        }
    }
}

/// An IdP's adapter.
///
/// # Errors
/// When its settings cannot be used.
pub fn provider(upstream: &Upstream, policy: &Policy) -> anyhow::Result<Arc<dyn IdentityProvider>> {
    let admin = &upstream.admin;
    let mut settings = KeycloakSettings::new(
        upstream.id.clone(),
        upstream.url.clone(),
        &upstream.realm,
        &admin.client_id,
        admin.secret.clone(),
    );
    settings.timeout = upstream.timeout;
    settings.overlap = upstream.overlap;
    settings.back_fill = upstream.backfill;
    settings.phone_attributes = upstream.phone_attributes.iter().cloned().collect();
    let cannot = |chosen| match chosen {
        Cannot::Disable => CannotHold::Disable,
        Cannot::Leave => CannotHold::Alarm,
    };
    settings.held_admins = cannot(upstream.held_admins);
    settings.unholdable = cannot(upstream.unholdable);
    settings.reset_lifespan = upstream.reset_lifespan;
    settings.admin_lifespan = upstream.admin_lifespan;
    settings.fresh_login_for_actions = upstream.fresh_login_for_actions;
    settings.resets_leave_lines = upstream.resets_leave_lines;
    settings.retention = policy.longest_hold().times(2);
    settings.hooks = HookSettings {
        generic: upstream.hooks.generic.clone(),
        extension: upstream.hooks.extension.clone(),
        extension_audience: upstream.hooks.extension_audience.clone(),
        broker_client: upstream.broker.as_ref().map(|broker| broker.client_id.clone()),
    };
    settings.probation = policy.probation;
    settings.enrolment = policy.enrolment_window;
    Ok(Arc::new(Keycloak::new(settings, Arc::new(SystemClock))?))
}

/// The gateways for notices, the receivers of webhooks, and the relying parties.
fn notifier(config: &Config, broker: &Broker) -> anyhow::Result<Arc<dyn Notifier>> {
    let outbound = outbound(config)?;
    let webhooks = Webhooks {
        notices: gateways(config)?,
        outbound: Arc::clone(&outbound),
        receivers: config.webhooks.iter().map(receiver).collect(),
        patience: config.outbound.give_up_after,
        gone: Gone::default(),
    };
    Ok(Arc::new(Farewells {
        inner: Arc::new(webhooks),
        settings: broker.settings.clone(),
        keys: Arc::clone(&broker.keys),
        outbound,
    }))
}

/// The gateways for notices. Without a mail server nothing is dropped: notices wait in the outbox, visibly.
fn gateways(config: &Config) -> anyhow::Result<Arc<dyn Notifier>> {
    let Some(mail) = &config.mail else {
        return Ok(Arc::new(NoGateway));
    };
    Ok(Arc::new(Gateways {
        email: mailer(config, mail)?,
    }))
}

/// The client for servers of others.
///
/// # Errors
/// When its certificates cannot be used.
pub fn outbound(config: &Config) -> anyhow::Result<Arc<dyn Outbound>> {
    let settings = &config.outbound;
    let authorities = settings.ca_file.as_ref().map(std::fs::read).transpose();
    let limits = Limits {
        allowed: settings.allow_hosts.clone(),
        authorities: authorities.context("outbound.ca_file cannot be read")?,
        connect: settings.connect_timeout,
        total: settings.timeout,
        ..Limits::default()
    };
    Ok(Arc::new(outbound::Client::new(limits)?))
}

fn receiver(webhook: &Webhook) -> (String, Receiver) {
    let secrets = webhook.secrets.iter();
    let secrets = secrets
        .filter_map(|text| crate::config::webhook::octets(text.expose_secret()))
        .filter_map(|octets| SigningSecret::new(&octets));
    let receiver = Receiver {
        url: webhook.url.to_string(),
        secrets: secrets.collect(),
        events: webhook.events.clone(),
    };
    (webhook.id.clone(), receiver)
}

/// The mail gateway.
///
/// # Errors
/// When the settings cannot be used.
pub fn mailer(config: &Config, mail: &Mail) -> anyhow::Result<Mailer> {
    let (from_name, from) = sender(&mail.from, &config.branding.name);
    let accent = config
        .branding
        .accent
        .map_or_else(|| ACCENT.to_owned(), |a| a.light.to_string());
    let messages = Messages::new(
        wording(config),
        Sender {
            name: config.branding.name.clone(),
            accent,
            support: config.branding.support.clone(),
        },
    )?;
    let authorities = mail
        .ca_file
        .as_ref()
        .map(std::fs::read)
        .transpose()
        .context("mail.ca_file cannot be read")?;
    let relay = Relay {
        host: mail.host.clone(),
        port: mail.port,
        security: match mail.tls {
            MailTls::None => Security::None,
            MailTls::Starttls => Security::StartTls,
            MailTls::Implicit => Security::Implicit,
        },
        credentials: mail.login.as_ref().map(|l| (l.user.clone(), l.password.clone())),
        authorities,
        deadline: mail.timeout,
        from,
        from_name,
        reply_to: mail.reply_to.clone(),
    };
    Ok(Mailer::new(&relay, messages)?)
}

/// The words and the zone in which owners are told.
#[must_use]
pub fn wording(config: &Config) -> Wording {
    Wording::new(config.branding.time_zone.clone(), &config.branding.words).with(Terms::of(&config.policy))
}

/// `Name <address>` taken apart; without a name the deployment's own.
fn sender(from: &str, deployment: &str) -> (String, String) {
    match from.split_once('<') {
        Some((name, address)) => (
            name.trim().trim_matches('"').to_owned(),
            address.trim_end_matches('>').trim().to_owned(),
        ),
        None => (deployment.to_owned(), from.trim().to_owned()),
    }
}

/// What stands in for a gateway that was not configured.
struct NoGateway;

#[async_trait::async_trait]
impl Notifier for NoGateway {
    async fn deliver(&self, _outgoing: &Outgoing<'_>) -> Result<(), NotifyError> {
        Err(NotifyError::Later(
            "no mail server is configured (section `mail`)".to_owned(),
        ))
    }
}

/// The deployment's look on pages.
///
/// # Errors
/// When the logo cannot be read.
pub fn brand(config: &Config) -> anyhow::Result<Brand> {
    let logo = |path: &std::path::PathBuf| {
        let svg = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("svg"));
        let kind = if svg { "image/svg+xml" } else { "image/png" };
        let bytes = std::fs::read(path)
            .with_context(|| format!("branding.logo {} cannot be read", path.display()))?;
        anyhow::Ok(Logo { kind, bytes })
    };
    let branding = &config.branding;
    Ok(Brand {
        name: branding.name.clone(),
        accent: branding.accent.map(|a| (a.light.to_string(), a.dark.to_string())),
        logo: branding.logo.as_ref().map(logo).transpose()?,
        support: branding.support.clone(),
    })
}

/// The broker's settings and keys.
///
/// # Errors
/// Every fault of the settings; keys that cannot be used.
pub fn broker(config: &Config) -> anyhow::Result<Broker> {
    let ring = KeyRing::load(&config.keys.directory, Arc::new(SystemClock))?.keeping(keep(config));
    let clients = config
        .clients
        .iter()
        .map(parties::client)
        .collect::<anyhow::Result<_>>()?;
    let upstreams = config.upstreams.iter().filter_map(parties::upstream).collect();
    let mut settings =
        BrokerSettings::new(config.server.issuer.as_str(), clients, upstreams).map_err(|faults| {
            let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
            anyhow!("{}", all.join("; "))
        })?;
    settings.alias.clone_from(&config.server.claim_alias);
    settings.ignore_unknown_prompt = config.server.unknown_prompt == UnknownPrompt::Ignore;
    Ok(Broker::new(settings, Arc::new(ring), outbound(config)?)?)
}

/// How long a retired key verifies: longer than anything that it may have signed, and a week at least.
fn keep(config: &Config) -> Span {
    let lifetimes = &config.policy.lifetimes;
    let longest = lifetimes.id.max(lifetimes.access).millis() + Span::from_hours(1).millis();
    KEEP_RETIRED.max(Span::from_millis(longest))
}

/// When keys come and go by themselves, if they do.
#[must_use]
pub fn schedule(config: &Config) -> Option<Schedule> {
    Some(Schedule {
        every: config.keys.rotate_every?,
        ahead: config.keys.publish_ahead,
        skew: Span::from_mins(5),
        keep: keep(config),
    })
}

/// How often the workers look.
#[must_use]
pub fn pace(config: &Config) -> Pace {
    Pace {
        poll: config
            .upstreams
            .iter()
            .map(|u| (u.id.clone(), u.poll_interval))
            .collect(),
        sweep: SWEEP,
        reconcile: config
            .upstreams
            .iter()
            .map(|u| (u.id.clone(), u.reconcile_interval))
            .collect(),
        witness: config.store.witness_file.clone(),
    }
}
