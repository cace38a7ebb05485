//! The first snapshot of every account, so that addresses and ages are known before anything happens to them.

use crate::domain::subject::{Subject, UpstreamId};
use crate::flow::{Flow, FlowError, holders, ingest};
use crate::ports::idp::IdpError;
use crate::ports::store::{Parts, StoreError};

/// Accounts asked for at once.
const PAGE: u32 = 100;

/// Imports every account of an IdP that has no snapshot yet. Safe to run again; resumes by skipping what is there.
///
/// # Errors
/// [`FlowError`]: what was imported stays.
pub async fn run(
    flow: &Flow,
    upstream: &UpstreamId,
    progress: &(dyn Fn(u32) + Sync),
) -> Result<u32, FlowError> {
    let (mut first, mut count) = (0, 0);
    let founding = holders::is_founding(flow, upstream).await?;
    loop {
        let page = flow.idp(upstream)?.accounts(first, PAGE).await?;
        let Ok(size) = u32::try_from(page.len()) else {
            return Ok(count);
        };
        if size == 0 {
            holders::founded(flow, upstream).await?;
            return Ok(count);
        }
        for sub in page {
            if one(flow, upstream, &sub, founding).await? {
                count += 1;
            }
        }
        first += size;
        progress(first);
    }
}

/// In the beginning accounts that have a snapshot already are looked at too: who holds which role is known of none.
async fn one(flow: &Flow, upstream: &UpstreamId, sub: &str, founding: bool) -> Result<bool, FlowError> {
    let Some(subject) = Subject::new(upstream.clone(), sub) else {
        return Ok(false);
    };
    let key = flow.key(&subject);
    match flow.store.read(&key, Parts::ACCOUNT).await {
        Err(StoreError::Lost { .. }) => return Ok(false),
        Ok(loaded) if loaded.account.is_some() && !founding => return Ok(false),
        other => other?,
    };
    match flow.reading(&subject).await {
        Ok(reading) => match ingest::refresh(flow, &key, &reading.account).await {
            // A partition that is lost gets its snapshots from the rebuild.
            Err(FlowError::Store(StoreError::Lost { .. })) => Ok(false),
            other => other.map(|_| true),
        },
        Err(FlowError::Idp(IdpError::UnknownSubject)) => Ok(false),
        Err(error) => Err(error),
    }
}
