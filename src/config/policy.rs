//! The policy file: tiers with their tables, what action classes mean, and times.
//!
//! The text becomes [`Policy`] only when every account has a tier, every tier answers every row, and nobody can be
//! frozen for good. What is merely unwise is a warning.

mod expression;
mod tier;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use super::client::client_scope;
use super::fault::{Fault, Place};
use super::node::{self, Entry, Node, Value};
use super::reader::{Findings, Section};
use super::values::span_between;
use super::words::filled;
use crate::domain::ceiling::{Class, STANDARD};
use crate::domain::policy::{IDENTITY_SCOPES, Lifetimes, Policy, claims};
use crate::domain::time::Span;

const YEAR: Span = Span::from_days(366);
const INSTANT: Span = Span::from_secs(1);

/// Reads a policy from a text of its own.
pub(super) fn from_text(text: &str, findings: &Findings) -> Option<Policy> {
    match node::parse(text) {
        Ok(root) => {
            let root = in_policy_file(root);
            let section = Section::root(&root, findings, Path::new(""));
            read(&section, Some(text))
        }
        Err(faults) => {
            for fault in faults {
                findings.fault(Fault {
                    place: moved(fault.place),
                    ..fault
                });
            }
            None
        }
    }
}

fn moved(place: Place) -> Place {
    match place {
        Place::File { line, column } => Place::Policy { line, column },
        other => other,
    }
}

fn in_policy_file(node: Node) -> Node {
    let value = match node.value {
        Value::List(nodes) => Value::List(nodes.into_iter().map(in_policy_file).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|e| Entry {
                    key: e.key,
                    place: moved(e.place),
                    node: in_policy_file(e.node),
                })
                .collect(),
        ),
        other => other,
    };
    Node {
        place: moved(node.place),
        value,
    }
}

/// Reads a policy section. Its digest is that of `text`, or of the section's canonical form when it stands in the
/// configuration.
pub(super) fn read(s: &Section<'_>, text: Option<&str>) -> Option<Policy> {
    let usual = Policy::standard();
    let tiers = tier::read_all(s);
    let scopes = scopes(s);
    let roles = words(s, "roles");
    let groups = words(s, "groups");
    let standard = || claims::SCOPED.iter().flat_map(|(_, names)| names.iter());
    let passing = match s.node("claims") {
        None => Some(standard().map(|name| (*name).to_owned()).collect()),
        Some(_) => s.list("claims", claim),
    };
    let admin_roles = match s.node("admin_roles") {
        None => Some(usual.admin_roles.iter().cloned().collect()),
        Some(_) => s.list("admin_roles", filled),
    };
    if admin_roles.as_ref().is_some_and(Vec::is_empty) {
        s.fault(
            "admin_roles",
            "names nobody, so a frozen account could never be thawed",
            "name the role of your administrators",
        );
    }
    let lifetimes = lifetimes(&s.section("lifetimes"), &usual.lifetimes);
    let times = times(s, &usual);
    let rolling = s.flag("rolling", usual.rolling);
    let (tiers, choices, default_tier) = tiers?;
    let policy = Policy {
        digest: digest_of(s, text),
        tiers,
        choices,
        default_tier,
        scopes: scopes?,
        roles: roles?,
        groups: groups?,
        claims: passing?.into_iter().collect(),
        admin_roles: admin_roles?.into_iter().collect(),
        lifetimes: lifetimes?,
        rolling: rolling?,
        ..times?
    };
    undeclared(s, &policy);
    Some(policy)
}

/// The standard policy with the times of this one.
fn times(s: &Section<'_>, usual: &Policy) -> Option<Policy> {
    let short = s.flag("unsafe_short_clocks", false)?;
    if short {
        let problem =
            "is set: guards may last a second, so whoever holds an account need not wait for anybody";
        s.warn("unsafe_short_clocks", problem, "take it away where people live");
    }
    let time = |key: &str, usual: Span, least: Span, most: Span| s.or(key, usual, span_between(least, most));
    // A guard that lasts a moment guards nothing; what tries things out says so.
    let guard = |key: &str, usual: Span, least: Span, most: Span| {
        time(key, usual, if short { least.min(INSTANT) } else { least }, most)
    };
    let (hour, day, month, quarter) = (
        Span::from_hours(1),
        Span::from_days(1),
        Span::from_days(30),
        Span::from_days(90),
    );
    let probation = guard("probation", usual.probation, day, quarter);
    let enrolment_window = time("enrolment_window", usual.enrolment_window, Span::ZERO, quarter);
    let told_min = time("told_min", usual.told_min, INSTANT, Span::from_days(7));
    let veto_min = time("veto_min", usual.veto_min, INSTANT, YEAR);
    let veto_after_hold = time("veto_after_hold", usual.veto_after_hold, INSTANT, YEAR);
    let link_validity = guard("link_validity", usual.link_validity, Span::from_days(7), quarter);
    let report_window = guard("report_window", usual.report_window, day, YEAR);
    let thaw_wait = guard("thaw_wait", usual.thaw_wait, hour, month);
    let lapse_after = guard("lapse_after", usual.lapse_after, day, month);
    let loosening_wait = guard("loosening_wait", usual.loosening_wait, hour, month);
    if let (Some(veto), Some(probation)) = (veto_min, probation)
        && veto <= probation
    {
        let problem = format!("is {veto}, not longer than the probation ({probation})");
        let advice = "a removed address must keep its word for longer than a new one waits for its own";
        s.fault("veto_min", problem, advice);
    }
    Some(Policy {
        probation: probation?,
        enrolment_window: enrolment_window?,
        told_min: told_min?,
        veto_min: veto_min?,
        veto_after_hold: veto_after_hold?,
        link_validity: link_validity?,
        report_window: report_window?,
        thaw_wait: thaw_wait?,
        lapse_after: lapse_after?,
        loosening_wait: loosening_wait?,
        ..usual.clone()
    })
}

