//! Listing every account of an IdP.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::subject::UpstreamId;
use crate::domain::time::Span;
use crate::flow::{Flow, FlowError};
use crate::ports::store::StoreError;

/// Accounts asked for at once.
const PAGE: u32 = 100;
/// Accounts of the page before that are asked for again: when somebody is deleted meanwhile the rest moves up.
const OVERLAP: u32 = 10;
/// Failed answers that one page may cost: enough to find two accounts that spoil it.
const FAULTS: u32 = 16;
/// How long one page may be listed.
const LISTING: Span = Span::from_secs(60);
/// How often, and how long each time, one waits for another who lists.
const TURNS: usize = 600;
const TURN: Duration = Duration::from_millis(200);

/// Every account of an IdP, page by page, nobody left out who is there all the while.
///
/// Listing makes some IdPs import the users of a directory, and two who list the same page make it fail for both: so a
/// page is asked for under a lease, whoever asks. Only an empty page is the end: a directory answers short ones. A page
/// that fails is asked for in halves, down to the account that spoils it; that place is left out and named.
#[derive(Debug, Default)]
pub(in crate::flow) struct Pages {
    pub(super) first: u32,
    before: BTreeSet<String>,
    /// Places that could not be listed.
    pub(in crate::flow) missing: Vec<u32>,
}

impl Pages {
    /// From the place where somebody else stopped.
    pub(super) fn from(first: u32) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// The next accounts; `None` at the end. `who` is named in the lease.
    ///
    /// # Errors
    /// [`FlowError`]: the IdP does not answer, or more of the page fails than can be left out.
    pub(in crate::flow) async fn next(
        &mut self,
        flow: &Flow,
        upstream: &UpstreamId,
        who: &str,
    ) -> Result<Option<Vec<String>>, FlowError> {
        let (page, gaps) = self.page(flow, upstream, who).await?;
        let size = u32::try_from(page.len() + gaps).unwrap_or(PAGE);
        if size == 0 {
            return Ok(None);
        }
        // Behind a short page there is no overlap: it would be walked through one by one.
        self.first += if size < PAGE { size } else { PAGE - OVERLAP };
        let fresh = page.iter().filter(|sub| !self.before.contains(*sub));
        let fresh: Vec<String> = fresh.cloned().collect();
        self.before = page.into_iter().collect();
        Ok(Some(fresh))
    }

    /// The page at the place where we are, and how many of it could not be listed.
    async fn page(
        &mut self,
        flow: &Flow,
        upstream: &UpstreamId,
        who: &str,
    ) -> Result<(Vec<String>, usize), FlowError> {
        let (mut page, mut gaps, mut faults) = (Vec::new(), 0, 0);
        let mut parts = vec![(self.first, PAGE)];
        while let Some((first, max)) = parts.pop() {
            match listed(flow, upstream, who, first, max).await {
                Ok(subs) => page.extend(subs),
                Err(FlowError::Idp(error)) if faults < FAULTS => {
                    flow.idp(upstream)?.answers().await?;
                    tracing::warn!(%upstream, first, max, %error, "a page of accounts cannot be listed");
                    faults += 1;
                    if max > 1 {
                        let half = max / 2;
                        parts.push((first + half, max - half));
                        parts.push((first, half));
                    } else {
                        gaps += 1;
                        self.missing.push(first);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok((page, gaps))
    }
}

/// Some accounts, when nobody else lists any.
async fn listed(
    flow: &Flow,
    upstream: &UpstreamId,
    who: &str,
    first: u32,
    max: u32,
) -> Result<Vec<String>, FlowError> {
    let name = format!("list:{upstream}");
    for _ in 0..TURNS {
        if flow.store.lease(&name, who, LISTING).await?.is_some() {
            let page = flow.idp(upstream)?.accounts(first, max).await;
            flow.store.release(&name, who).await?;
            return Ok(page?);
        }
        tokio::time::sleep(TURN).await;
    }
    Err(StoreError::StaleLease(name).into())
}
