//! The configuration: one YAML file, overrides from the environment, and every fault at once.
//!
//! `REENTRY__SECTION__KEY` sets `section.key`; an item of a list is named by its number or its id
//! (`REENTRY__CLIENTS__BANK__SECRET`). Whatever is wrong is collected with key, line and what to do, and the program does
//! not start: a setting that is not understood may be the one that was to restrict something. Secrets never stand in the
//! file. What this module gives out is checked; the rest of the program asks no further questions.

pub mod address;
pub mod branding;
pub mod client;
mod environment;
pub mod fault;
pub mod keys;
pub mod limits;
pub mod mail;
mod node;
mod policy;
pub mod private;
mod reader;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;
pub mod values;
pub mod webhook;
mod words;

use std::collections::BTreeSet;
use std::path::Path;

use branding::Branding;
use client::{ADMIN_SCOPE, Client};
use fault::{Fault, Faults, Place};
use keys::KeySettings;
use limits::Limits;
use mail::Mail;
use reader::{Findings, Section};
use server::Server;
use store::StoreSettings;
use telemetry::{Admin, TelemetrySettings};
use upstream::Upstream;
use webhook::{Outbound, Webhook};

use crate::domain::policy::Policy;

/// The complete, commented default configuration.
pub const DEFAULT: &str = include_str!("config/default.yaml");
/// The commented default policy: the table of the domain.
pub const DEFAULT_POLICY: &str = include_str!("config/default-policy.yaml");
/// JSON Schema (2020-12) of the configuration.
pub const SCHEMA: &str = include_str!("config/config.schema.json");

/// Everything that was configured, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who we are and where we listen.
    pub server: Server,
    /// How often.
    pub limits: Limits,
    /// Where state lives.
    pub store: StoreSettings,
    /// Signing keys.
    pub keys: KeySettings,
    /// Identity providers; never empty, ids and prefixes differ.
    pub upstreams: Vec<Upstream>,
    /// Relying parties of the broker; ids differ.
    pub clients: Vec<Client>,
    /// The mail server; without one, notices stay in the outbox and an alarm is raised.
    pub mail: Option<Mail>,
    /// Receivers of webhooks; ids differ.
    pub webhooks: Vec<Webhook>,
    /// How servers of others are reached.
    pub outbound: Outbound,
    /// Name, logo and colours.
    pub branding: Branding,
    /// The rules.
    pub policy: Policy,
    /// Logs.
    pub telemetry: TelemetrySettings,
    /// The admin API.
    pub admin: Admin,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed but ought to be looked at.
    pub warnings: Vec<Fault>,
}

/// A policy that can be used.
#[derive(Clone, Debug)]
pub struct LoadedPolicy {
    /// The policy.
    pub policy: Policy,
    /// What is allowed but ought to be looked at.
    pub warnings: Vec<Fault>,
}

/// Reads a configuration: its text, the environment as pairs (others than `REENTRY__...` are passed over), and the
/// directory that relative paths in it start from.
///
/// # Errors
/// Every fault there is.
pub fn load(
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    base: &Path,
) -> Result<Loaded, Faults> {
    load_with(text, environment, base, Findings::default())
}

fn load_with(
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    base: &Path,
    findings: Findings,
) -> Result<Loaded, Faults> {
    let mut root = node::parse(text).map_err(Faults::new)?;
    let mut faults = environment::apply(&mut root, environment);
    let config = read(&Section::root(&root, &findings, base));
    let (found, warnings, _) = findings.into_parts();
    faults.extend(found);
    match config {
        Some(config) if faults.is_empty() => Ok(Loaded { config, warnings }),
        Some(_) => Err(Faults::new(faults)),
        None => {
            if faults.is_empty() {
                let place = Place::File { line: 1, column: 1 };
                faults.push(Fault::new("", place, "could not be read, and no fault was noted"));
            }
            Err(Faults::new(faults))
        }
    }
}

