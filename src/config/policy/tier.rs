//! Tiers: when they are chosen, and their tables.

use std::collections::{BTreeMap, BTreeSet};

use super::super::fault::Fault;
use super::super::node::{Node, Value};
use super::super::reader::Section;
use super::super::values::span_between;
use super::super::words::{choose, nearest};
use super::{class, expression};
use crate::domain::ceiling::{Ceiling, Class, MAX_CLASSES, MAX_OCTETS};
use crate::domain::change::Row;
use crate::domain::policy::{AtEnd, Choice, ContestedAtIdp, Exit, Policy, Response, Rollout, Tier};
use crate::domain::tier::{Expression, TierName};
use crate::domain::time::Span;

const EXITS: [(&str, Exit); 5] = [
    ("thaw", Exit::Thaw),
    ("lapse", Exit::Lapse),
    ("quorum", Exit::Quorum),
    ("identity_verification", Exit::IdentityVerification),
    ("passkey", Exit::Passkey),
];

type Tiers = (Vec<Tier>, Vec<Choice>, TierName);

/// Tiers from the loosest to the strictest, how they are chosen (strictest first), and the one for everybody else.
pub(super) fn read_all(s: &Section<'_>) -> Option<Tiers> {
    let sections = s.sections("tiers");
    if sections.is_empty() {
        let shown = "begin with `reentry policy default`";
        s.fault("tiers", "is missing, so no account has rules", shown);
    }
    let read: Vec<(Option<Tier>, Option<Option<Expression>>)> =
        sections.iter().map(|t| (tier(t), expression::read(t))).collect();
    names(&sections, &read);
    hidden(&sections, &read);
    looser(&sections, &read);
    let default_tier = default_tier(s, &sections, &read);
    let mut tiers = Vec::new();
    let mut choices = Vec::new();
    let mut whole = !read.is_empty();
    for (tier, when) in read {
        let (Some(tier), Some(when)) = (tier, when) else {
            whole = false;
            continue;
        };
        if let Some(when) = when {
            choices.push(Choice {
                tier: tier.name.clone(),
                when,
            });
        }
        tiers.push(tier);
    }
    choices.reverse();
    if whole {
        Some((tiers, choices, default_tier?))
    } else {
        None
    }
}

type Read = (Option<Tier>, Option<Option<Expression>>);

