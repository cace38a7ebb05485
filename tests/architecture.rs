//! The wall: which module may use which, which outside crate belongs to whom, and the rules of shape that a reader
//! relies on. Reads every file of `src/` token by token, macros included; whatever has no row in a table fails.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::Visit;

/// Which of our modules each module may use. `cli → app → http → flow → ports → domain`; adapters never see each
/// other, nor `flow`, nor `http`.
const MODULES: [(&str, &[&str]); 17] = [
    ("domain", &[]),
    ("ports", &["domain"]),
    ("flow", &["domain", "ports"]),
    ("config", &["domain"]),
    ("store", &["domain", "ports", "config"]),
    ("idp", &["domain", "ports", "config"]),
    ("rp", &["domain"]),
    ("oidc", &["domain", "ports", "config"]),
    ("webauthn", &["domain", "ports", "config"]),
    ("notify", &["domain", "ports", "config"]),
    ("signals", &["domain", "ports", "config"]),
    (
        "http",
        &["domain", "ports", "flow", "oidc", "config", "telemetry"],
    ),
    ("telemetry", &["config"]),
    ("app", EVERYTHING),
    ("demo", EVERYTHING),
    ("cli", &["app", "demo", "config", "domain", "telemetry"]),
    ("main", &["cli"]),
];

/// Everything but `cli`.
const EVERYTHING: &[&str] = &[
    "domain",
    "ports",
    "flow",
    "config",
    "store",
    "idp",
    "rp",
    "oidc",
    "webauthn",
    "notify",
    "signals",
    "http",
    "telemetry",
    "app",
    "demo",
];

/// Whoever stands above `ports` and below nothing pure: where the runtime and the log are allowed.
const RUNNING: &[&str] = &[
    "flow",
    "store",
    "idp",
    "oidc",
    "webauthn",
    "notify",
    "signals",
    "http",
    "telemetry",
    "app",
    "demo",
    "cli",
    "main",
];

/// The same, and the trace, which is carried by the task.
const RUNNING_AND_TRACE: &[&str] = &[
    "flow",
    "store",
    "idp",
    "oidc",
    "webauthn",
    "notify",
    "signals",
    "http",
    "telemetry",
    "app",
    "demo",
    "cli",
    "main",
    "ports::trace",
];