/// Reads a configuration file, relative paths in it starting from its own directory.
///
/// # Errors
/// Every fault there is; a file that cannot be read is one.
pub fn load_file(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Faults> {
    load(&text_of(path)?, environment, directory_of(path))
}

/// The same for the commands that make secrets: a file with a secret that is not there yet is no fault, and what is
/// given must not be used to talk to anybody.
///
/// # Errors
/// Every other fault there is.
pub fn load_file_for_setup(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Faults> {
    load_with(
        &text_of(path)?,
        environment,
        directory_of(path),
        Findings::before_secrets(),
    )
}

fn text_of(path: &Path) -> Result<String, Faults> {
    std::fs::read_to_string(path).map_err(|error| {
        let problem = format!("cannot be read ({error})");
        let fault = Fault::new("", Place::File { line: 1, column: 1 }, problem);
        Faults(vec![fault.advice("begin one with `reentry config default`")])
    })
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

/// Reads a policy file's text.
///
/// # Errors
/// Every fault there is.
pub fn load_policy(text: &str) -> Result<LoadedPolicy, Faults> {
    let findings = Findings::default();
    let read = policy::from_text(text, &findings);
    let (faults, warnings, _) = findings.into_parts();
    match read {
        Some(policy) if faults.is_empty() => Ok(LoadedPolicy { policy, warnings }),
        _ => Err(Faults::new(faults)),
    }
}

/// The path of every key that a configuration may have, lists as `clients[].client_id` and free names as `*`.
/// The schema and the default are held to it by tests.
#[must_use]
pub fn known_keys() -> BTreeSet<String> {
    let findings = Findings::default();
    if let Ok(root) = node::parse(EVERY_KEY) {
        let _ = read(&Section::root(&root, &findings, Path::new("")));
    }
    findings.into_parts().2
}

/// Enough of a configuration that every section is gone through.
const EVERY_KEY: &str = "{upstreams: [{admin: {client_id: x}, broker: {client_id: x}}], clients: [{client_id: x}], \
    mail: {host: x}, webhooks: [{id: x}], policy: {tiers: [{name: x, enforce: {cohort: 1%}, contested: {exits: []}, holds: {all_replaced: {for: 1h, allow: []}}}]}}";

fn read(root: &Section<'_>) -> Option<Config> {
    let server = Server::read(&root.section("server"));
    let limits = Limits::read(&root.section("limits"));
    let store = StoreSettings::read(&root.section("store"));
    let keys = KeySettings::read(&root.section("keys"));
    let upstreams = upstream::read_all(root);
    let defaults = keys.as_ref().map_or((keys::Jws::Rs256, keys::Jws::Es256), |k| {
        (k.id_token, k.access_token)
    });
    let outbound = Outbound::read(&root.section("outbound"));
    let clients = client::read_all(root, defaults, upstreams.as_deref(), outbound.as_ref());
    let mail = optional_mail(root);
    let webhooks = webhook::read_all(root, outbound.as_ref());
    let branding = whom_to_turn_to(root, Branding::read(&root.section("branding")), mail.as_ref());
    let policy = read_policy(root);
    let telemetry = TelemetrySettings::read(&root.section("telemetry"));
    let admin = Admin::read(&root.section("admin"));
    if let (Some(clients), Some(upstreams)) = (&clients, &upstreams) {
        if !clients.is_empty() && upstreams.iter().all(|u| u.broker.is_none()) {
            let advice = "add `broker: {client_id: reentry-broker, secret_file: keycloak-broker-secret}` to the upstream (`reentry \
                          wire` makes that client), or take the clients away";
            root.fault(
                "clients",
                "are configured, but no upstream lets users log in for them",
                advice,
            );
        }
        if !clients.iter().any(|c| c.scopes.contains(ADMIN_SCOPE)) {
            let broker = if upstreams.iter().any(|u| u.broker.is_some()) {
                ""
            } else {
                ", and to the upstream they log in at `broker: {client_id: reentry-broker, secret_file: keycloak-broker-secret}`"
            };
            let advice = format!(
                "add to `clients` one for your administrators: `client_id`, `redirect_uris`, `secret_file` or `auth: none`, \
                 and `scopes: [openid, \"{ADMIN_SCOPE}\"]`{broker}; other relying parties may stay at the identity provider"
            );
            root.warn("clients", "holds nobody who could thaw a frozen account", advice);
        }
    }
    Some(Config {
        server: server?,
        limits: limits?,
        store: store?,
        keys: keys?,
        upstreams: upstreams?,
        clients: clients?,
        mail: mail?,
        webhooks: webhooks?,
        outbound: outbound?,
        branding: branding?,
        policy: policy?,
        telemetry: telemetry?,
        admin: admin?,
    })
}

#[expect(clippy::option_option, reason = "not there and not readable are two things")]
fn optional_mail(root: &Section<'_>) -> Option<Option<Mail>> {
    let section = root.section("mail");
    if section.is_present() {
        return Mail::read(&section).map(Some);
    }
    let advice = "add `mail` with the server that sends notices";
    root.warn(
        "mail",
        "is missing: nobody is told anything, and holds last twice as long",
        advice,
    );
    Some(None)
}

/// A freeze that stands is ended by people alone, so somebody has to be named whom its owner can turn to.
fn whom_to_turn_to(
    root: &Section<'_>,
    branding: Option<Branding>,
    mail: Option<&Option<Mail>>,
) -> Option<Branding> {
    let mut branding = branding?;
    if branding.support.is_some() {
        return Some(branding);
    }
    branding.support = mail?.as_ref().and_then(|m| m.reply_to.clone());
    if branding.support.is_none() {
        root.section("branding").fault(
            "support",
            "is missing, and there is no `mail.reply_to` either: whoever is frozen out would have nobody to turn to, \
             and only people end a freeze",
            "write an address or a telephone number that somebody answers, as owners are to read it",
        );
    }
    Some(branding)
}

fn read_policy(root: &Section<'_>) -> Option<Policy> {
    let inline = root.section("policy");
    let file = root.contents("policy_file");
    match (inline.is_present(), file?) {
        (true, None) => policy::read(&inline, None),
        (true, Some(_)) => {
            root.fault("policy_file", "is given beside `policy`", "keep one of them");
            None
        }
        (false, Some((_, text))) => policy::from_text(&text, root.findings()),
        (false, None) => policy::from_text(DEFAULT_POLICY, root.findings()),
    }
}
