//! The table of the domain, in code. The embedded default policy file says the same, and a test holds them equal.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::SCOPED;
use super::{AtEnd, Choice, ContestedAtIdp, Exit, Lifetimes, Policy, Response, Rollout, Tier};
use crate::domain::ceiling::Ceiling;
use crate::domain::change::Row;
use crate::domain::tier::{Expression, TierName};
use crate::domain::time::Span;

fn hold(hours: i64, allow: &[&str]) -> Response {
    Response::Hold {
        length: Span::from_hours(hours),
        allow: Ceiling::of(allow),
    }
}

/// The standard claims of `profile`, `email`, `address` and `phone`; each passes with its scope (OIDC Core §5.4).
fn standard_claims() -> BTreeSet<String> {
    let names = SCOPED.iter().flat_map(|(_, names)| names.iter());
    names.map(|name| (*name).to_owned()).collect()
}

fn tier(name: &str, at_end: AtEnd, answers: [Response; 10]) -> Tier {
    Tier {
        name: TierName(name.to_owned()),
        enforce: Rollout::On,
        at_end,
        holds: Row::TABLE.into_iter().zip(answers).collect(),
        exits: BTreeSet::from([Exit::Thaw, Exit::Lapse]),
        contested_at_idp: ContestedAtIdp::Disable,
    }
}

/// How tiers are chosen, strictest first: by roles that a deployment gives its accounts for this alone, by the role
/// that opens our admin API, and by any role in Keycloak's own administration.
const CHOICES: [(&str, &str); 3] = [
    ("high_assurance", "'reentry-high-assurance' in roles"),
    (
        "b2b_admin",
        "'reentry-b2b-admin' in roles || 'reentry-admin' in roles || roles.exists(r, r.startsWith('realm-management/'))",
    ),
    ("b2b_user", "'reentry-b2b-user' in roles"),
];

fn choices() -> Vec<Choice> {
    let compiled = CHOICES.iter().filter_map(|(tier, when)| {
        let when = Expression::compile(when).ok()?;
        Some(Choice {
            tier: TierName((*tier).to_owned()),
            when,
        })
    });
    compiled.collect()
}

/// The four tiers, from the loosest to the strictest. The columns of the domain's table.
fn tiers() -> Vec<Tier> {
    let rw: &[&str] = &["read", "write"];
    let r: &[&str] = &["read"];
    let notice = || Response::Notice;
    let consumer = [
        hold(24, rw),
        notice(),
        notice(),
        hold(24, rw),
        notice(),
        hold(24, rw),
        hold(72, rw),
        hold(720, r),
        notice(),
        notice(),
    ];
    let b2b_user = [
        hold(24, rw),
        hold(1, rw),
        notice(),
        hold(24, rw),
        hold(6, rw),
        hold(24, rw),
        hold(72, r),
        hold(720, r),
        notice(),
        notice(),
    ];
    let b2b_admin = [
        hold(72, r),
        hold(24, r),
        hold(24, rw),
        hold(72, r),
        hold(24, r),
        hold(72, r),
        hold(72, r),
        hold(720, r),
        notice(),
        notice(),
    ];
    let high = [
        hold(72, r),
        hold(24, r),
        hold(24, rw),
        hold(72, r),
        hold(24, r),
        hold(72, r),
        hold(168, r),
        hold(720, &[]),
        notice(),
        notice(),
    ];
    vec![
        tier("consumer", AtEnd::Auto, consumer),
        tier("b2b_user", AtEnd::Auto, b2b_user),
        tier("b2b_admin", AtEnd::FreshLogin, b2b_admin),
        tier("high_assurance", AtEnd::FreshLogin, high),
    ]
}

impl Policy {
    /// The default policy. Its scope, role and group maps are empty: a deployment names its own.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            digest: "standard".to_owned(),
            tiers: tiers(),
            choices: choices(),
            default_tier: TierName("consumer".to_owned()),
            scopes: BTreeMap::new(),
            roles: BTreeMap::new(),
            groups: BTreeMap::new(),
            claims: standard_claims(),
            admin_roles: BTreeSet::from(["reentry-admin".to_owned()]),
            lifetimes: Lifetimes {
                restricted: Span::from_mins(5),
                access: Span::from_mins(15),
                id: Span::from_mins(15),
                session: Span::from_hours(12),
                offline: Span::from_days(30),
                refresh_grace: Span::from_secs(10),
            },
            probation: Span::from_days(7),
            enrolment_window: Span::from_days(7),
            told_min: Span::from_hours(6),
            veto_min: Span::from_days(30),
            veto_after_hold: Span::from_days(7),
            link_validity: Span::from_days(30),
            report_window: Span::from_days(30),
            thaw_wait: Span::from_hours(24),
            lapse_after: Span::from_hours(72),
            rolling: true,
            loosening_wait: Span::from_hours(24),
        }
    }
}