/// Outside crates and who may use them. A crate of `Cargo.toml` without a row fails. An entry with `::` is one file
/// or folder of a module.
const CRATES: &[(&str, &[&str])] = &[
    // Errors without a type are for start-up, where a person reads them.
    ("anyhow", &["cli", "app", "demo", "main"]),
    (
        "arc_swap",
        &["flow", "http", "oidc", "store", "app", "demo", "idp"],
    ),
    (
        "async_trait",
        &[
            "ports", "store", "idp", "oidc", "notify", "signals", "webauthn", "app", "demo",
        ],
    ),
    // One source of cryptography: token keys, sealing at rest and in cookies, entropy, PKCE; `config` digests the
    // policy and client secrets, `notify` names its TLS provider.
    (
        "aws_lc_rs",
        &["oidc", "store", "idp", "notify", "http", "config", "app", "demo"],
    ),
    ("axum", &["http", "app", "demo"]),
    (
        "base64",
        &[
            "config", "flow", "store", "idp", "oidc", "notify", "signals", "webauthn", "http", "app", "demo",
        ],
    ),
    // Expressions run when a change arrives, in one file.
    ("cel", &["domain::tier"]),
    // Only to tell `openidconnect` what time it is.
    ("chrono", &["oidc"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("futures_util", RUNNING),
    ("humantime", &["config", "cli"]),
    // The accept loop, in one file: the web framework's own has no bounds.
    ("hyper", &["app::listener"]),
    ("hyper_util", &["app::listener"]),
    // Only to say times in words, with a zone that is handed in; clocks are forbidden below.
    (
        "jiff",
        &[
            "domain::wording",
            "config",
            "store",
            "idp",
            "oidc",
            "notify",
            "http",
            "telemetry",
            "app",
            "demo",
            "cli",
        ],
    ),
    // Validates; our own tokens are signed behind `ports::signer`. The demo's IdP signs its own.
    ("jsonwebtoken", &["oidc", "idp", "signals", "rp", "demo"]),
    ("lettre", &["notify"]),
    ("metrics", RUNNING),
    ("metrics_exporter_prometheus", &["telemetry", "app"]),
    ("mimalloc", &["main"]),
    ("minijinja", &["notify", "http", "demo"]),
    ("openidconnect", &["oidc"]),
    ("redb", &["store"]),
    ("redis", &["store"]),
    // `app` for `doctor`, which asks what it configures; never a use case.
    ("reqwest", &["idp", "oidc", "notify", "signals", "demo", "app"]),
    ("rmp_serde", &["store"]),
    (
        "rustls",
        &["store", "notify", "idp", "oidc", "http", "app", "demo"],
    ),
    // The limit of open files, where connections are accepted; our groups, by which private files are judged.
    ("rustix", &["app::listener", "config::private"]),
    ("schemars", &["config"]),
    (
        "secrecy",
        &[
            "config", "store", "idp", "oidc", "notify", "http", "app", "demo", "cli",
        ],
    ),
    ("serde", ANYBODY),
    ("serde_json", ANYBODY),
    ("serde_saphyr", &["config"]),
    ("thiserror", ANYBODY),
    ("tokio", RUNNING_AND_TRACE),
    ("tokio_util", RUNNING),
    ("tower", &["http", "app", "demo"]),
    ("tower_http", &["http", "app", "demo"]),
    ("tracing", RUNNING),
    ("tracing_subscriber", &["telemetry"]),
    (
        "url",
        &[
            "config", "idp", "oidc", "notify", "signals", "http", "app", "demo", "cli",
        ],
    ),
    ("zeroize", &["config", "store", "idp", "oidc", "notify", "app"]),
];

/// Formats and derives: no IO, no opinion.
const ANYBODY: &[&str] = &[
    "domain",
    "ports",
    "flow",
    "config",
    "store",
    "idp",
    "rp",
    "oidc",
    "webauthn",
    "notify",
    "signals",
    "http",
    "telemetry",
    "app",
    "demo",
    "cli",
    "main",
];

/// What pure code never says: clocks, randomness, environment, IO, threads. Idents with `::` in between.
const IMPURE: [&str; 17] = [
    "SystemTime",
    "Instant",
    "UNIX_EPOCH",
    "env",
    "thread",
    "fs",
    "net",
    "process",
    "rand",
    "getrandom",
    "tokio",
    "async",
    "Zoned::now",
    "Timestamp::now",
    "TimeZone::system",
    "stdin",
    "OsRng",
];
const PURE: [&str; 2] = ["domain", "rp"];
const BAD_NAMES: [&str; 5] = ["util", "common", "helpers", "types", "error"];
const MAX_FILE: usize = 400;
const MAX_FUNCTION: usize = 60;

/// One file with its path below `src/`.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
}

/// Everything that is wrong, each with where and why.
fn faults(sources: &[Source<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    let tests: BTreeSet<String> = sources.iter().flat_map(|s| test_files(s)).collect();
    for source in sources {
        let module = module_of(source.path);
        if tests.contains(&module.join("::")) {
            continue;
        }
        let mut say = |why: String| found.push(format!("src/{}: {why}", source.path));
        if source.path.ends_with("mod.rs") {
            say("mod.rs: write foo.rs beside foo/".to_owned());
        }
        let top = module.first().map_or("lib", String::as_str);
        if top != "lib" && !MODULES.iter().any(|(name, _)| *name == top) {
            say(format!("module `{top}` has no row in the table"));
        }
        let tokens = TokenStream::from_str(source.text).unwrap_or_else(|e| panic!("{}: {e}", source.path));
        let mut scan = Scan {
            module,
            faults: Vec::new(),
        };
        scan.stream(tokens);
        scan.shape(source);
        for fault in scan.faults {
            say(fault);
        }
    }
    found
}

/// Files that exist for tests alone: `#[cfg(test)] mod name;`.
fn test_files(source: &Source<'_>) -> Vec<String> {
    let module = module_of(source.path);
    let file = syn::parse_file(source.text).unwrap_or_else(|e| panic!("{}: {e}", source.path));
    let tests = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(m) if m.content.is_none() && m.attrs.iter().any(is_cfg_test) => {
            Some(m.ident.to_string())
        }
        _ => None,
    });
    tests
        .map(|name| {
            module
                .iter()
                .cloned()
                .chain([name])
                .collect::<Vec<_>>()
                .join("::")
        })
        .collect()
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    let list = attribute.meta.require_list();
    attribute.path().is_ident("cfg") && list.is_ok_and(|l| l.tokens.to_string() == "test")
}

