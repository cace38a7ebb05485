//! `when`: the expression that chooses a tier, tried before it is believed.
//!
//! An expression that can never be true leaves a tier without accounts, and one that fails puts every account into the
//! strictest: both are found here by trying it. It is run on an account without facts, and on accounts made of the words
//! that stand in it; an expression that names no fact has one answer for everybody.

use std::collections::{BTreeMap, BTreeSet};

use super::super::reader::Section;
use crate::domain::subject::account::Facts;
use crate::domain::tier::{Expression, ExpressionFault};

/// Reads `when`. `None` after a fault; `Some(None)` when there is none.
#[expect(clippy::option_option, reason = "not there and not readable are two things")]
pub(super) fn read(s: &Section<'_>) -> Option<Option<Expression>> {
    let text = s.optional("when", |text| Ok(text.to_owned()))?;
    let Some(text) = text else { return Some(None) };
    let expression = match Expression::compile(&text) {
        Ok(expression) => expression,
        Err(fault) => {
            s.fault("when", fault.to_string(), advice(&fault));
            return None;
        }
    };
    judge(s, &expression).then_some(Some(expression))
}

fn advice(fault: &ExpressionFault) -> &'static str {
    match fault {
        ExpressionFault::TooLong | ExpressionFault::TooDeep => {
            "shorten it: one role or group for each tier is enough"
        }
        ExpressionFault::Syntax(_) => {
            "write for example `'bank-admin' in roles` or `groups.exists(g, g.startsWith('/staff/'))`"
        }
        ExpressionFault::NotBoolean(_) => "compare it with something: `size(roles) > 3`",
    }
}

fn judge(s: &Section<'_>, expression: &Expression) -> bool {
    let constant = !expression.reads_facts();
    let answers: Vec<Option<bool>> = probes(expression.source())
        .iter()
        .map(|f| expression.matches(f))
        .collect();
    if answers.iter().all(Option::is_none) {
        let unknown = expression.unknown();
        let named = if unknown.is_empty() {
            String::new()
        } else {
            format!(": `{}` is none of the words that there are", unknown.join("`, `"))
        };
        let problem = format!(
            "fails for every account that was tried, so everybody would be in the strictest tier{named}"
        );
        s.fault(
            "when",
            problem,
            "use the lists `roles` and `groups` and the map `attributes`",
        );
        return false;
    }
    if constant && answers.iter().all(|a| *a == Some(false)) {
        s.fault(
            "when",
            "never matches: it is false for everybody",
            "name a role, a group or an attribute in it",
        );
        return false;
    }
    if !constant && !answers.contains(&Some(true)) {
        let problem = "was true for none of the accounts that could be made of its own words";
        s.warn(
            "when",
            problem,
            "try it with `reentry policy check --role ... --group ...`",
        );
    }
    if expression.matches(&Facts::default()).is_none() {
        let problem = "fails for an account without facts, which then gets the strictest tier";
        s.warn(
            "when",
            problem,
            "ask first: `'level' in attributes && attributes['level'][0] == 'high'`",
        );
    }
    true
}

/// Whether everybody matches.
pub(super) fn always(expression: &Expression) -> bool {
    probes(expression.source())
        .iter()
        .all(|f| expression.matches(f) == Some(true))
}

/// Accounts made of the words in quotes: none, each alone, and all of them, as roles, groups and attributes.
fn probes(source: &str) -> Vec<Facts> {
    let words = literals(source);
    let set = |words: &[String]| -> BTreeSet<String> { words.iter().cloned().collect() };
    let mut sets: Vec<Vec<String>> = vec![Vec::new(), words.clone()];
    sets.extend(words.iter().map(|w| vec![w.clone()]));
    let longer: Vec<String> = words
        .iter()
        .flat_map(|w| [format!("{w}x"), format!("x{w}")])
        .collect();
    sets.push(longer);
    let mut probes = Vec::new();
    for some in &sets {
        let attributes: BTreeMap<String, Vec<String>> =
            words.iter().map(|w| (w.clone(), some.clone())).collect();
        let full = Facts {
            roles: set(some),
            groups: set(some),
            attributes,
        };
        probes.push(Facts {
            roles: full.roles.clone(),
            ..Facts::default()
        });
        probes.push(Facts {
            groups: full.groups.clone(),
            ..Facts::default()
        });
        probes.push(Facts {
            attributes: full.attributes.clone(),
            ..Facts::default()
        });
        probes.push(full);
    }
    for word in &words {
        for value in &words {
            let attributes = BTreeMap::from([(word.clone(), vec![value.clone()])]);
            probes.push(Facts {
                attributes,
                ..Facts::default()
            });
        }
    }
    probes
}

/// The strings in single or double quotes; at most 16 are looked at.
fn literals(source: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = source;
    while let Some(start) = rest.find(['\'', '"']) {
        let (_, from) = rest.split_at(start);
        let mut characters = from.chars();
        let Some(quote) = characters.next() else { break };
        let body = characters.as_str();
        let Some(end) = body.find(quote) else { break };
        let (word, after) = body.split_at(end);
        words.push(word.to_owned());
        rest = after.get(quote.len_utf8()..).unwrap_or_default();
    }
    words.sort();
    words.dedup();
    words.truncate(16);
    words
}
