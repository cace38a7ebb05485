//! `reentry doctor`: is everything there and as it should be?

use clap::Args;

use super::{Outcome, Session, output, runtime};
use crate::app::doctor::{self, Finding, Level};

/// `reentry doctor`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  reentry doctor\n  reentry doctor --json\n  reentry doctor --send-test-mail me@example.com\n\nIt changes nothing and sends nothing, but for the mail it is asked for. Exit codes: 0 nothing has to be mended (warnings are named), 1 failed, 3 configuration refused, 4 something has to be mended."
)]
pub struct Doctor {
    /// Print findings as JSON.
    #[arg(long)]
    json: bool,
    /// Send one mail to this address.
    #[arg(long, value_name = "ADDRESS")]
    send_test_mail: Option<String>,
}

impl Doctor {
    /// Runs it.
    ///
    /// # Errors
    /// When the answer cannot be written as JSON.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let Some(config) = session.load() else {
            return Ok(Outcome::Refused);
        };
        let findings = runtime()?.block_on(doctor::examine(&config, self.send_test_mail.as_deref()));
        let bad = findings.iter().any(|f| f.level == Level::Bad);
        if self.json {
            output::json(&serde_json::json!({ "ok": !bad, "findings": findings }))?;
        } else {
            for finding in &findings {
                output::line(&told(finding, session.out));
            }
        }
        Ok(if bad { Outcome::Found } else { Outcome::Done })
    }
}

fn told(finding: &Finding, style: output::Style) -> String {
    let word = match finding.level {
        Level::Good => style.good("ok     "),
        Level::Warn => style.warn("warning"),
        Level::Bad => style.bad("mend   "),
    };
    let advice = if finding.advice.is_empty() {
        String::new()
    } else {
        format!("\n           {}", finding.advice)
    };
    format!("{word}  {}: {}{advice}", finding.part, finding.text)
}
