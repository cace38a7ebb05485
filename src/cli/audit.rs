//! `reentry audit`: is the log whole, and all of it for another program.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Outcome, Session, output, runtime};
use crate::app::audit::{Log, Verdict};
use crate::config::Config;
use crate::domain::audit::{Actor, Broken, Head, Linked};
use crate::domain::wording::Wording;

/// `reentry audit ...`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Verify the hash chain of the audit log: nothing changed, removed, put in or moved.
    #[command(
        after_help = "Examples:\n  reentry audit verify\n  reentry audit verify --json > heads.json          keep it elsewhere ...\n  reentry audit verify --witness heads.json         ... and hold the log against it later\n  reentry audit verify --witness reentry.log        or against the heads in kept log lines or events\n\nExit codes: 0 whole, 1 broken (the first bad line of each partition is named), 2 cannot be read, 3 configuration refused."
    )]
    Verify(Verify),
    /// Print every line as JSON, one a line, by partition and in the order of its chain.
    #[command(
        after_help = "Example:\n  reentry audit export > audit.jsonl\n\nExit codes as of `verify`: lines that are not genuine are left out and named."
    )]
    Export,
}

/// `reentry audit verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    /// What `--json` printed earlier, or kept log lines or `audit.head` events: lines of then must be there still, unless
    /// they are older than what is kept.
    #[arg(long, value_name = "FILE")]
    witness: Option<PathBuf>,
}

impl AuditCommand {
    /// Runs it.
    ///
    /// # Errors
    /// When the system gives no threads, or a witness is none.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let Some(config) = session.load_for_setup() else {
            return Ok(Outcome::Refused);
        };
        match self {
            Self::Verify(verify) => verify.run(&config, session),
            Self::Export => export(&config, session),
        }
    }
}

/// What `--json` prints, as far as it is read again.
#[derive(Debug, Deserialize)]
struct Witness {
    heads: BTreeMap<u8, Head>,
}

impl Verify {
    fn run(self, config: &Config, session: &Session) -> anyhow::Result<Outcome> {
        let earlier = match self.witness.as_deref().map(witness).transpose() {
            Ok(witness) => witness.unwrap_or_default(),
            Err(error) => return Ok(unreadable(session, &error)),
        };
        let verdict = runtime()?.block_on(async {
            let log = Log::open(config).await?;
            log.verify(&earlier, progress()).await
        });
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => return Ok(unreadable(session, &error)),
        };
        if self.json {
            output::json(&document(&verdict))?;
        } else {
            say(&verdict, session);
        }
        Ok(outcome(&verdict.broken))
    }
}

fn witness(path: &Path) -> anyhow::Result<BTreeMap<u8, Vec<Head>>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
    let mut heads: BTreeMap<u8, Vec<Head>> = BTreeMap::new();
    if let Ok(printed) = serde_json::from_str::<Witness>(&text) {
        heads.extend(
            printed
                .heads
                .into_iter()
                .map(|(partition, head)| (partition, vec![head])),
        );
        return Ok(heads);
    }
    for (partition, head) in Head::all_in(&text) {
        heads.entry(partition).or_default().push(head);
    }
    anyhow::ensure!(
        !heads.is_empty(),
        "{} is not what --json printed, and has no head in it",
        path.display()
    );
    Ok(heads)
}

/// Says now and then how far it has come, where somebody is looking.
fn progress() -> impl FnMut(u32, u64) {
    let looked_at = std::io::stderr().is_terminal();
    let mut said = Instant::now();
    move |partitions, lines| {
        if looked_at && said.elapsed() > Duration::from_secs(2) {
            said = Instant::now();
            output::complain(&format!("{partitions} of 256 partitions, {lines} lines"));
        }
    }
}

fn unreadable(session: &Session, error: &anyhow::Error) -> Outcome {
    output::complain(&format!("{} {error:#}", session.err.bad("error:")));
    Outcome::Unreadable
}

fn outcome(broken: &[Broken]) -> Outcome {
    if broken.is_empty() {
        Outcome::Done
    } else {
        Outcome::Failed
    }
}

/// One broken chain in words.
fn words(broken: &Broken) -> String {
    let line = match (broken.n, &broken.line) {
        (Some(n), Some(id)) => format!("line {n} (`{id}`)"),
        (Some(n), None) => format!("line {n}"),
        (None, Some(place)) => format!("a line {place}"),
        (None, None) => "the chain".to_owned(),
    };
    format!(
        "partition {:03}: {line} {}",
        broken.partition,
        broken.flaw.as_str()
    )
}

fn say(verdict: &Verdict, session: &Session) {
    for broken in &verdict.broken {
        output::line(&format!("{} {}", session.out.bad("broken:"), words(broken)));
    }
    if verdict.broken.is_empty() {
        output::line(&format!(
            "{} {} lines in {} partitions",
            session.out.good("whole:"),
            verdict.lines,
            verdict.heads.len()
        ));
    }
}

fn document(verdict: &Verdict) -> Value {
    let broken: Vec<Value> = verdict
        .broken
        .iter()
        .map(|b| json!({ "partition": b.partition, "n": b.n, "line": b.line, "flaw": b.flaw, "words": words(b) }))
        .collect();
    json!({
        "whole": verdict.broken.is_empty(),
        "lines": verdict.lines,
        "heads": verdict.heads,
        "broken": broken,
    })
}

fn export(config: &Config, session: &Session) -> anyhow::Result<Outcome> {
    let exported = runtime()?.block_on(async {
        let log = Log::open(config).await?;
        log.export(|partition, line| {
            output::line(&exported(partition, line).to_string());
            Ok(())
        })
        .await
    });
    match exported {
        Ok(broken) => {
            for one in &broken {
                output::complain(&format!("{} {}", session.err.bad("broken:"), words(one)));
            }
            Ok(outcome(&broken))
        }
        Err(error) => Ok(unreadable(session, &error)),
    }
}

fn exported(partition: u8, line: &Linked) -> Value {
    let (actor, id) = match &line.entry.actor {
        Actor::System => ("system", None),
        Actor::Owner => ("owner", None),
        Actor::Channel(id) => ("channel", Some(id)),
        Actor::Administrator(id) => ("administrator", Some(id)),
    };
    json!({
        "partition": partition,
        "n": line.n,
        "hash": line.hash,
        "id": line.entry.id,
        "at": Wording::machine(line.entry.at),
        "upstream": line.subject.upstream,
        "sub": line.subject.sub,
        "action": line.entry.action,
        "case": line.entry.case,
        "actor": { "type": actor, "id": id },
        "alarm": line.entry.alarm,
        "details": line.entry.details,
    })
}