/// `domain/hold/apply.rs` is `[domain, hold, apply]`; `lib.rs` is the root.
fn module_of(path: &str) -> Vec<String> {
    let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
    if stem == "lib" {
        return Vec::new();
    }
    stem.split('/').map(str::to_owned).collect()
}

struct Scan {
    module: Vec<String>,
    faults: Vec<String>,
}

impl Scan {
    fn top(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    /// Walks tokens; `mod tests { … }` under `#[cfg(test)]` is left out, any other inline module is walked as itself.
    fn stream(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut test = false;
        let mut index = 0;
        while let Some(token) = tokens.get(index) {
            match token {
                TokenTree::Group(group) if is_attribute(&tokens, index) => {
                    let words = group.stream().to_string().replace(' ', "");
                    test |= words == "cfg(test)";
                    if words.starts_with("allow(") {
                        self.faults
                            .push(format!("`#[{words}]`: use #[expect(…, reason = …)]"));
                    }
                    self.stream(group.stream());
                }
                TokenTree::Group(group) => {
                    let inline = inline_module(&tokens, index);
                    match (&inline, test) {
                        (Some(_), true) => {}
                        (Some(name), false) => {
                            self.named(name);
                            self.module.push(name.clone());
                            self.stream(group.stream());
                            self.module.pop();
                        }
                        (None, _) => self.stream(group.stream()),
                    }
                    test &= group.delimiter() != Delimiter::Brace;
                }
                TokenTree::Ident(ident) => {
                    let step = self.path(&tokens, index, &ident.to_string());
                    index += step;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => test = false,
                _ => {}
            }
            index += 1;
        }
    }

    /// A path that begins at `index`; gives how many tokens it took up.
    fn path(&mut self, tokens: &[TokenTree], index: usize, first: &str) -> usize {
        if is_keyword(first) {
            return 1;
        }
        let mut words = vec![first.trim_start_matches("r#").to_owned()];
        let mut next = index + 1;
        while let Some(word) = after_colons(tokens, next) {
            next += 2;
            match word {
                TokenTree::Ident(ident) => {
                    words.push(ident.to_string().trim_start_matches("r#").to_owned());
                    next += 1;
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    for tail in branches(group.stream()) {
                        let whole: Vec<String> = words.iter().cloned().chain(tail).collect();
                        self.used(&whole, continues(tokens, index));
                    }
                    return next + 1 - index;
                }
                _ => break,
            }
        }
        self.used(&words, continues(tokens, index));
        next - index
    }

    /// One path as written. `tail` says that it only goes on after a generic argument, so its head is unknown.
    fn used(&mut self, words: &[String], tail: bool) {
        if PURE.contains(&self.top()) {
            let text = format!("::{}::", words.join("::"));
            let bad = IMPURE.iter().filter(|bad| text.contains(&format!("::{bad}::")));
            let bad: Vec<String> = bad.map(|bad| format!("`{bad}` in pure code")).collect();
            self.faults.extend(bad);
        }
        if tail {
            return;
        }
        let Some(first) = words.first() else { return };
        match first.as_str() {
            "crate" | "reentry" => self.reaches(words.get(1)),
            "super" => {
                let ups = words.iter().take_while(|w| *w == "super").count();
                let base = self.module.len().saturating_sub(ups);
                let head = self.module.iter().take(base).cloned();
                let whole: Vec<String> = head.chain(words.iter().skip(ups).cloned()).collect();
                self.reaches(whole.first());
            }
            name if words.len() > 1 => self.outside(name),
            _ => {}
        }
    }

    fn reaches(&mut self, module: Option<&String>) {
        let (top, Some(to)) = (self.top().to_owned(), module) else {
            return;
        };
        let known = MODULES.iter().any(|(name, _)| name == to);
        let row = MODULES.iter().find(|(name, _)| *name == top);
        let allowed = top == *to || top == "lib" || row.is_some_and(|(_, may)| may.contains(&to.as_str()));
        if known && !allowed {
            self.faults.push(format!("`{top}` may not use `{to}`"));
        }
    }

    fn outside(&mut self, name: &str) {
        let Some((_, owners)) = CRATES.iter().find(|(krate, _)| *krate == name) else {
            return;
        };
        let here = format!("{}::", self.module.join("::"));
        let owned = owners.iter().any(|owner| here.starts_with(&format!("{owner}::")));
        // `idp`, `http`, … are modules of ours; a crate is meant only when no sibling has its name.
        if !owned && self.top() != "lib" {
            self.faults.push(format!(
                "the crate `{name}` does not belong to `{}`",
                self.module.join("::")
            ));
        }
    }

    fn named(&mut self, name: &str) {
        if BAD_NAMES.contains(&name) {
            self.faults.push(format!(
                "a module called `{name}` says nothing about what is in it"
            ));
        }
    }

    /// Sizes, names, re-exports.
    fn shape(&mut self, source: &Source<'_>) {
        if let Some(last) = self.module.last().cloned() {
            self.named(&last);
        }
        let file = syn::parse_file(source.text).unwrap_or_else(|e| panic!("{}: {e}", source.path));
        let mut code: BTreeSet<usize> = BTreeSet::new();
        for item in &file.items {
            let (attributes, public) = facts(item);
            if attributes.iter().any(is_cfg_test) {
                continue;
            }
            if self.module.is_empty() && public && matches!(item, syn::Item::Use(_)) {
                self.faults.push("re-export at the crate root".to_owned());
            }
            let span = item.span();
            code.extend(span.start().line..=span.end().line);
            let lines: Vec<&str> = source.text.lines().collect();
            let mut functions = Functions {
                lines,
                found: Vec::new(),
            };
            functions.visit_item(item);
            for (name, lines) in functions
                .found
                .into_iter()
                .filter(|(_, lines)| *lines > MAX_FUNCTION)
            {
                self.faults
                    .push(format!("fn {name} has {lines} lines, over {MAX_FUNCTION}"));
            }
        }
        let lines = source.text.lines().enumerate();
        let counted = lines
            .filter(|(n, line)| code.contains(&(n + 1)) && is_code(line))
            .count();
        if counted > MAX_FILE {
            self.faults
                .push(format!("{counted} lines of code, over {MAX_FILE}"));
        }
    }
}

/// Attributes of an item that matter here, and whether it is public.
fn facts(item: &syn::Item) -> (&[syn::Attribute], bool) {
    match item {
        syn::Item::Mod(m) => (&m.attrs, false),
        syn::Item::Use(u) => (&u.attrs, !matches!(u.vis, syn::Visibility::Inherited)),
        syn::Item::Fn(f) => (&f.attrs, false),
        syn::Item::Impl(i) => (&i.attrs, false),
        _ => (&[], false),
    }
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}

/// Functions with their lines of code, from `fn` to the closing brace.
struct Functions<'a> {
    lines: Vec<&'a str>,
    found: Vec<(String, usize)>,
}

impl Functions<'_> {
    fn note(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (first, last) = (signature.span().start().line, block.span().end().line);
        let lines = self.lines.iter().take(last).skip(first - 1);
        self.found.push((
            signature.ident.to_string(),
            lines.filter(|line| is_code(line)).count(),
        ));
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !module.attrs.iter().any(is_cfg_test) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.sig, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.sig, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

/// Whether the group at `index` is `#[…]` or `#![…]`.
fn is_attribute(tokens: &[TokenTree], index: usize) -> bool {
    let is = |back: usize, c: char| {
        index
            .checked_sub(back)
            .and_then(|i| tokens.get(i))
            .is_some_and(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == c))
    };
    is(1, '#') || (is(1, '!') && is(2, '#'))
}

/// The name, when the group at `index` is the body of `mod name { … }`.
fn inline_module(tokens: &[TokenTree], index: usize) -> Option<String> {
    let word = |back: usize| match index.checked_sub(back).and_then(|i| tokens.get(i)) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    };
    word(1).filter(|_| word(2).is_some_and(|w| w == "mod"))
}

