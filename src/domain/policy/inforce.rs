//! A policy that became looser waits (P14). Until its wait is over the stricter of the former and today's policy is in
//! force; what is stricter holds at once.
//!
//! Compared and merged: every clock and lifetime, lengths and classes of every hold, how far a tier is in force, how
//! tokens become whole again, ways out of a freeze, roles that may end one, and what the classes mean in scopes, roles
//! and groups. Which accounts a tier is for cannot be compared, because expressions cannot: that it was changed is told,
//! and is in force at once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{AtEnd, ContestedAtIdp, Exit, Policy, Response, Rollout, Tier};
use crate::domain::ceiling::{Ceiling, Class};
use crate::domain::change::Row;
use crate::domain::time::{Now, Span, Timestamp};

/// One clock of a policy.
struct Clock {
    name: &'static str,
    get: fn(&Policy) -> Span,
    set: fn(&mut Policy, Span),
    /// A longer one is stricter; otherwise a shorter one is.
    longer: bool,
}

/// Every clock, and which way is stricter.
const CLOCKS: [Clock; 15] = [
    longer("probation", |p| p.probation, |p, v| p.probation = v),
    longer("told_min", |p| p.told_min, |p, v| p.told_min = v),
    longer("veto_min", |p| p.veto_min, |p, v| p.veto_min = v),
    longer(
        "veto_after_hold",
        |p| p.veto_after_hold,
        |p, v| p.veto_after_hold = v,
    ),
    longer("link_validity", |p| p.link_validity, |p, v| p.link_validity = v),
    longer("report_window", |p| p.report_window, |p, v| p.report_window = v),
    longer("thaw_wait", |p| p.thaw_wait, |p, v| p.thaw_wait = v),
    longer("lapse_after", |p| p.lapse_after, |p, v| p.lapse_after = v),
    longer(
        "loosening_wait",
        |p| p.loosening_wait,
        |p, v| p.loosening_wait = v,
    ),
    shorter(
        "enrolment_window",
        |p| p.enrolment_window,
        |p, v| p.enrolment_window = v,
    ),
    shorter(
        "lifetimes.restricted",
        |p| p.lifetimes.restricted,
        |p, v| p.lifetimes.restricted = v,
    ),
    shorter(
        "lifetimes.access",
        |p| p.lifetimes.access,
        |p, v| p.lifetimes.access = v,
    ),
    shorter("lifetimes.id", |p| p.lifetimes.id, |p, v| p.lifetimes.id = v),
    shorter(
        "lifetimes.session",
        |p| p.lifetimes.session,
        |p, v| p.lifetimes.session = v,
    ),
    shorter(
        "lifetimes.offline",
        |p| p.lifetimes.offline,
        |p, v| p.lifetimes.offline = v,
    ),
];

const fn longer(name: &'static str, get: fn(&Policy) -> Span, set: fn(&mut Policy, Span)) -> Clock {
    Clock {
        name,
        get,
        set,
        longer: true,
    }
}

const fn shorter(name: &'static str, get: fn(&Policy) -> Span, set: fn(&mut Policy, Span)) -> Clock {
    Clock {
        name,
        get,
        set,
        longer: false,
    }
}

impl Clock {
    fn stricter(&self, one: Span, other: Span) -> Span {
        if self.longer {
            one.max(other)
        } else {
            one.min(other)
        }
    }
}

type Words = BTreeMap<Class, BTreeSet<String>>;

/// What a tier guards with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TierGuards {
    enforce: Rollout,
    at_end: AtEnd,
    exits: BTreeSet<Exit>,
    disables: bool,
    /// Length and what stays allowed; `None` where everybody is only told.
    holds: BTreeMap<Row, Option<(Span, Ceiling)>>,
}

/// What a policy guards with, in a form that outlives the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    clocks: BTreeMap<String, Span>,
    rolling: bool,
    admin_roles: BTreeSet<String>,
    tiers: BTreeMap<String, TierGuards>,
    choosing: Vec<(String, String)>,
    scopes: Words,
    roles: Words,
    groups: Words,
}

/// The policy that is in force, as the store keeps it for the next start and for the other replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    guards: Guards,
    waiting: Option<Waiting>,
}

/// A looser policy that is not in force yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    wanted: Guards,
    until: Timestamp,
}