/// First 16 hexadecimal digits of the SHA-256.
fn digest_of(s: &Section<'_>, text: Option<&str>) -> String {
    use std::fmt::Write as _;
    let canonical = text.map_or_else(|| s.canonical(), str::to_owned);
    let mut hex = String::with_capacity(16);
    for octet in digest(&SHA256, canonical.as_bytes()).as_ref().iter().take(8) {
        let _ = write!(hex, "{octet:02x}");
    }
    hex
}

/// A class that a policy may use.
pub(super) fn class(text: &str) -> Result<Class, String> {
    Class::parse(text).filter(Class::is_declared).ok_or_else(|| {
        let hint = super::words::nearest(text, &STANDARD)
            .map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
        format!(
            "is `{text}`, not an action class ({}, or your own beginning with x_){hint}",
            STANDARD.join(", ")
        )
    })
}

fn claim(text: &str) -> Result<String, String> {
    if claims::is_reserved(text) {
        return Err(format!(
            "is `{text}`, which no identity provider may set in our tokens; leave it out"
        ));
    }
    if claims::is_right(text) {
        return Err(format!(
            "is `{text}`, which says what somebody may do and would go out whole in a hold; roles and groups go out by \
             themselves, name in the maps `roles:` and `groups:` those that stay in a hold, and leave it out here"
        ));
    }
    filled(text)
}

type Classes = BTreeMap<Class, BTreeSet<String>>;

/// The map `scopes`: class to OAuth scopes.
fn scopes(s: &Section<'_>) -> Option<Classes> {
    classes(s, "scopes", |text| {
        let scope = client_scope(text)?;
        if IDENTITY_SCOPES.contains(&text) {
            return Err(format!(
                "is `{text}`, which only says who somebody is and is never taken away; leave it out"
            ));
        }
        if text == "offline_access" {
            return Err("is `offline_access`, which is never given in a hold; leave it out".to_owned());
        }
        Ok(scope)
    })
}

/// The maps `roles` and `groups`.
fn words(s: &Section<'_>, key: &str) -> Option<Classes> {
    classes(s, key, |text| {
        if claims::is_own_role(text) || claims::is_own_group(text) {
            return Err(format!(
                "is `{text}`, which is ours and never goes out; leave it out"
            ));
        }
        filled(text)
    })
}

fn classes(s: &Section<'_>, key: &str, read: impl Fn(&str) -> Result<String, String>) -> Option<Classes> {
    let section = s.section(key);
    let mut map = Classes::new();
    let mut whole = true;
    for (name, place, _) in section.entries() {
        let known = class(name).map_err(|problem| {
            s.findings()
                .fault(Fault::new(&section.path(name), place.clone(), problem));
        });
        let words = section.list(name, &read);
        match (known, words) {
            (Ok(known), Some(words)) => {
                map.insert(known, words.into_iter().collect());
            }
            _ => whole = false,
        }
    }
    whole.then_some(map)
}

fn lifetimes(s: &Section<'_>, usual: &Lifetimes) -> Option<Lifetimes> {
    let most = Span::from_mins(15);
    let restricted = s.or(
        "restricted",
        usual.restricted,
        span_between(Span::from_secs(5), Span::from_mins(5)),
    );
    let long = s.flag("allow_long_access", false);
    let limit = if long == Some(true) {
        Span::from_hours(24)
    } else {
        most
    };
    let access = s.or("access", usual.access, |text| {
        span_between(Span::from_secs(5), limit)(text).map_err(|why| {
            if long == Some(true) { why } else {
                format!("{why} (tokens already out still say `full` after a change); set `allow_long_access: true` if you accept that")
            }
        })
    });
    if long == Some(true) && access.is_some_and(|a| a > most) {
        s.warn(
            "access",
            "is longer than 15m: tokens already out say `full` for that long after a change",
            "shorten it",
        );
    }
    let id = s.or(
        "id",
        usual.id,
        span_between(Span::from_secs(5), Span::from_hours(24)),
    );
    let session = s.or(
        "session",
        usual.session,
        span_between(Span::from_mins(1), Span::from_days(90)),
    );
    let offline = s.or("offline", usual.offline, span_between(Span::from_mins(1), YEAR));
    let refresh_grace = s.or(
        "refresh_grace",
        usual.refresh_grace,
        span_between(Span::ZERO, Span::from_mins(2)),
    );
    Some(Lifetimes {
        restricted: restricted?,
        access: access?,
        id: id?,
        session: session?,
        offline: offline?,
        refresh_grace: refresh_grace?,
    })
}

/// A class that a hold allows but that means no scope and no role gives nothing where scopes are configured.
fn undeclared(s: &Section<'_>, policy: &Policy) {
    if policy.scopes.is_empty() {
        let problem =
            "is empty: in a hold every scope but openid, profile, email, address and phone is taken away";
        s.warn(
            "scopes",
            problem,
            "list under each action class the scopes it stands for",
        );
    }
}