fn names(sections: &[Section<'_>], read: &[Read]) {
    let mut names = BTreeSet::new();
    for (section, (tier, _)) in sections.iter().zip(read) {
        if let Some(tier) = tier
            && !names.insert(tier.name.clone())
        {
            section.fault(
                "name",
                format!("is `{}`, as another's", tier.name.0),
                "give every tier its own name",
            );
        }
    }
}

/// A tier below one that everybody matches is never reached: the strictest that matches is chosen.
fn hidden(sections: &[Section<'_>], read: &[Read]) {
    let mut over: Option<&TierName> = None;
    for (section, (tier, when)) in sections.iter().zip(read).rev() {
        let Some(Some(when)) = when else { continue };
        if let Some(name) = over {
            let problem = format!("is never asked: everybody is in `{}` already", name.0);
            section.fault(
                "when",
                problem,
                "tiers are tried from the last to the first; narrow the later one",
            );
        } else if expression::always(when) {
            over = tier.as_ref().map(|t| &t.name);
        }
    }
    if let Some(name) = over {
        for (section, (_, when)) in sections.iter().zip(read) {
            if matches!(when, Some(None)) {
                let problem = format!("has nobody: everybody is in `{}` already", name.0);
                section.fault("name", problem, "narrow the later tier's `when`");
            }
        }
    }
}

/// Tiers stand from the loosest to the strictest, because the last is what unreadable facts lead to.
fn looser(sections: &[Section<'_>], read: &[Read]) {
    for (pair, section) in read.windows(2).zip(sections.iter().skip(1)) {
        let [(Some(before), _), (Some(after), _)] = pair else {
            continue;
        };
        for row in Row::TABLE {
            if is_looser(&after.response(row), &before.response(row)) {
                let problem = format!(
                    "is looser at `{}` than `{}` before it",
                    row.as_str(),
                    before.name.0
                );
                section.warn("name", problem, "order tiers from the loosest to the strictest");
            }
        }
    }
}

fn is_looser(after: &Response, before: &Response) -> bool {
    match (after, before) {
        (_, Response::Notice) => false,
        (Response::Notice, Response::Hold { .. }) => true,
        (
            Response::Hold { length, allow },
            Response::Hold {
                length: least,
                allow: most,
            },
        ) => length < least || !allow.within(most),
    }
}

fn default_tier(s: &Section<'_>, sections: &[Section<'_>], read: &[Read]) -> Option<TierName> {
    let mut without = sections
        .iter()
        .zip(read)
        .filter(|(_, (_, when))| matches!(when, Some(None)));
    let first = without.next();
    for (section, _) in without {
        section.fault(
            "when",
            "is missing, and another tier has none either",
            "only the tier for everybody else goes without",
        );
    }
    if first.is_none() && !read.is_empty() && read.iter().all(|(_, when)| when.is_some()) {
        s.fault(
            "tiers",
            "has a `when` in every tier, so other accounts have none",
            "leave `when` out of one of them",
        );
    }
    first
        .and_then(|(_, (tier, _))| tier.as_ref())
        .map(|t| t.name.clone())
}

fn tier(s: &Section<'_>) -> Option<Tier> {
    let name = s.required("name", "consumer", |text| {
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if fits {
            Ok(TierName(text.to_owned()))
        } else {
            Err(format!("is `{text}`; write 1 to 32 of a-z, 0-9, _ and -"))
        }
    });
    let enforce = enforce(s);
    let at_end = s.choice(
        "at_end",
        AtEnd::FreshLogin,
        &[
            ("auto", AtEnd::Auto),
            ("fresh_login", AtEnd::FreshLogin),
            ("fresh_eligible_login", AtEnd::FreshEligibleLogin),
        ],
    );
    let holds = holds(&s.section("holds"));
    let (exits, contested_at_idp) = contested(&s.section("contested"));
    Some(Tier {
        name: name?,
        enforce: enforce?,
        at_end: at_end?,
        holds: holds?,
        exits: exits?,
        contested_at_idp: contested_at_idp?,
    })
}

fn enforce(s: &Section<'_>) -> Option<Rollout> {
    if matches!(
        s.node("enforce"),
        Some(Node {
            value: Value::Map(_),
            ..
        })
    ) {
        let section = s.section("enforce");
        return section.required("cohort", "10%", cohort).map(Rollout::Cohort);
    }
    s.or("enforce", Rollout::On, |text| match text {
        // Tools that still read YAML 1.1 turn `on` into `true` on the way.
        "true" => Ok(Rollout::On),
        other => choose(other, &[("on", Rollout::On), ("shadow", Rollout::Shadow)]),
    })
}

/// A share of accounts in hundredths of a percent.
fn cohort(text: &str) -> Result<u16, String> {
    let refused = || format!("is `{text}`, not a share; write for example 10% or 0.5%");
    let number = text.strip_suffix('%').ok_or_else(refused)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if part.len() > 2 {
        return Err(format!("is `{text}`; two digits after the point are the finest"));
    }
    let whole: u16 = whole.parse().map_err(|_| refused())?;
    let part: u16 = if part.is_empty() {
        0
    } else {
        format!("{part:0<2}").parse().map_err(|_| refused())?
    };
    let share = whole
        .checked_mul(100)
        .and_then(|w| w.checked_add(part))
        .filter(|s| *s <= 10_000);
    share.ok_or_else(|| format!("is `{text}`, more than everybody"))
}

fn holds(s: &Section<'_>) -> Option<BTreeMap<Row, Response>> {
    let rows: Vec<&str> = Row::TABLE.iter().map(|r| r.as_str()).collect();
    let mut found = BTreeMap::new();
    let mut whole = true;
    let mut named = BTreeSet::new();
    for (name, place, node) in s.entries() {
        let Some(row) = Row::parse(name) else {
            let advice = nearest(name, &rows).map_or_else(
                || format!("known here: {}", rows.join(", ")),
                |n| format!("did you mean `{n}`?"),
            );
            s.findings()
                .fault(Fault::new(&s.path(name), place.clone(), "is unknown").advice(advice));
            whole = false;
            continue;
        };
        named.insert(row);
        let answer = match &node.value {
            Value::Scalar { .. } => s.choice(name, (), &[("notice", ())]).map(|()| Response::Notice),
            _ => hold(&s.free_section(name, place, node)),
        };
        match answer {
            Some(answer) => drop(found.insert(row, answer)),
            None => whole = false,
        }
    }
    let missing: Vec<&str> = Row::TABLE
        .iter()
        .filter(|r| !named.contains(r))
        .map(|r| r.as_str())
        .collect();
    if !missing.is_empty() {
        let advice = "write `notice` or `{for: 24h, allow: [read, write]}` for each";
        s.findings().fault(
            Fault::new(
                s.own_path(),
                s.place().clone(),
                format!("leaves out {}", missing.join(", ")),
            )
            .advice(advice),
        );
        return None;
    }
    whole.then_some(found)
}

fn hold(s: &Section<'_>) -> Option<Response> {
    let length = s.required(
        "for",
        "24h",
        span_between(Span::from_secs(1), Span::from_days(366)),
    );
    if s.node("allow").is_none() {
        s.fault(
            "allow",
            "is missing",
            "write `allow: [read, write]`, or `allow: []` for nothing at all",
        );
        return None;
    }
    let allow: BTreeSet<Class> = s.list("allow", class)?.into_iter().collect();
    let allow = Ceiling::Only(allow);
    if let Ceiling::Only(classes) = &allow
        && (classes.len() > MAX_CLASSES || allow.to_string().len() > MAX_OCTETS)
    {
        let problem = format!("has more than {MAX_CLASSES} classes or {MAX_OCTETS} octets");
        s.fault(
            "allow",
            problem,
            "a claim holds no more; name fewer or shorter classes",
        );
        return None;
    }
    Some(Response::Hold {
        length: length?,
        allow,
    })
}

fn contested(s: &Section<'_>) -> (Option<BTreeSet<Exit>>, Option<ContestedAtIdp>) {
    let exits = match s.node("exits") {
        None => Policy::standard()
            .tiers
            .first()
            .map(|t| t.exits.iter().copied().collect()),
        Some(_) => s.list("exits", |text| choose(text, &EXITS)),
    };
    let exits: Option<BTreeSet<Exit>> = exits.map(|list: Vec<Exit>| list.into_iter().collect());
    if let Some(exits) = &exits {
        if !exits.contains(&Exit::Thaw) {
            let problem = "has no exit that can always be reached: a report would freeze an account for good";
            s.fault(
                "exits",
                problem,
                "add `thaw` (two administrators, a finding, a wait)",
            );
        }
        for (word, exit) in EXITS {
            if exits.contains(&exit) && !matches!(exit, Exit::Thaw | Exit::Lapse) {
                let problem = format!("names `{word}`, which this version does not offer yet");
                s.warn("exits", problem, "it counts as soon as it does");
            }
        }
    }
    let at_idp = s.choice(
        "at_idp",
        ContestedAtIdp::Disable,
        &[
            ("disable", ContestedAtIdp::Disable),
            ("issue_none", ContestedAtIdp::IssueNone),
        ],
    );
    (exits, at_idp)
}