/// What holds now.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The policy to work with.
    pub policy: Policy,
    /// What has to be kept, when it is something new.
    pub keep: Option<InForce>,
    /// What got looser, when that is newly so and has to be told.
    pub loosened: Vec<String>,
    /// When today's policy comes into force as it is; `None` when it is.
    pub until: Option<Timestamp>,
}

impl InForce {
    /// The policy that holds at `now`, of what was in force (`None` in a new installation) and today's.
    #[must_use]
    pub fn settle(before: Option<&Self>, today: &Policy, now: Now) -> Settled {
        let wanted = Guards::of(today);
        let at_once = |loosened: Vec<String>| {
            let next = Self {
                guards: wanted.clone(),
                waiting: None,
            };
            Settled {
                policy: today.clone(),
                keep: (before != Some(&next)).then_some(next),
                loosened,
                until: None,
            }
        };
        let Some(before) = before else {
            return at_once(Vec::new());
        };
        let looser = before.guards.looser(&wanted);
        let choosing = before.guards.choosing != wanted.choosing;
        if looser.is_empty() {
            let told = choosing.then(|| "which accounts a tier is for".to_owned());
            return at_once(told.into_iter().collect());
        }
        let known = before.waiting.as_ref().filter(|w| w.wanted == wanted);
        if known.is_some_and(|w| w.until <= now.earliest()) {
            return at_once(Vec::new());
        }
        let wait = before.guards.clock("loosening_wait").max(today.loosening_wait);
        let until = known.map_or_else(|| now.latest().plus(wait), |w| w.until);
        let policy = before.guards.stricter(today);
        // What got stricter stays so whatever comes of the rest.
        let next = Self {
            guards: Guards::of(&policy),
            waiting: Some(Waiting { wanted, until }),
        };
        Settled {
            policy,
            keep: (*before != next).then_some(next),
            loosened: if known.is_some() { Vec::new() } else { looser },
            until: Some(until),
        }
    }
}

impl Guards {
    /// Those of a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let clocks = CLOCKS.iter().map(|c| (c.name.to_owned(), (c.get)(policy)));
        let tiers = policy.tiers.iter().map(|t| (t.name.0.clone(), TierGuards::of(t)));
        let choices = policy.choices.iter();
        let mut choosing: Vec<(String, String)> = choices
            .map(|c| (c.tier.0.clone(), c.when.source().to_owned()))
            .collect();
        choosing.push((policy.default_tier.0.clone(), String::new()));
        Self {
            clocks: clocks.collect(),
            rolling: policy.rolling,
            admin_roles: policy.admin_roles.clone(),
            tiers: tiers.collect(),
            choosing,
            scopes: policy.scopes.clone(),
            roles: policy.roles.clone(),
            groups: policy.groups.clone(),
        }
    }

    fn clock(&self, name: &str) -> Span {
        self.clocks.get(name).copied().unwrap_or(Span::ZERO)
    }

    /// What `new` makes looser, in the words of the policy file. A tier that is gone is no answer to anybody any more: its
    /// accounts are other tiers' now, and that is told as such.
    #[must_use]
    pub fn looser(&self, new: &Self) -> Vec<String> {
        let clocks = CLOCKS.iter().filter_map(|c| {
            let (was, is) = (*self.clocks.get(c.name)?, *new.clocks.get(c.name)?);
            (c.stricter(was, is) != is).then(|| format!("{}: {was} became {is}", c.name))
        });
        let mut found: Vec<String> = clocks.collect();
        if self.rolling && !new.rolling {
            found.push("rolling: true became false".to_owned());
        }
        let roles = new.admin_roles.difference(&self.admin_roles);
        found.extend(roles.map(|role| format!("admin_roles: {role} was added")));
        for (name, tier) in &new.tiers {
            if let Some(was) = self.tiers.get(name) {
                found.extend(
                    was.looser(tier)
                        .into_iter()
                        .map(|what| format!("tier {name}, {what}")),
                );
            }
        }
        for (map, was, is) in [
            ("scopes", &self.scopes, &new.scopes),
            ("roles", &self.roles, &new.roles),
            ("groups", &self.groups, &new.groups),
        ] {
            found.extend(
                widened(was, is)
                    .into_iter()
                    .map(|word| format!("{map}: {word} stays in more holds")),
            );
        }
        found
    }

    /// Today's policy, nowhere looser than these.
    #[must_use]
    pub fn stricter(&self, today: &Policy) -> Policy {
        let mut policy = today.clone();
        for clock in &CLOCKS {
            if let Some(was) = self.clocks.get(clock.name) {
                (clock.set)(&mut policy, clock.stricter(*was, (clock.get)(today)));
            }
        }
        policy.rolling |= self.rolling;
        policy.admin_roles.retain(|role| self.admin_roles.contains(role));
        for tier in &mut policy.tiers {
            if let Some(was) = self.tiers.get(&tier.name.0) {
                was.tighten(tier);
            }
        }
        policy.scopes = narrowed(&self.scopes, &today.scopes);
        policy.roles = narrowed(&self.roles, &today.roles);
        policy.groups = narrowed(&self.groups, &today.groups);
        policy
    }
}

