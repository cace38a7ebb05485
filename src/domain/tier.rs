//! Which rules an account has: tiers, chosen by CEL expressions over facts from the IdP's admin API.
//!
//! Expressions run when a change arrives, never per token. They are bounded before they are parsed (deep
//! nesting would overflow the parser's stack), and whatever goes wrong while they run chooses the strictest
//! tier: an expression that fails, one that gives something else than a boolean, facts that cannot be read.

use std::sync::Arc;

use cel::{Context, Program, Value};
use serde::{Deserialize, Serialize};

use crate::domain::subject::account::Facts;

/// Longest tier expression in octets.
pub const MAX_EXPRESSION: usize = 1024;
/// Deepest nesting of brackets in a tier expression: the parser takes up to 200 kB of stack for each.
pub const MAX_NESTING: usize = 8;

/// The name of a tier: `consumer`, `b2b_user`, `b2b_admin`, `high_assurance`, or a deployment's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TierName(pub String);

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionFault {
    /// Over [`MAX_EXPRESSION`] octets.
    #[error("is longer than {MAX_EXPRESSION} octets")]
    TooLong,
    /// Over [`MAX_NESTING`] brackets deep.
    #[error("nests deeper than {MAX_NESTING} brackets")]
    TooDeep,
    /// Not CEL.
    #[error("does not parse: {0}")]
    Syntax(String),
    /// Gives something else than true or false even for an account without facts.
    #[error("gives {0}, not true or false")]
    NotBoolean(String),
}

/// A compiled tier expression.
#[derive(Clone)]
pub struct Expression {
    source: String,
    program: Arc<Program>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl Expression {
    /// Compiles `source` and tries it on an account without facts.
    ///
    /// # Errors
    /// [`ExpressionFault`] says what is wrong; an expression that merely fails on an empty account (for example
    /// because it reads an attribute that is not there) is accepted: at run time it chooses the strictest tier.
    pub fn compile(source: &str) -> Result<Self, ExpressionFault> {
        if source.len() > MAX_EXPRESSION {
            return Err(ExpressionFault::TooLong);
        }
        if nesting(source) > MAX_NESTING {
            return Err(ExpressionFault::TooDeep);
        }
        let program = Program::compile(source).map_err(|e| ExpressionFault::Syntax(e.to_string()))?;
        let expression = Self {
            source: source.to_owned(),
            program: Arc::new(program),
        };
        match expression.value(&Facts::default()) {
            Ok(Value::Bool(_)) | Err(_) => Ok(expression),
            Ok(other) => Err(ExpressionFault::NotBoolean(format!("{:?}", other.type_of()))),
        }
    }

    /// The text as it stands in the policy.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Roles that it asks for by name, as `'name' in roles`.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut before = "";
        for part in self.source.split_inclusive(['\'', '"']) {
            let text = part.trim_end_matches(['\'', '"']);
            if text.trim_start().starts_with("in roles") && !before.is_empty() {
                found.push(before.to_owned());
            }
            before = text;
        }
        found
    }

    /// Whether it names any fact; otherwise it gives everybody the same answer.
    #[must_use]
    pub fn reads_facts(&self) -> bool {
        let references = self.program.references();
        ["roles", "groups", "attributes"]
            .iter()
            .any(|name| references.has_variable(name))
    }

    /// Names in it that are no facts and that nothing in it defines: a typing mistake, mostly.
    #[must_use]
    pub fn unknown(&self) -> Vec<String> {
        let references = self.program.references();
        let source: String = self.source.split_whitespace().collect();
        // `roles.exists(r, ...)` defines `r`; what begins with a sign is the library's own.
        let defined = |name: &str| source.contains(&format!("({name},")) || name.starts_with('@');
        let known = ["roles", "groups", "attributes"];
        let mut names = references.variables();
        names.retain(|name| !known.contains(name) && !defined(name));
        names.sort_unstable();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Whether the account matches; `None` when the expression failed or gave no boolean.
    #[must_use]
    pub fn matches(&self, facts: &Facts) -> Option<bool> {
        match self.value(facts) {
            Ok(Value::Bool(answer)) => Some(answer),
            _ => None,
        }
    }

    fn value(&self, facts: &Facts) -> Result<Value, String> {
        let mut context = Context::default();
        let roles: Vec<String> = facts.roles.iter().cloned().collect();
        let groups: Vec<String> = facts.groups.iter().cloned().collect();
        context.add_variable("roles", roles).map_err(|e| e.to_string())?;
        context
            .add_variable("groups", groups)
            .map_err(|e| e.to_string())?;
        let attributes: std::collections::HashMap<String, Vec<String>> = facts
            .attributes
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        context
            .add_variable("attributes", attributes)
            .map_err(|e| e.to_string())?;
        self.program.execute(&context).map_err(|e| e.to_string())
    }
}

/// Deepest nesting of `(`, `[` and `{`, and longest chain of unary operators: what the parser recurses on.
///
/// Never less than the parser sees: an opening bracket counts wherever it stands, a closing one only outside of
/// string literals and comments, where it really closes something.
fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest, mut unary) = (0_usize, 0_usize, 0_usize);
    let mut rest = source;
    let mut raw = false;
    while let Some(first) = rest.chars().next() {
        let (_, mut tail) = rest.split_at(first.len_utf8());
        if let Some(after) = literal(rest, raw) {
            let (inside, after) = rest.split_at(rest.len() - after.len());
            depth += inside.bytes().filter(|b| matches!(b, b'(' | b'[' | b'{')).count();
            tail = after;
        }
        match first {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        unary = match first {
            '!' | '-' => unary + 1,
            c if c.is_whitespace() => unary,
            _ => 0,
        };
        // A prefix `r` makes the literal raw, unless it is the end of a longer name.
        let name = first.is_ascii_alphanumeric() || first == '_';
        raw = matches!(first, 'r' | 'R') || (raw && matches!(first, 'b' | 'B')) || (raw && name);
        deepest = deepest.max(depth).max(unary);
        rest = tail;
    }
    deepest
}

