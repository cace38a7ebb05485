//! The rules of a deployment, validated: tiers, their hold table, what a class means in scopes, roles and groups.
//!
//! `config` reads the policy file into these types; [`Policy::standard`] is the table of the domain in code and
//! the embedded default file is held equal to it by a test.

pub mod claims;
pub mod inforce;
mod standard;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::ceiling::{Ceiling, Class};
use crate::domain::change::Row;
use crate::domain::subject::account::Facts;
use crate::domain::tier::{Expression, TierName};
use crate::domain::time::{Span, Timestamp};

/// What a tier does about one row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Tell everyone; tokens stay whole.
    Notice,
    /// Restrict tokens, and tell everyone.
    Hold {
        /// How long, nominally (doubled until a notice has been accepted).
        length: Span,
        /// What stays allowed.
        allow: Ceiling,
    },
}

/// How far a tier's rules are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollout {
    /// Everything is computed, logged and counted; nothing changes.
    Shadow,
    /// In force for this many of 10,000 accounts, by keyed hash of the subject.
    Cohort(u16),
    /// In force. The default.
    On,
}

impl Rollout {
    /// Whether an account whose keyed hash falls on `place` (0..10,000) is restricted.
    #[must_use]
    pub const fn enforces(self, place: u16) -> bool {
        match self {
            Self::Shadow => false,
            Self::Cohort(share) => place < share,
            Self::On => true,
        }
    }
}

/// How tokens become whole again after the end of a hold (ISS-7), from the loosest to the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtEnd {
    /// A refresh family becomes full by itself at its next refresh.
    Auto,
    /// Only a log-in after the end.
    FreshLogin,
    /// Only a log-in after the end, with no factor younger than the probation on the account.
    FreshEligibleLogin,
}

/// Ways out of a freeze that a tier may use (domain "Contested").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Two different administrators, a finding, a wait.
    Thaw,
    /// The freeze of a channel that was gone before the contested change, and that nobody confirmed for 72 h, turns into a
    /// `read` hold.
    Lapse,
    /// m of n trusted intermediaries.
    Quorum,
    /// An identity-verification provider.
    IdentityVerification,
    /// An eligible passkey with user verification, 24 h after everyone was told.
    Passkey,
}

/// What an IdP's own tokens are while an account is contested (Keycloak token mode, ISS-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContestedAtIdp {
    /// The account is disabled at the IdP.
    Disable,
    /// The account's tokens say `none`.
    IssueNone,
}

/// One rule set.
#[derive(Clone, Debug)]
pub struct Tier {
    /// Its name.
    pub name: TierName,
    /// How far it is in force.
    pub enforce: Rollout,
    /// How tokens become whole again.
    pub at_end: AtEnd,
    /// The table: every row of [`Row::TABLE`] is present (validated).
    pub holds: BTreeMap<Row, Response>,
    /// Ways out of a freeze; never empty of reachable ones (validated).
    pub exits: BTreeSet<Exit>,
    /// What the IdP's own tokens are while contested.
    pub contested_at_idp: ContestedAtIdp,
}

impl Tier {
    /// The answer to a row. A row that is missing in spite of validation is answered as strictly as can be.
    #[must_use]
    pub fn response(&self, row: Row) -> Response {
        self.holds.get(&row).cloned().unwrap_or(Response::Hold {
            length: Span::from_days(30),
            allow: Ceiling::none(),
        })
    }
}

/// A tier chosen by an expression.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The tier.
    pub tier: TierName,
    /// When it is chosen: the first choice that matches wins.
    pub when: Expression,
}

/// Token lifetimes (ISS-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Access token while restricted; at most 5 min.
    pub restricted: Span,
    /// Access token otherwise; at most 15 min by default.
    pub access: Span,
    /// ID token.
    pub id: Span,
    /// A session at the broker, and every refresh family in it, from log-in on.
    pub session: Span,
    /// An offline refresh family (`offline_access` granted outside any hold).
    pub offline: Span,
    /// How long a client that lost the answer to a refresh may send the former refresh token again.
    pub refresh_grace: Span,
}

/// The whole policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// First 16 hex digits of the SHA-256 of the policy text; recorded with every cause.
    pub digest: String,
    /// Rule sets from the loosest to the strictest; never empty (validated).
    pub tiers: Vec<Tier>,
    /// How the tier of an account is chosen.
    pub choices: Vec<Choice>,
    /// The tier of an account that no choice matches.
    pub default_tier: TierName,
    /// OAuth scopes of each class.
    pub scopes: BTreeMap<Class, BTreeSet<String>>,
    /// Role values of each class.
    pub roles: BTreeMap<Class, BTreeSet<String>>,
    /// Group values of each class.
    pub groups: BTreeMap<Class, BTreeSet<String>>,
    /// Names of upstream claims that pass into our tokens.
    pub claims: BTreeSet<String>,
    /// Roles at the IdP whose holders may use the admin API.
    pub admin_roles: BTreeSet<String>,
    /// Lifetimes of tokens.
    pub lifetimes: Lifetimes,
    /// How long a factor or contact has no voice after enrolment (7 d).
    pub probation: Span,
    /// How long after its creation an account's first credentials are an invitation (7 d).
    pub enrolment_window: Span,
    /// A hold ends no earlier than this after a notice was accepted (6 h, or a quarter of its length).
    pub told_min: Span,
    /// A removed channel keeps notices and veto at least this long (30 d) ...
    pub veto_min: Span,
    /// ... and at least this long after the end of the hold (7 d).
    pub veto_after_hold: Span,
    /// How long a report link works (30 d).
    pub link_validity: Span,
    /// A channel's second report within this is recorded and told, without effect (30 d).
    pub report_window: Span,
    /// Between the second administrator's word and the thaw (24 h).
    pub thaw_wait: Span,
    /// The freeze of a former channel lapses into a hold after this without confirmation (72 h).
    pub lapse_after: Span,
    /// Whether a further change extends a hold that is under way; `false` is npm's way.
    pub rolling: bool,
    /// How long a policy that became looser waits before it is in force (24 h).
    pub loosening_wait: Span,
}

