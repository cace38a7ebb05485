//! The audit log for `reentry audit`: its chains, partition by partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;

use crate::app::assemble;
use crate::config::Config;
use crate::domain::audit::{Broken, Chain, Head, Linked};
use crate::ports::store::Store;
use crate::store::seal::Keys;

/// What a verification found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Lines that were read and whose MAC is right.
    pub lines: u64,
    /// The head of every partition that has lines.
    pub heads: BTreeMap<u8, Head>,
    /// The first bad line of each partition that is broken.
    pub broken: Vec<Broken>,
}

/// The log of an installation.
pub struct Log {
    store: Arc<dyn Store>,
}

impl Log {
    /// Opens the store that the configuration names.
    ///
    /// # Errors
    /// When keys or store cannot be used.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let keys = Keys::load(&config.store.keys_file).context("the store's keys cannot be used")?;
        let store = assemble::store(config, Arc::new(keys)).await?;
        Ok(Self { store })
    }

    /// Verifies every partition, against heads that were kept elsewhere if there are any. `seen` hears of the
    /// progress: partitions done, and lines so far.
    ///
    /// # Errors
    /// When a partition cannot be read.
    pub async fn verify(
        &self,
        earlier: &BTreeMap<u8, Vec<Head>>,
        mut seen: impl FnMut(u32, u64),
    ) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::default();
        for partition in 0..=u8::MAX {
            let mut chain = self.chain(partition).await?;
            for head in earlier.get(&partition).into_iter().flatten() {
                chain = chain.against(partition, head);
            }
            verdict.lines = verdict.lines.saturating_add(chain.lines.len() as u64);
            verdict.heads.extend(chain.head.map(|head| (partition, head)));
            verdict.broken.extend(chain.fault);
            seen(u32::from(partition) + 1, verdict.lines);
        }
        Ok(verdict)
    }

    /// Gives every line whose MAC is right to `each`, by partition and in the order of its chain. Gives what is
    /// broken.
    ///
    /// # Errors
    /// When a partition cannot be read, or `each` fails.
    pub async fn export(
        &self,
        mut each: impl FnMut(u8, &Linked) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Broken>> {
        let mut broken = Vec::new();
        for partition in 0..=u8::MAX {
            let chain = self.chain(partition).await?;
            for line in &chain.lines {
                each(partition, line)?;
            }
            broken.extend(chain.fault);
        }
        Ok(broken)
    }

    async fn chain(&self, partition: u8) -> anyhow::Result<Chain> {
        let chain = self.store.chain(partition).await;
        chain.with_context(|| format!("partition {partition:03} of the audit log cannot be read"))
    }
}
