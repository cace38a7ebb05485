//! What `doctor` looks at: everything the sidecar needs, each with what to do about it.
//!
//! Parts are looked at one by one and none hides another: a store that cannot be reached does not keep the mail server
//! from being tried. Nothing is changed, and nothing is sent but the mail that was asked for.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::app::assemble;
use crate::app::clock::SystemClock;
use crate::config::Config;
use crate::config::upstream::Upstream;
use crate::domain::time::{Now, Span, Timestamp};
use crate::domain::wording::Wording;
use crate::flow::holders;
use crate::oidc::keys::KeyRing;
use crate::ports::clock::Clock as _;
use crate::ports::signer::Signer as _;
use crate::ports::store::{Parts, Soundness, Store, StoreError};
use crate::store::seal::Keys;

/// Most that our clock may be off from another's before it is worth a word.
const CLOCK_WARN: Span = Span::from_secs(2);
/// Most that it may be off before decisions suffer (domain "Start").
const CLOCK_BAD: Span = Span::from_secs(60);
/// Longest wait for our own public address.
const REACH: Duration = Duration::from_secs(5);

/// How a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Works, but ought to be looked at.
    Warn,
    /// Has to be mended.
    Bad,
}

/// What was found about one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `store`, `keys`, `mail`, `clock`, `issuer`, or `upstream <id>`.
    pub part: String,
    /// How it stands.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do; empty when nothing is to be done.
    pub advice: String,
}

fn finding(part: &str, level: Level, text: impl Into<String>, advice: &str) -> Finding {
    Finding {
        part: part.to_owned(),
        level,
        text: text.into(),
        advice: advice.to_owned(),
    }
}

/// Looks at everything. `test_mail` is an address that one mail is sent to.
pub async fn examine(config: &Config, test_mail: Option<&str>) -> Vec<Finding> {
    let mut findings = signing_keys(config);
    findings.extend(store(config).await);
    for upstream in &config.upstreams {
        findings.extend(identity_provider(config, upstream).await);
        findings.extend(broker(config, upstream).await);
    }
    findings.extend(mail(config, test_mail).await);
    findings.extend(issuer(config).await);
    findings
}

fn signing_keys(config: &Config) -> Vec<Finding> {
    match KeyRing::load(&config.keys.directory, Arc::new(SystemClock)) {
        Ok(ring) => {
            let names: Vec<&str> = ring.algorithms().iter().map(|a| a.as_str()).collect();
            let mut findings = vec![finding(
                "keys",
                Level::Good,
                format!("signing with {}", names.join(", ")),
                "",
            )];
            let missing = config.clients.iter().flat_map(|c| [c.id_token, c.access_token]);
            for wanted in missing.map(crate::ports::signer::Algorithm::from) {
                if !ring.algorithms().contains(&wanted) {
                    let text = format!("a client wants {}, and there is no key for it", wanted.as_str());
                    findings.push(finding(
                        "keys",
                        Level::Bad,
                        text,
                        "run `reentry keys create --algorithm ...`",
                    ));
                }
            }
            findings.dedup();
            findings
        }
        Err(fault) => vec![finding("keys", Level::Bad, fault.to_string(), "")],
    }
}

async fn store(config: &Config) -> Vec<Finding> {
    let keys = match Keys::load(&config.store.keys_file) {
        Ok(keys) => Arc::new(keys.identified(config.upstreams.iter().map(|u| (&u.id, u.identity())))),
        Err(fault) => {
            let advice = "run `reentry store init` for a new installation, or restore the file from a copy";
            return vec![finding("store", Level::Bad, fault.to_string(), advice)];
        }
    };
    let store = match assemble::store(config, Arc::clone(&keys)).await {
        Ok(store) => store,
        Err(error)
            if error
                .downcast_ref::<StoreError>()
                .is_some_and(StoreError::is_taken) =>
        {
            let text = format!(
                "{error:#}. That is as it should be while `reentry serve` runs: what the store says is not looked at here"
            );
            let advice = format!(
                "ask the running one: curl http://{}/ready",
                config.server.operations
            );
            return vec![finding("store", Level::Warn, text, &advice)];
        }
        Err(error) => {
            let advice = "check `store` in the configuration, and whether the server runs";
            return vec![finding("store", Level::Bad, format!("{error:#}"), advice)];
        }
    };
    let (facts, mut findings) = match store.check().await {
        Err(error) => {
            let advice = "check `store` in the configuration, and whether the server runs";
            return vec![finding("store", Level::Bad, error.to_string(), advice)];
        }
        Ok(sound) => (sound.facts.clone(), faults(&sound)),
    };
    if findings.is_empty() {
        findings.push(finding("store", Level::Good, "reachable, durable, and ours", ""));
    }
    let facts = facts
        .into_iter()
        .map(|fact| finding("store", Level::Good, fact, ""));
    findings.extend(facts);
    findings.extend(store_clock(store.as_ref(), &keys).await);
    findings.extend(administrators(config, store.as_ref(), &keys).await);
    findings
}

