//! What a relying party does with a token of an account that may be recovering: contract section 2, exactly.
//!
//! Pure: no network, no clock, no storage. The relying party checks the token's signature, `aud` and `exp` with
//! the JOSE library it has already, reads header and payload with [`json::object`] (a repeated member rejects the
//! token), and asks [`Checker::admit`] whether this is an access token of a pinned issuer. Then, at each endpoint,
//! [`Checker::check`] says whether the endpoint's action class may be used, and how to refuse if not.
//!
//! ```
//! use reentry::domain::ceiling::Class;
//! use reentry::rp::{Checker, Config, Decision, json, profile::Profile};
//!
//! let checker = Checker::new(Config {
//!     protected: [("https://id.example.com".to_owned(), Profile::Reentry)].into(),
//!     ..Config::default()
//! });
//! let claims = json::object(
//!     br#"{"iss":"https://id.example.com","scope":"openid payments:read","recovery_scope":"read"}"#,
//! )?;
//! let (read, pay) = (Class::parse("read"), Class::parse("pay"));
//! assert_eq!(checker.check(&claims, read.as_ref(), Some("payments:read")), Decision::Allow);
//! assert!(matches!(checker.check(&claims, pay.as_ref(), Some("payments:write")), Decision::Hold(_)));
//! # Ok::<(), json::Malformed>(())
//! ```
//!
//! Two denials that must never be mixed, or clients loop (RFC 9470 §5): [`Decision::StepUp`] (401) only when a
//! step-up would help, [`Decision::Hold`] (403) otherwise. An application that keeps a cookie session of its own
//! has to ask again before `pay`, `export`, `credential` and `admin`, or take back-channel logout (rule 10).

pub mod epoch;
pub mod profile;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::domain::ceiling::{Ceiling, Class, HOLD_WORD};
pub use crate::domain::json;
use crate::domain::time::Timestamp;
use profile::Profile;

/// The claim that holds the ceiling.
pub const CLAIM: &str = "recovery_scope";
/// The `type` of the problem document of a 403 (RFC 9457 §3.1.1).
pub const PROBLEM: &str = "urn:reentry:problem:recovery-hold";
/// The `acr` that a step-up has to reach: granted only to a factor of before the change and past its probation.
pub const ELIGIBLE_ACR: &str = "urn:reentry:acr:eligible";
/// `Retry-After` of a hold whose end is not known, in seconds: the lifetime of a restricted token.
pub const RETRY_UNKNOWN: u64 = 300;

/// What a token without the claim may do, while issuers and relying parties are being switched over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: absence is an error (the rule).
    #[default]
    Deny,
    /// Only `read` (the roll-out). `full` is not offered.
    Read,
}

/// The relying party's own configuration. Nothing of it is ever read from a token.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Issuers (`iss`, compared octet by octet) whose tokens carry the claim, with how to know an access token.
    pub protected: BTreeMap<String, Profile>,
    /// Further issuers that are trusted without the claim. A token of any other issuer is rejected.
    pub unprotected: BTreeSet<String>,
    /// A second name of the claim, for IdPs that demand a namespace: `https://<domain>/recovery_scope`.
    pub alias: Option<String>,
    /// The roll-out switch.
    pub missing: Missing,
    /// The owner's page, named in a refusal as `recovery_info`: what is limited, until when, how to lift.
    pub info: Option<String>,
}

/// The checker. Cheap to keep and to share.
#[derive(Clone, Debug)]
pub struct Checker {
    config: Config,
}

/// Whether an endpoint may be used with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow,
    /// 401 with this `WWW-Authenticate`: the client repeats the authorization request with what it says.
    StepUp(String),
    /// 403: only time, or the owner's page, helps.
    Hold(Hold),
    /// 403 with this `WWW-Authenticate`: the ceiling allows it, the ordinary scope does not (RFC 6750 §3.1).
    Scope(String),
    /// 401 with this `WWW-Authenticate`: not a token of an issuer that is trusted here.
    Reject(String),
}

/// A refusal that a step-up would not lift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What the token may be used for.
    pub allowed: Ceiling,
    /// Expected end in unix seconds, for display. A relying party lifts nothing by itself.
    pub until: Option<i64>,
    /// Case id for support.
    pub reference: Option<String>,
    /// The owner's page.
    pub info: Option<String>,
}

impl Hold {
    /// `Retry-After` in seconds (RFC 9110 §10.2.3), at least 1.
    #[must_use]
    pub fn retry_after(&self, now: Timestamp) -> u64 {
        let left = self.until.map(|until| until.saturating_sub(now.secs()).max(1));
        left.and_then(|secs| u64::try_from(secs).ok())
            .unwrap_or(RETRY_UNKNOWN)
    }

    /// The problem document, `application/problem+json`. Members that are not known are left out.
    #[must_use]
    pub fn problem(&self) -> Value {
        let mut document = json!({
            "type": PROBLEM,
            "title": "This account is limited after a recovery",
            "status": 403,
            CLAIM: self.allowed.to_string(),
        });
        if let Some(members) = document.as_object_mut() {
            let optional = [
                ("recovery_until", self.until.map(Value::from)),
                ("recovery_ref", self.reference.clone().map(Value::from)),
                ("recovery_info", self.info.clone().map(Value::from)),
            ];
            for (name, value) in optional {
                members.extend(value.map(|v| (name.to_owned(), v)));
            }
        }
        document
    }
}