/// The token after `::` at `index`.
fn after_colons(tokens: &[TokenTree], index: usize) -> Option<&TokenTree> {
    let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    (colon(index) && colon(index + 1))
        .then(|| tokens.get(index + 2))
        .flatten()
}

/// Whether the word at `index` goes on from something before it (`a::`, `<T>::`, `x.`): it begins no path. A leading
/// `::` goes on from nothing.
fn continues(tokens: &[TokenTree], index: usize) -> bool {
    let before = |back: usize| index.checked_sub(back).and_then(|i| tokens.get(i));
    let punct = |back: usize, c: char| matches!(before(back), Some(TokenTree::Punct(p)) if p.as_char() == c);
    if punct(1, ':') && punct(2, ':') {
        return punct(3, '>')
            || matches!(before(3), Some(TokenTree::Ident(word)) if !is_keyword(&word.to_string()));
    }
    punct(1, '.') && !punct(2, '.')
}

fn is_keyword(word: &str) -> bool {
    [
        "use", "in", "as", "dyn", "impl", "for", "return", "mut", "ref", "where", "let", "match", "if",
        "else",
    ]
    .contains(&word)
}

/// The paths inside `{a, b::c, d::{e, f}}`.
fn branches(stream: TokenStream) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut path: Vec<String> = Vec::new();
    for token in stream {
        match token {
            TokenTree::Ident(ident) => path.push(ident.to_string()),
            TokenTree::Punct(p) if p.as_char() == ',' => found.push(std::mem::take(&mut path)),
            TokenTree::Group(group) => {
                let head = std::mem::take(&mut path);
                for tail in branches(group.stream()) {
                    found.push(head.iter().cloned().chain(tail).collect());
                }
            }
            _ => {}
        }
    }
    found.push(path);
    found.retain(|p| !p.is_empty());
    found
}

