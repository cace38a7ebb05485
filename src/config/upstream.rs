//! `upstreams`: the identity providers beside which we stand.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::reader::Section;
use super::values::{base_url, deadline, span_between};
use super::words::filled;
use crate::domain::subject::UpstreamId;
use crate::domain::time::Span;

/// What an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamKind {
    /// A Keycloak realm.
    Keycloak,
}

/// What happens to an account that a hold does not bind: a realm administrator, whose hold Keycloak's admin API does not
/// obey, or one that keeps full rights some other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotHold {
    /// The account is disabled for the hold.
    Disable,
    /// It is left as it is, and an alarm raised.
    Leave,
}

/// A confidential client of ours at the IdP.
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`.
    pub secret: SecretString,
    /// The file it stands in, unless it came from the environment: `wire` writes it there.
    pub secret_file: Option<std::path::PathBuf>,
}

/// One identity provider.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its id in keys, paths and logs: never changed once state exists.
    pub id: UpstreamId,
    /// Its name where users choose; the id when there is none.
    pub name: String,
    /// What it is.
    pub kind: UpstreamKind,
    /// The base URL of the server, without `/realms/...` and without a trailing slash.
    pub url: Url,
    /// The realm.
    pub realm: String,
    /// Which one it is, where its URL and realm do not say that.
    pub identity: Option<String>,
    /// The service account that reads the log and acts.
    pub admin: ClientCredentials,
    /// The client by which users log in for the broker; `None` when the broker is not used with this IdP.
    pub broker: Option<ClientCredentials>,
    /// Stands before `sub` in our tokens; empty for at most one upstream (contract section 3).
    pub prefix: String,
    /// How often the log is read.
    pub poll_interval: Duration,
    /// How far back each reading reaches again, for events that become visible late.
    pub overlap: Span,
    /// How far back the first reading reaches.
    pub backfill: Span,
    /// How often every account is compared with what is known.
    pub reconcile_interval: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// User attributes that hold telephone numbers.
    pub phone_attributes: BTreeSet<String>,
    /// Held realm administrators.
    pub held_admins: CannotHold,
    /// Accounts that keep full rights in spite of a hold (the default role inside a group, an act that is refused).
    pub unholdable: CannotHold,
    /// Life of a reset link at the IdP.
    pub reset_lifespan: Span,
    /// Life of a link that an administrator sends.
    pub admin_lifespan: Span,
    /// Every action that a client can start asks for a log-in at most 300 s old.
    pub fresh_login_for_actions: bool,
    /// Every way to a new password without the old one sends the IdP's own mail, or is an administrator's act.
    pub resets_leave_lines: bool,
    /// Hooks by which it, or any program, calls us.
    pub hooks: Hooks,
}

impl Upstream {
    /// Which IdP it is, in words that no other one has: the store remembers a keyed hash of it.
    #[must_use]
    pub fn identity(&self) -> String {
        let kind = match self.kind {
            UpstreamKind::Keycloak => "keycloak",
        };
        if let Some(identity) = &self.identity {
            return format!("{kind} named {identity}");
        }
        let url = self.url.as_str().trim_end_matches('/');
        format!("{kind} {url} {}", self.realm)
    }
}

/// Hooks of one IdP. What has no secret is closed.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// Secrets of the generic hook, `whsec_...`; each may sign.
    pub generic: Vec<SecretString>,
    /// Shared secrets of the extension's webhook (`X-Keycloak-Signature`); each may sign.
    pub extension: Vec<SecretString>,
    /// `aud` of the extension's bearer tokens, when it sends those.
    pub extension_audience: Option<String>,
}

impl Hooks {
    fn read(s: &Section<'_>) -> Option<Self> {
        let generic = s.section("generic");
        let secrets = secrets(&generic);
        if generic.is_present() && matches!(&secrets, Some(found) if found.is_empty()) {
            generic.fault("secret_file", "is missing", "name a file with one secret a line");
        }
        let unfit = |found: &Option<Vec<SecretString>>, fits: fn(&str) -> bool| {
            !s.secrets_later() && found.iter().flatten().any(|secret| !fits(secret.expose_secret()))
        };
        if unfit(&secrets, is_webhook_secret) {
            let advice = "make one with `echo whsec_$(openssl rand -base64 32)`, one a line";
            let problem = "holds a line that is not `whsec_` and 24 to 64 octets in base64";
            generic.fault("secret_file", problem, advice);
        }
        let extension = s.section("extension");
        let shared = self::secrets(&extension);
        let audience = extension.optional("audience", filled);
        if extension.is_present()
            && matches!((&shared, &audience), (Some(found), Some(None)) if found.is_empty())
        {
            let advice = "name a `secret_file`, or the `audience` of its bearer tokens";
            extension.fault("secret_file", "is missing", advice);
        }
        if unfit(&shared, |secret| secret.len() >= 16) {
            let problem = "holds a secret of less than 16 characters";
            extension.fault("secret_file", problem, "make a longer one");
        }
        Some(Self {
            generic: secrets?,
            extension: shared?,
            extension_audience: audience?,
        })
    }
}

/// The secrets under `secret` or in `secret_file`, one a line, so that one can take over from another.
fn secrets(s: &Section<'_>) -> Option<Vec<SecretString>> {
    let text = s.secret("secret")?;
    let lines = text.as_ref().map_or("", |text| text.expose_secret()).lines();
    let lines = lines.map(str::trim).filter(|line| !line.is_empty());
    Some(lines.map(|line| SecretString::from(line.to_owned())).collect())
}

fn is_webhook_secret(text: &str) -> bool {
    let octets = text
        .strip_prefix("whsec_")
        .and_then(|encoded| STANDARD.decode(encoded).ok());
    octets.is_some_and(|octets| (24..=64).contains(&octets.len()))
}

/// How often and how far back it is read.
struct Paces {
    poll_interval: Option<Span>,
    overlap: Option<Span>,
    backfill: Option<Span>,
    reconcile_interval: Option<Span>,
    timeout: Option<Duration>,
}

impl Paces {
    fn read(s: &Section<'_>) -> Self {
        let poll_interval = s.or(
            "poll_interval",
            Span::from_secs(2),
            span_between(Span::from_millis(100), Span::from_mins(5)),
        );
        let overlap = s.or(
            "overlap",
            Span::from_secs(30),
            span_between(Span::from_secs(1), Span::from_hours(24)),
        );
        let backfill = s.or(
            "backfill",
            Span::from_days(7),
            span_between(Span::from_mins(1), Span::from_days(90)),
        );
        let reconcile_interval = s.or(
            "reconcile_interval",
            Span::from_hours(24),
            span_between(Span::from_secs(1), Span::from_days(7)),
        );
        let timeout = s.or("timeout", Duration::from_secs(5), deadline);
        Self {
            poll_interval,
            overlap,
            backfill,
            reconcile_interval,
            timeout,
        }
    }
}

impl Upstream {
    /// The issuer of its tokens: `{url}/realms/{realm}`.
    #[must_use]
    pub fn issuer(&self) -> String {
        let mut issuer = self.url.clone();
        // As Keycloak writes it: a realm's name may have spaces and umlauts.
        if let Ok(mut path) = issuer.path_segments_mut() {
            path.pop_if_empty().extend(["realms", self.realm.as_str()]);
        }
        issuer.into()
    }

    /// The `sub` in our tokens for one of its accounts.
    #[must_use]
    pub fn public_sub(&self, sub: &str) -> String {
        format!("{}{sub}", self.prefix)
    }

    fn read(s: &Section<'_>) -> Option<Self> {
        let id = s.required("id", "keycloak", |t| {
            UpstreamId::parse(t).ok_or_else(|| format!("is `{t}`; write 1 to 32 of a-z, 0-9 and -"))
        });
        let name = s.optional("name", filled);
        let identity = s.optional("identity", filled);
        let kind = s.choice(
            "kind",
            UpstreamKind::Keycloak,
            &[("keycloak", UpstreamKind::Keycloak)],
        );
        let url = s.required("url", "https://login.example.com", keycloak_url);
        let realm = s.required("realm", "customers", realm);
        let admin = credentials(&s.section("admin"), true);
        let broker = credentials(&s.section("broker"), false);
        let prefix = s.or("prefix", String::new(), prefix);
        let paces = Paces::read(s);
        let phone_attributes = phone_attributes(s);
        let cannot = [("disable", CannotHold::Disable), ("leave", CannotHold::Leave)];
        let held_admins = s.choice("held_admins", CannotHold::Disable, &cannot);
        let unholdable = s.choice("unholdable", CannotHold::Disable, &cannot);
        let lifespan =
            |key: &str, default: Span, most: Span| s.or(key, default, span_between(Span::from_mins(1), most));
        let reset_lifespan = lifespan("reset_lifespan", Span::from_mins(5), Span::from_days(7));
        let admin_lifespan = lifespan("admin_lifespan", Span::from_hours(12), Span::from_days(30));
        let fresh_login_for_actions = s.flag("fresh_login_for_actions", false);
        let resets_leave_lines = s.flag("resets_leave_lines", true);
        let hooks = Hooks::read(&s.section("hooks"));
        let id = id?;
        Some(Self {
            name: name?.unwrap_or_else(|| id.to_string()),
            id,
            kind: kind?,
            url: url?,
            realm: realm?,
            identity: identity?,
            admin: admin??,
            broker: broker?,
            prefix: prefix?,
            poll_interval: super::values::duration(paces.poll_interval?),
            overlap: paces.overlap?,
            backfill: paces.backfill?,
            reconcile_interval: super::values::duration(paces.reconcile_interval?),
            timeout: paces.timeout?,
            phone_attributes: phone_attributes?.into_iter().collect(),
            held_admins: held_admins?,
            unholdable: unholdable?,
            reset_lifespan: reset_lifespan?,
            admin_lifespan: admin_lifespan?,
            fresh_login_for_actions: fresh_login_for_actions?,
            resets_leave_lines: resets_leave_lines?,
            hooks: hooks?,
        })
    }
}

fn phone_attributes(s: &Section<'_>) -> Option<Vec<String>> {
    match s.node("phone_attributes") {
        None => Some(vec!["phoneNumber".to_owned()]),
        Some(_) => s.list("phone_attributes", filled),
    }
}

fn realm(text: &str) -> Result<String, String> {
    // Keycloak takes spaces and umlauts; what would leave the place of one path segment it does not.
    let fits = !matches!(text, "" | "." | "..")
        && text.trim() == text
        && !text.contains(['/', '\\', '?', '#', '%', ';'])
        && !text.contains(char::is_control);
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is `{text}`, not the name of a realm: write it as the console shows it, without `/ \\ ? # % ;` and spaces around it"
        ))
    }
}