/// What follows the string literal or comment that `text` begins with, if it does.
fn literal(text: &str, raw: bool) -> Option<&str> {
    if let Some(comment) = text.strip_prefix("//") {
        return Some(comment.split_once('\n').map_or("", |(_, after)| after));
    }
    let quote = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|q| text.starts_with(q))?;
    let mut body = text.strip_prefix(quote)?;
    loop {
        if let Some(after) = body.strip_prefix(quote) {
            return Some(after);
        }
        let mut chars = body.chars();
        match chars.next() {
            None => return Some(""),
            Some('\\') if !raw => {
                chars.next();
            }
            Some(_) => {}
        }
        body = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(roles: &[&str]) -> Facts {
        Facts {
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            ..Facts::default()
        }
    }

    // row K5: the tier is chosen by what the account may do.
    #[test]
    fn an_expression_reads_roles_and_attributes() {
        let admin = Expression::compile("roles.exists(r, r == 'admin')").unwrap();
        assert_eq!(admin.matches(&facts(&["admin"])), Some(true));
        assert_eq!(admin.matches(&facts(&["user"])), Some(false));
    }

    #[test]
    fn an_expression_knows_the_roles_that_it_names() {
        let text = "'a' in roles || \"b/c\" in roles || roles.exists(r, r.startsWith('x/')) || 'g' in groups";
        assert_eq!(Expression::compile(text).unwrap().roles(), ["a", "b/c"]);
        assert!(Expression::compile("size(roles) > 3").unwrap().roles().is_empty());
    }

    #[test]
    fn an_expression_that_fails_is_no_answer() {
        let failing = Expression::compile("attributes['level'][0] == 'high'").unwrap();
        assert_eq!(failing.matches(&facts(&[])), None);
    }

    #[test]
    fn an_expression_that_gives_a_number_is_refused() {
        assert!(matches!(
            Expression::compile("1 + 1"),
            Err(ExpressionFault::NotBoolean(_))
        ));
    }

    #[test]
    fn an_expression_that_does_not_parse_is_refused() {
        assert!(matches!(
            Expression::compile("roles.exists("),
            Err(ExpressionFault::Syntax(_))
        ));
    }

    // Where test threads and workers have 2 MiB of stack, twice as many levels overflow it.
    #[test]
    fn what_is_accepted_fits_into_a_worker_s_stack() {
        for (open, close) in [("(", ")"), ("[", "]"), ("size(", ")")] {
            let deepest = format!("{}1{}==1", open.repeat(MAX_NESTING), close.repeat(MAX_NESTING));
            let compile = move || Expression::compile(&deepest).map(|_| ());
            let thread = std::thread::Builder::new().stack_size(2 << 20);
            assert_eq!(thread.spawn(compile).unwrap().join().unwrap(), Ok(()));
        }
    }

    #[test]
    fn a_literal_hides_no_nesting() {
        let levels = [
            "(')'+",
            "(\")\"+",
            "(''')'''+",
            "(r'\\')'+",
            "(br\")\"+",
            "(//)\n",
        ];
        for level in levels {
            let error = Expression::compile(&level.repeat(40)).unwrap_err();
            assert_eq!(error, ExpressionFault::TooDeep, "{level}");
        }
        let tabs = Expression::compile(&"!\t".repeat(40)).unwrap_err();
        assert_eq!(tabs, ExpressionFault::TooDeep);
        let flat = "'a(b' in roles || 'c' in roles || ".repeat(3) + "roles.exists(r, r == '\\'x)')";
        assert!(Expression::compile(&flat).is_ok());
    }

    #[test]
    fn an_expression_that_nests_too_deep_is_refused_before_it_is_parsed() {
        let deep = format!("{}true{}", "(".repeat(200), ")".repeat(200));
        assert_eq!(Expression::compile(&deep).unwrap_err(), ExpressionFault::TooDeep);
        let bangs = format!("{}true", "!".repeat(500));
        assert_eq!(Expression::compile(&bangs).unwrap_err(), ExpressionFault::TooDeep);
        assert_eq!(
            Expression::compile(&"a".repeat(2000)).unwrap_err(),
            ExpressionFault::TooLong
        );
    }
}
