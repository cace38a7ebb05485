//! The table, and the same as JSON.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::bare::{FORM, HELLO, READ, SIGN};

/// What the bare programs took on a quiet machine, in microseconds of CPU: one core of a 2.6 GHz Xeon.
const QUIET: [(&str, f64); 3] = [(HELLO, 5.0), (READ, 8.2), (SIGN, 36.0)];

/// One path's medians.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was asked.
    pub path: String,
    /// Server CPU per request in microseconds.
    pub cpu_us: f64,
    /// The bare program it is held against.
    pub against: Option<String>,
    /// Times that program's CPU, at most this is the aim.
    pub limit: Option<f64>,
    /// Requests per second.
    pub rps: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
    /// Redis commands per request.
    pub redis_commands: f64,
}

/// A figure of the process as a whole.
#[derive(Clone, Debug)]
pub struct Fact {
    /// What.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// At most this is the aim.
    pub limit: Option<f64>,
}

/// Everything measured.
#[derive(Debug, Default)]
pub struct Report {
    /// Paths.
    pub rows: Vec<Row>,
    /// The process.
    pub facts: Vec<Fact>,
}

impl Report {
    fn ratio(&self, row: &Row) -> Option<f64> {
        let against = row.against.as_ref()?;
        let bare = self.rows.iter().find(|r| r.path == *against)?;
        Some(row.cpu_us / bare.cpu_us)
    }

    /// To standard output.
    pub fn print(&self, took: Duration) {
        println!(
            "\n{:<50} {:>8} {:>6} {:>6} {:>9} {:>8} {:>8} {:>6}  held against",
            "path", "cpu us", "ratio", "limit", "req/s", "p50 ms", "p99 ms", "redis"
        );
        for row in &self.rows {
            let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
            let ratio = self.ratio(row);
            let missed = ratio.zip(row.limit).is_some_and(|(ratio, limit)| ratio > limit);
            println!(
                "{:<50} {:>8.1} {:>6} {:>6} {:>9.0} {:>8.2} {:>8.2} {:>6.2}  {}{}",
                row.path,
                row.cpu_us,
                number(ratio),
                number(row.limit),
                row.rps,
                row.p50_ms,
                row.p99_ms,
                row.redis_commands,
                row.against.as_deref().unwrap_or("-"),
                if missed { "; missed" } else { "" },
            );
        }
        println!();
        for fact in &self.facts {
            let limit = fact.limit.map(|limit| {
                let missed = if fact.value > limit { "; missed" } else { "" };
                format!("(at most {limit} {}{missed})", fact.unit)
            });
            println!(
                "{:<50} {:>8.1} {} {}",
                fact.name,
                fact.value,
                fact.unit,
                limit.unwrap_or_default()
            );
        }
        println!();
        for line in self.notes() {
            println!("{line}");
        }
        println!("measured in {} s", took.as_secs());
    }

    /// What has to be known to read the figures.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, quiet) in QUIET {
            if let Some(row) = self.rows.iter().find(|row| row.path == name)
                && row.cpu_us > quiet * 1.15
            {
                notes.push(format!(
                    "`{name}` took {:.1} us; on the quiet machine that the limits were set on it took {quiet} us. This core \
                     is slower, or others were on the machine: ratios compare, microseconds and requests per second do not.",
                    row.cpu_us
                ));
            }
        }
        let octets = self.rows.iter().find(|row| row.path == FORM);
        if let Some(form) = octets {
            notes.push(format!(
                "An introspection is a POST with a token in it and a longer answer: that alone makes the bare reading {:.1} us \
                 (`{FORM}`).",
                form.cpu_us
            ));
        }
        notes
    }

    /// As JSON: one object for each path and each figure of the process.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let rows = self.rows.iter().map(|row| {
            json!({
                "path": row.path, "cpu_us": round(row.cpu_us), "ratio": self.ratio(row).map(round),
                "limit": row.limit, "against": row.against, "rps": row.rps.round(), "p50_ms": round(row.p50_ms),
                "p99_ms": round(row.p99_ms), "redis_commands": round(row.redis_commands),
            })
        });
        let facts = self.facts.iter().map(|fact| {
            json!({ "path": fact.name, "value": round(fact.value), "unit": fact.unit, "limit": fact.limit })
        });
        let all: Vec<Value> = rows.chain(facts).collect();
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(file, format!("{:#}\n", Value::Array(all)))
            .with_context(|| format!("{} cannot be written", file.display()))?;
        println!("\nwritten to {}", file.display());
        Ok(())
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