/// What is wrong with the store, and what to do about it.
fn faults(sound: &Soundness) -> Vec<Finding> {
    let bad = |fault: &String| finding("store", Level::Bad, fault.clone(), "");
    let mut findings: Vec<Finding> = sound.faults.iter().map(bad).collect();
    if !sound.restricted_partitions.is_empty() {
        let text = format!(
            "{} of 256 partitions have no sound marker, and are restricted",
            sound.restricted_partitions.len()
        );
        // Why, and what to do, stands in the fault beside it.
        let advice = if sound.faults.is_empty() {
            "a new installation: run `reentry store init`; otherwise the store was flushed, or it is the wrong one"
        } else {
            ""
        };
        findings.push(finding("store", Level::Bad, text, advice));
    }
    findings
}

/// Whether two people could end a freeze, by what was seen of their roles (P11).
async fn administrators(config: &Config, store: &dyn Store, keys: &Keys) -> Vec<Finding> {
    let roles: Vec<&str> = config.policy.admin_roles.iter().map(String::as_str).collect();
    let roles = roles.join(" or ");
    let (mut known, mut counting, mut next) = (0, 0, None::<Timestamp>);
    let (named, now) = (
        config.policy.admin_roles.iter().cloned().collect(),
        SystemClock.now(),
    );
    for upstream in &config.upstreams {
        let Ok(holders) = holders::known(store, keys, &upstream.id).await else {
            return Vec::new();
        };
        known += holders.len();
        let (count, then) = holders.counting(&named, config.policy.probation, Now::exact(now));
        counting += count;
        next = then.into_iter().chain(next).min();
    }
    if counting >= 2 {
        let text = format!("{counting} accounts hold {roles} and may end a freeze, two together");
        return vec![finding("administrators", Level::Good, text, "")];
    }
    if let Some(next) = next.filter(|_| known >= 2) {
        let text = format!(
            "{known} accounts hold {roles}, but the word of {counting} counts now, of the next one from {} on: nobody could end a freeze until two count",
            Wording::machine(next)
        );
        let advice = "a role counts when it was seen for as long as `probation`; after a store was lost while nobody ran, everybody waits anew";
        return vec![finding("administrators", Level::Warn, text, advice)];
    }
    let text = format!(
        "{known} of the 2 accounts that it takes are known to hold {roles}: nobody could end a freeze"
    );
    let advice = "give two people the role, and let `reentry serve` run once; `reentry wire keycloak --check` says whether the role is there";
    vec![finding("administrators", Level::Warn, text, advice)]
}

/// Our clock against the store's, which every decision is taken with (P6).
async fn store_clock(store: &dyn Store, keys: &Keys) -> Option<Finding> {
    use crate::domain::subject::{Subject, UpstreamId};
    use crate::ports::seal::Seal as _;
    let nobody = Subject::new(UpstreamId::parse("doctor")?, "nobody")?;
    let read = store.read(&keys.subject(&nobody), Parts::RECORD).await.ok()?;
    Some(clock("the store's clock", read.store_time?))
}

fn clock(whose: &str, theirs: Timestamp) -> Finding {
    let off = theirs.since(SystemClock.now());
    let seconds = off.abs().millis() / 1000;
    let way = if off < Span::ZERO { "behind" } else { "ahead of" };
    let text = format!("{whose} is {seconds} s {way} ours");
    let advice = "let both machines take their time from the same source (NTP)";
    if off.abs() > CLOCK_BAD {
        finding("clock", Level::Bad, text, advice)
    } else if off.abs() > CLOCK_WARN {
        finding("clock", Level::Warn, text, advice)
    } else {
        finding("clock", Level::Good, format!("{whose} agrees with ours"), "")
    }
}

async fn identity_provider(config: &Config, upstream: &Upstream) -> Vec<Finding> {
    let part = format!("upstream {}", upstream.id);
    let provider = match assemble::provider(upstream, &config.policy) {
        Ok(provider) => provider,
        Err(error) => return vec![finding(&part, Level::Bad, format!("{error:#}"), "")],
    };
    let (faults, unseen) = match (provider.health().await, provider.blind_spots().await) {
        (Ok(faults), Ok(unseen)) => (faults, unseen),
        (Err(error), _) | (_, Err(error)) => {
            let advice = "check `url`, `realm` and `admin` of the upstream; `reentry wire keycloak --check` looks closer";
            return vec![finding(&part, Level::Bad, error.to_string(), advice)];
        }
    };
    let mut findings: Vec<Finding> = faults
        .into_iter()
        .map(|fault| finding(&part, Level::Bad, fault, ""))
        .collect();
    if findings.is_empty() {
        let text = "answers, our roles suffice, and its log is on";
        findings.push(finding(&part, Level::Good, text, ""));
    }
    let unseen = unseen
        .into_iter()
        .map(|what| finding(&part, Level::Warn, what, ""));
    findings.extend(unseen);
    findings
}