/// Scopes that say who somebody is and allow nothing (ISS-4).
pub const IDENTITY_SCOPES: [&str; 5] = ["openid", "profile", "email", "address", "phone"];

/// Asks for a refresh token that outlives the session: never in a hold, whatever class a policy puts it in (ISS-4).
pub const OFFLINE_ACCESS: &str = "offline_access";

impl Policy {
    /// The rule set by its name; the strictest when there is none of that name any more.
    #[must_use]
    pub fn tier(&self, name: &TierName) -> Option<&Tier> {
        self.tiers
            .iter()
            .find(|t| t.name == *name)
            .or_else(|| self.strictest())
    }

    /// The strictest rule set.
    #[must_use]
    pub fn strictest(&self) -> Option<&Tier> {
        self.tiers.last()
    }

    /// Chooses the tier for an account; `facts` is `None` when they could not be read.
    #[must_use]
    pub fn choose(&self, facts: Option<&Facts>) -> Option<&Tier> {
        let Some(facts) = facts else {
            return self.strictest();
        };
        for choice in &self.choices {
            match choice.when.matches(facts) {
                Some(true) => return self.tier(&choice.tier),
                Some(false) => {}
                None => return self.strictest(),
            }
        }
        self.tier(&self.default_tier)
    }

    /// Until when a channel that was removed at `gone` keeps its voice.
    #[must_use]
    pub fn veto_end(&self, gone: Timestamp, hold_end: Option<Timestamp>) -> Timestamp {
        let least = gone.plus(self.veto_min);
        hold_end.map_or(least, |end| least.max(end.plus(self.veto_after_hold)))
    }

    /// The part of `scopes` that `ceiling` leaves (ISS-4): identity scopes stay, a scope stays when every class
    /// that names it is allowed, a scope that no class names needs `full`, `offline_access` needs `full`.
    #[must_use]
    pub fn reduce_scopes(&self, scopes: &BTreeSet<String>, ceiling: &Ceiling) -> BTreeSet<String> {
        let keep = |s: &&String| {
            let identity = IDENTITY_SCOPES.contains(&s.as_str());
            s.as_str() != OFFLINE_ACCESS && (identity || covered(&self.scopes, s, ceiling))
        };
        if ceiling.is_full() {
            scopes.clone()
        } else {
            scopes.iter().filter(keep).cloned().collect()
        }
    }

    /// The part of `roles` that `ceiling` leaves; a role in no class needs `full`, and ours never stay.
    #[must_use]
    pub fn reduce_roles(&self, roles: &BTreeSet<String>, ceiling: &Ceiling) -> BTreeSet<String> {
        let mut left = reduce(&self.roles, roles, ceiling);
        left.retain(|role| !claims::is_own_role(role));
        left
    }

    /// The part of `groups` that `ceiling` leaves; a group in no class needs `full`, and ours never stay.
    #[must_use]
    pub fn reduce_groups(&self, groups: &BTreeSet<String>, ceiling: &Ceiling) -> BTreeSet<String> {
        let mut left = reduce(&self.groups, groups, ceiling);
        left.retain(|group| !claims::is_own_group(group));
        left
    }

    /// The first OAuth scope of a class, for a step-up challenge.
    #[must_use]
    pub fn scope_of(&self, class: &Class) -> Option<&str> {
        self.scopes.get(class).and_then(|s| s.first()).map(String::as_str)
    }

    /// Every ceiling that a hold of this policy can have: each row's, and each intersection of those, and `none`.
    /// An IdP in token mode needs a role for each.
    #[must_use]
    pub fn ceilings(&self) -> Vec<Ceiling> {
        let mut found: Vec<Ceiling> = vec![Ceiling::none(), Ceiling::of(&["read"])];
        let rows = self.tiers.iter().flat_map(|t| t.holds.values());
        for allow in rows.filter_map(|r| {
            if let Response::Hold { allow, .. } = r {
                Some(allow)
            } else {
                None
            }
        }) {
            let mixed: Vec<Ceiling> = found.iter().map(|c| c.intersect(allow)).collect();
            for ceiling in mixed.into_iter().chain([allow.clone()]) {
                if !found.contains(&ceiling) {
                    found.push(ceiling);
                }
            }
        }
        found
    }

    /// The longest nominal hold, for retention of the IdP's log.
    #[must_use]
    pub fn longest_hold(&self) -> Span {
        let rows = self.tiers.iter().flat_map(|t| t.holds.values());
        rows.filter_map(|r| {
            if let Response::Hold { length, .. } = r {
                Some(*length)
            } else {
                None
            }
        })
        .max()
        .unwrap_or(Span::ZERO)
    }
}

fn covered(map: &BTreeMap<Class, BTreeSet<String>>, word: &str, ceiling: &Ceiling) -> bool {
    let mut classes = map
        .iter()
        .filter(|(_, words)| words.contains(word))
        .map(|(class, _)| class)
        .peekable();
    classes.peek().is_some() && classes.all(|class| ceiling.allows(class))
}

fn reduce(
    map: &BTreeMap<Class, BTreeSet<String>>,
    words: &BTreeSet<String>,
    ceiling: &Ceiling,
) -> BTreeSet<String> {
    if ceiling.is_full() {
        return words.clone();
    }
    words
        .iter()
        .filter(|w| covered(map, w, ceiling))
        .cloned()
        .collect()
}