/// How much of everybody a roll-out restricts.
const fn share(rollout: Rollout) -> u16 {
    match rollout {
        Rollout::Shadow => 0,
        Rollout::Cohort(share) => share,
        Rollout::On => 10_001,
    }
}

fn guard(response: &Response) -> Option<(Span, Ceiling)> {
    match response {
        Response::Notice => None,
        Response::Hold { length, allow } => Some((*length, allow.clone())),
    }
}

/// The stricter of two answers to a row.
fn stricter(was: Option<&(Span, Ceiling)>, is: Option<&(Span, Ceiling)>) -> Option<(Span, Ceiling)> {
    match (was, is) {
        (None, other) | (other, None) => other.cloned(),
        (Some((was, allowed)), Some((is, allow))) => Some(((*was).max(*is), allowed.intersect(allow))),
    }
}

impl TierGuards {
    fn of(tier: &Tier) -> Self {
        Self {
            enforce: tier.enforce,
            at_end: tier.at_end,
            exits: tier.exits.clone(),
            disables: tier.contested_at_idp == ContestedAtIdp::Disable,
            holds: tier
                .holds
                .iter()
                .map(|(row, answer)| (*row, guard(answer)))
                .collect(),
        }
    }

    fn looser(&self, new: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if share(new.enforce) < share(self.enforce) {
            found.push("enforce".to_owned());
        }
        if new.at_end < self.at_end {
            found.push("at_end".to_owned());
        }
        if !new.exits.is_subset(&self.exits) {
            found.push("contested.exits".to_owned());
        }
        if self.disables && !new.disables {
            found.push("contested.at_idp".to_owned());
        }
        for (row, is) in &new.holds {
            if self
                .holds
                .get(row)
                .is_some_and(|was| stricter(was.as_ref(), is.as_ref()) != *is)
            {
                found.push(format!("holds.{}", row.as_str()));
            }
        }
        found
    }

    fn tighten(&self, tier: &mut Tier) {
        if share(self.enforce) > share(tier.enforce) {
            tier.enforce = self.enforce;
        }
        tier.at_end = tier.at_end.max(self.at_end);
        tier.exits.retain(|exit| self.exits.contains(exit));
        if self.disables {
            tier.contested_at_idp = ContestedAtIdp::Disable;
        }
        for (row, was) in &self.holds {
            let is = tier.holds.get(row).and_then(guard);
            if let Some((length, allow)) = stricter(was.as_ref(), is.as_ref()) {
                tier.holds.insert(*row, Response::Hold { length, allow });
            }
        }
    }
}

/// The classes that all have to be allowed for a word to stay.
fn needs<'a>(map: &'a Words, word: &str) -> BTreeSet<&'a Class> {
    map.iter()
        .filter(|(_, words)| words.contains(word))
        .map(|(class, _)| class)
        .collect()
}

/// Words that stay in a hold in which they did not stay before.
fn widened(was: &Words, is: &Words) -> BTreeSet<String> {
    let words = is.values().flatten();
    let wider = words.filter(|word| {
        let before = needs(was, word);
        before.is_empty() || !needs(is, word).is_superset(&before)
    });
    wider.cloned().collect()
}

/// The map in which a word stays only where it stays in both.
fn narrowed(was: &Words, is: &Words) -> Words {
    let mut both = Words::new();
    for (word, class) in is
        .iter()
        .chain(was)
        .flat_map(|(class, words)| words.iter().map(move |w| (w, class)))
    {
        if !needs(was, word).is_empty() && !needs(is, word).is_empty() {
            both.entry(class.clone()).or_default().insert(word.clone());
        }
    }
    both
}