fn keycloak_url(text: &str) -> Result<Url, String> {
    let url = base_url(text)?;
    if url.path().contains("/realms/") {
        return Err(format!(
            "is `{text}`; write the server's base URL, the realm stands in `realm`"
        ));
    }
    Ok(url)
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = text.len() <= 32
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_:.|".contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("is `{text}`; write at most 32 of a-z, 0-9 and - _ : . |"))
    }
}

#[expect(clippy::option_option, reason = "not there and not readable are two things")]
fn credentials(s: &Section<'_>, required: bool) -> Option<Option<ClientCredentials>> {
    if !required && !s.is_present() {
        let _ = (s.node("client_id"), s.node("secret"), s.node("secret_file"));
        return Some(None);
    }
    let client_id = s.required("client_id", "reentry", filled);
    let secret = s.secret("secret");
    let secret_file = s.file("secret_file")?;
    if matches!(secret, Some(None)) {
        s.fault(
            "secret_file",
            "is missing",
            "name a file with the client's secret",
        );
    }
    Some(Some(ClientCredentials {
        client_id: client_id?,
        secret: secret??,
        secret_file,
    }))
}

pub(super) fn read_all(root: &Section<'_>) -> Option<Vec<Upstream>> {
    let sections = root.sections("upstreams");
    if sections.is_empty() {
        root.fault(
            "upstreams",
            "names no identity provider",
            "add one, as `reentry config default` shows",
        );
    }
    let read: Vec<Option<Upstream>> = sections.iter().map(Upstream::read).collect();
    let mut ids = BTreeSet::new();
    let mut prefixes: BTreeSet<&str> = BTreeSet::new();
    for (s, upstream) in sections.iter().zip(&read) {
        let Some(upstream) = upstream else { continue };
        if !ids.insert(upstream.id.clone()) {
            s.fault(
                "id",
                format!("is `{}`, as another's", upstream.id),
                "give every upstream its own id",
            );
        }
        if !prefixes.insert(&upstream.prefix) {
            let (problem, advice) = if upstream.prefix.is_empty() {
                (
                    "is missing, and another upstream has none either",
                    "write for example `prefix: \"staff:\"`: two accounts must never share a `sub`",
                )
            } else {
                ("is another upstream's too", "give every upstream its own prefix")
            };
            s.fault("prefix", problem, advice);
        }
        for other in prefixes
            .iter()
            .filter(|p| !p.is_empty() && **p != upstream.prefix)
        {
            if !upstream.prefix.is_empty()
                && (other.starts_with(&upstream.prefix) || upstream.prefix.starts_with(*other))
            {
                let problem = format!("is `{}`, which begins like another's, `{other}`", upstream.prefix);
                s.fault("prefix", problem, "choose prefixes of which none begins another");
            }
        }
    }
    read.into_iter().collect()
}