/// Whether the identity provider takes our client, its secret and our address: people notice first otherwise.
async fn broker(config: &Config, upstream: &Upstream) -> Vec<Finding> {
    let (Some(credentials), Ok(broker)) = (&upstream.broker, assemble::broker(config)) else {
        return Vec::new();
    };
    let part = format!("upstream {} broker", upstream.id);
    let redirect = config.server.issuer.join(&format!("/callback/{}", upstream.id));
    match broker.upstreams.prove(&upstream.id, &redirect).await {
        Err(error) => {
            let advice = "check `url` and `realm` of the upstream";
            vec![finding(&part, Level::Bad, error.to_string(), advice)]
        }
        Ok(faults) if faults.is_empty() => {
            let text = format!(
                "takes the client `{}`, its secret and our address",
                credentials.client_id
            );
            vec![finding(&part, Level::Good, text, "")]
        }
        Ok(faults) => faults
            .into_iter()
            .map(|fault| finding(&part, Level::Bad, fault, ""))
            .collect(),
    }
}

async fn mail(config: &Config, test_mail: Option<&str>) -> Vec<Finding> {
    let Some(settings) = &config.mail else {
        let text = "no mail server: nobody is told anything, and holds last twice as long";
        return vec![finding("mail", Level::Bad, text, "add the section `mail`")];
    };
    let mailer = match assemble::mailer(config, settings) {
        Ok(mailer) => mailer,
        Err(error) => return vec![finding("mail", Level::Bad, format!("{error:#}"), "")],
    };
    let server = format!("{}:{}", settings.host, settings.port);
    if let Err(why) = mailer.check().await {
        let advice =
            "check host, port, tls, user and password in `mail`; a private authority goes into `ca_file`";
        return vec![finding("mail", Level::Bad, format!("{server}: {why}"), advice)];
    }
    let mut findings = vec![finding(
        "mail",
        Level::Good,
        format!("{server} takes our mail; nothing was sent"),
        "",
    )];
    if let Some(address) = test_mail {
        findings.push(match mailer.send_test(address).await {
            Ok(()) => finding(
                "mail",
                Level::Good,
                format!("a mail to {address} was accepted"),
                "look whether it arrives",
            ),
            Err(why) => finding(
                "mail",
                Level::Bad,
                format!("a mail to {address} was refused: {why}"),
                "check `mail.from`",
            ),
        });
    }
    findings
}

/// Whether the public address leads to this installation.
async fn issuer(config: &Config) -> Vec<Finding> {
    let url = config.server.issuer.join("/.well-known/openid-configuration");
    let advice = "start `reentry serve`, and let your proxy pass the issuer's host and path to it";
    let (level, text) = match discovery(&url).await {
        Err(why) => (Level::Warn, format!("{url} does not answer: {why}")),
        Ok(found) => {
            let mut findings: Vec<Finding> = found
                .date
                .map(|date| clock("the clock behind the issuer", date))
                .into_iter()
                .collect();
            match found.issuer.as_deref() {
                Some(named) if named == config.server.issuer.as_str() => {
                    findings.insert(
                        0,
                        finding(
                            "issuer",
                            Level::Good,
                            format!("{url} answers for this issuer"),
                            "",
                        ),
                    );
                    return findings;
                }
                Some(other) => (Level::Bad, format!("{url} says that it is {other}")),
                None => (
                    Level::Bad,
                    format!("{url} answers {} without a discovery document", found.status),
                ),
            }
        }
    };
    vec![finding("issuer", level, text, advice)]
}

/// What our own discovery document says.
struct Discovered {
    status: u16,
    issuer: Option<String>,
    date: Option<Timestamp>,
}

async fn discovery(url: &str) -> Result<Discovered, String> {
    let client = reqwest::Client::builder()
        .timeout(REACH)
        .redirect(reqwest::redirect::Policy::none());
    let client = client.build().map_err(|e| told(&e))?;
    let response = client.get(url).send().await.map_err(|e| told(&e))?;
    let status = response.status().as_u16();
    let date = response.headers().get("date").and_then(|d| d.to_str().ok());
    let date = date.and_then(|d| jiff::fmt::rfc2822::parse(d).ok());
    let date = date.map(|d| Timestamp::from_millis(d.timestamp().as_millisecond()));
    let body = response.bytes().await.map_err(|e| told(&e))?;
    let document = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let issuer = document
        .as_ref()
        .and_then(|d| d.get("issuer"))
        .and_then(serde_json::Value::as_str);
    Ok(Discovered {
        status,
        issuer: issuer.map(str::to_owned),
        date,
    })
}

/// The innermost cause, which says most.
fn told(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