/// What the claim said.
enum Said {
    /// A ceiling by the grammar.
    Well(Ceiling),
    /// Nothing was said.
    Absent,
    /// Something else.
    Broken,
}

impl Checker {
    /// A checker for this configuration.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self { config }
    }

    /// Rules 1 and 2, after the signature, `aud` and `exp` were checked: whether header and payload are those of
    /// an access token of a trusted issuer. An ID token never is.
    #[must_use]
    pub fn admit(&self, header: &Map<String, Value>, claims: &Map<String, Value>) -> bool {
        let Some(iss) = claims.get("iss").and_then(Value::as_str) else {
            return false;
        };
        match self.config.protected.get(iss) {
            Some(profile) => profile.accepts(header, claims),
            None => self.config.unprotected.contains(iss) && !profile::critical(header),
        }
    }

    /// Rules 3 to 5: what a token of a protected issuer may be used for at most.
    #[must_use]
    pub fn effective(&self, claims: &Map<String, Value>) -> Ceiling {
        let own = match self.said(claims) {
            Said::Well(ceiling) => ceiling,
            Said::Absent if self.config.missing == Missing::Read => Ceiling::of(&["read"]),
            Said::Absent | Said::Broken => Ceiling::none(),
        };
        own.intersect(&named_in_scope(claims))
    }

    /// Rules 6 to 8 for an endpoint of `class` (`None`: it declares no class and needs `full`) that also needs the
    /// OAuth `scope` word. `claims` is the payload of a token that [`Self::admit`] let through.
    #[must_use]
    pub fn check(&self, claims: &Map<String, Value>, class: Option<&Class>, scope: Option<&str>) -> Decision {
        let iss = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let ceiling = match self.config.protected.get(iss) {
            Some(_) => self.effective(claims),
            None if self.config.unprotected.contains(iss) => Ceiling::Full,
            None => return Decision::Reject(challenge("invalid_token", &[])),
        };
        let allowed = class.map_or(ceiling.is_full(), |class| ceiling.allows(class));
        if !allowed {
            return self.refuse(claims, class, scope, ceiling);
        }
        let granted = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
        match scope.filter(|needed| !granted.split(' ').any(|word| word == *needed)) {
            Some(needed) => Decision::Scope(challenge("insufficient_scope", &[("scope", needed)])),
            None => Decision::Allow,
        }
    }

    /// Rule 8: one of the two denials.
    fn refuse(
        &self,
        claims: &Map<String, Value>,
        class: Option<&Class>,
        scope: Option<&str>,
        allowed: Ceiling,
    ) -> Decision {
        let liftable = class.filter(|class| self.lifts(claims, class));
        if liftable.is_some() {
            let mut parameters = vec![("acr_values", ELIGIBLE_ACR), ("max_age", "300")];
            parameters.extend(scope.map(|scope| ("scope", scope)));
            return Decision::StepUp(challenge("insufficient_user_authentication", &parameters));
        }
        Decision::Hold(Hold {
            allowed,
            until: claims.get("recovery_until").and_then(numeric_date),
            reference: claims
                .get("recovery_ref")
                .and_then(Value::as_str)
                .map(str::to_owned),
            info: self.config.info.clone(),
        })
    }

    /// Whether a step-up would lift `class`. A token whose own claim is broken is not mended by one.
    fn lifts(&self, claims: &Map<String, Value>, class: &Class) -> bool {
        let iss = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let carries = self.config.protected.get(iss).is_some_and(|p| p.carries_lift());
        let lift = claims
            .get("recovery_lift")
            .and_then(Value::as_str)
            .and_then(Ceiling::parse);
        carries
            && matches!(self.said(claims), Said::Well(_))
            && lift.is_some_and(|lift| !lift.is_full() && lift.allows(class))
    }

    /// Rules 3 and 4.
    fn said(&self, claims: &Map<String, Value>) -> Said {
        let alias = self.config.alias.as_deref().and_then(|alias| claims.get(alias));
        let value = match (claims.get(CLAIM), alias) {
            (Some(own), Some(alias)) if own != alias => return Said::Broken,
            (Some(value), _) | (None, Some(value)) => value,
            (None, None) => return Said::Absent,
        };
        value
            .as_str()
            .and_then(Ceiling::parse)
            .map_or(Said::Broken, Said::Well)
    }
}

/// Rule 5: the ceilings among the words of `scope`; full when there are none.
fn named_in_scope(claims: &Map<String, Value>) -> Ceiling {
    let words = match claims.get("scope") {
        None => return Ceiling::Full,
        Some(Value::String(words)) => words,
        Some(_) => return Ceiling::none(),
    };
    words
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(HOLD_WORD))
        .fold(Ceiling::Full, |all, level| {
            all.intersect(&Ceiling::parse_level(level))
        })
}

/// A `NumericDate`, or the decimal string of an IdP that has only strings.
fn numeric_date(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

/// A `WWW-Authenticate` value (RFC 6750 §3). A parameter that does not fit into a quoted string is left out.
fn challenge(error: &str, parameters: &[(&str, &str)]) -> String {
    use std::fmt::Write as _;
    let mut text = format!("Bearer error=\"{error}\"");
    let printable = |value: &str| {
        value
            .bytes()
            .all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\')
    };
    for (name, value) in parameters.iter().filter(|(_, value)| printable(value)) {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {name}=\"{value}\"");
    }
    text
}