/// Every `.rs` file below `src/`.
fn house() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_house_stands_as_drawn() {
    let house = house();
    assert!(house.len() > 30, "only {} files were read", house.len());
    let sources: Vec<Source<'_>> = house.iter().map(|(path, text)| Source { path, text }).collect();
    let found = faults(&sources);
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_dependency_has_an_owner() {
    let manifest = include_str!("../Cargo.toml");
    let listed = manifest.split_once("\n[dependencies]\n").unwrap().1;
    let listed = listed.split("\n[").next().unwrap();
    let names: Vec<String> = listed
        .lines()
        .filter_map(|line| {
            line.split_once('=')
                .map(|(name, _)| name.trim().replace('-', "_"))
        })
        .collect();
    assert!(names.len() > 20, "{names:?}");
    let owned: BTreeMap<&str, &[&str]> = CRATES.iter().copied().collect();
    for name in &names {
        assert!(owned.contains_key(name.as_str()), "the crate `{name}` has no row");
    }
    for name in owned.keys() {
        assert!(
            names.iter().any(|n| n == name),
            "`{name}` has a row and is no dependency"
        );
    }
}

// ---- Each rule bites ----

fn bites(path: &str, text: &str, why: &str) {
    let found = faults(&[Source { path, text }]);
    assert!(
        found.iter().any(|f| f.contains(why)),
        "{path}: {text}\nfound {found:?}, not `{why}`"
    );
}

fn passes(path: &str, text: &str) {
    let found = faults(&[Source { path, text }]);
    assert!(found.is_empty(), "{path}: {text}\nfound {found:?}");
}

#[test]
fn an_import_against_the_direction_is_seen_however_it_is_written() {
    for text in [
        "use crate::store::redis::Client;",
        "use crate::{domain::time::Now, store};",
        "use crate::{domain, store::{redis, embedded}};",
        "use super::store;",
        "use super::{domain, store::redis};",
        "fn f() { crate::store::open() }",
        "fn f(x: &crate::store::Redis) {}",
        "fn f() { g!(a, crate::store::open()) }",
        "fn f() -> Vec<crate::store::Redis> { Vec::<crate::store::Redis>::new() }",
        "mod inner { fn f() { super::super::store::open() } }",
        "impl crate::store::Thing for X {}",
        "#[derive(crate::store::Thing)] struct S;",
        "pub use crate::store as domain;",
    ] {
        bites("flow.rs", text, "`flow` may not use `store`");
    }
    bites(
        "flow/ingest.rs",
        "use super::super::http::routes;",
        "`flow` may not use `http`",
    );
    bites(
        "domain/hold.rs",
        "use crate::ports::store::Store;",
        "`domain` may not use `ports`",
    );
    bites(
        "idp/keycloak/poll.rs",
        "use crate::store::x;",
        "`idp` may not use `store`",
    );
    bites("http/pages.rs", "use crate::idp::x;", "`http` may not use `idp`");
    bites("app.rs", "use crate::cli::x;", "`app` may not use `cli`");
    bites(
        "cli/serve.rs",
        "use crate::store::x;",
        "`cli` may not use `store`",
    );
    bites(
        "main.rs",
        "fn main() { reentry::app::serve() }",
        "`main` may not use `app`",
    );
}

#[test]
fn what_is_allowed_passes() {
    passes(
        "flow/ingest.rs",
        "use crate::{domain::time::Now, ports::store::Store};\nuse super::link;",
    );
    passes("app.rs", "use crate::{store, idp, http, flow, demo};");
    passes(
        "store.rs",
        "#[cfg(test)]\nmod tests { use crate::http::x; use axum::Router; fn f() { x.unwrap() } }",
    );
    passes("domain/tier.rs", "use cel::Program;");
    passes("domain/x.rs", "fn f(env_var: u8) { let instant = env_var; }");
    passes(
        "domain/x.rs",
        "/// Like `crate::store`, with a `SystemTime`.\nfn f() {}",
    );
}

#[test]
fn a_crate_outside_its_owner_is_seen() {
    bites(
        "flow.rs",
        "use axum::Router;",
        "the crate `axum` does not belong to `flow`",
    );
    bites("http.rs", "fn f() { redis::Client::open() }", "the crate `redis`");
    bites(
        "domain/hold.rs",
        "use cel::Program;",
        "the crate `cel` does not belong to `domain::hold`",
    );
    bites("flow.rs", "fn f() { m!(reqwest::get(x)) }", "the crate `reqwest`");
    bites(
        "flow.rs",
        "use {tokio::sync::Mutex, redb::Database};",
        "the crate `redb`",
    );
    bites("config.rs", "use ::tokio::fs;", "the crate `tokio`");
    bites("http.rs", "use anyhow::Result;", "the crate `anyhow`");
}

#[test]
fn clocks_and_the_world_are_seen_in_pure_code() {
    for (text, why) in [
        ("fn f() { std::time::SystemTime::now() }", "SystemTime"),
        ("use std::time::Instant;", "Instant"),
        ("fn f() { std::env::var(\"X\") }", "env"),
        ("use std::{env, fmt};", "env"),
        ("fn f() { std::thread::sleep(d) }", "thread"),
        ("use std::{fs::File, io};", "fs"),
        ("use rand::Rng;", "rand"),
        ("use tokio::sync::Mutex;", "tokio"),
        ("async fn f() {}", "async"),
        ("fn f() { jiff::Zoned::now() }", "Zoned::now"),
        ("fn f() { jiff::Timestamp::now() }", "Timestamp::now"),
        ("fn f() { println!(\"{}\", std::process::id()) }", "process"),
    ] {
        bites("domain/hold.rs", text, &format!("`{why}` in pure code"));
        bites("rp/json.rs", text, &format!("`{why}` in pure code"));
    }
}

#[test]
fn shape_is_seen() {
    bites("fraud.rs", "", "module `fraud` has no row");
    bites("fraud/score.rs", "", "module `fraud` has no row");
    bites("flow/mod.rs", "", "mod.rs");
    bites(
        "lib.rs",
        "pub mod domain;\npub use domain::hold::Record;",
        "re-export",
    );
    bites("lib.rs", "pub(crate) use domain::hold::Record;", "re-export");
    for name in BAD_NAMES {
        bites(&format!("flow/{name}.rs"), "", "says nothing");
        bites(
            "flow.rs",
            &format!("mod {name} {{ fn f() {{}} }}"),
            "says nothing",
        );
    }
    bites("flow.rs", "#[allow(dead_code)]\nfn f() {}", "#[allow(dead_code)]");
    bites("flow.rs", "#![allow(dead_code)]", "#[allow(dead_code)]");
    bites(
        "flow.rs",
        "fn f() { #[allow(unused)] let x = 1; }",
        "#[allow(unused)]",
    );
}

#[test]
fn sizes_are_seen() {
    let body = |lines: usize| "    g();\n".repeat(lines);
    bites(
        "flow.rs",
        &format!("fn long() {{\n{}}}", body(59)),
        "fn long has 61 lines",
    );
    bites(
        "flow.rs",
        &format!("impl X {{\nfn long() {{\n{}}}\n}}", body(59)),
        "fn long has 61 lines",
    );
    bites(
        "flow.rs",
        &format!("mod a {{\nfn long() {{\n{}}}\n}}", body(59)),
        "fn long has 61 lines",
    );
    passes("flow.rs", &format!("fn short() {{\n{}}}", body(58)));
    passes(
        "flow.rs",
        &format!("#[cfg(test)]\nmod tests {{\nfn long() {{\n{}}}\n}}", body(500)),
    );
    let many = "fn f() {}\n".repeat(401);
    bites("flow.rs", &many, "401 lines of code");
    passes(
        "flow.rs",
        &format!("{}{}", "/// Words.\n\n".repeat(50), "fn f() {}\n").repeat(20),
    );
}
