//! The first snapshot of every account, so that addresses and ages are known before anything happens to them.

use crate::domain::subject::{Subject, UpstreamId};
use crate::flow::{Flow, FlowError, ingest};
use crate::ports::idp::IdpError;
use crate::ports::store::Parts;

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
    loop {
        let page = flow.idp(upstream)?.accounts(first, PAGE).await?;
        let Ok(size) = u32::try_from(page.len()) else {
            return Ok(count);
        };
        if size == 0 {
            return Ok(count);
        }
        for sub in page {
            if one(flow, upstream, &sub).await? {
                count += 1;
            }
        }
        first += size;
        progress(first);
    }
}

async fn one(flow: &Flow, upstream: &UpstreamId, sub: &str) -> Result<bool, FlowError> {
    let Some(subject) = Subject::new(upstream.clone(), sub) else {
        return Ok(false);
    };
    let key = flow.key(&subject);
    match flow.store.read(&key, Parts::ACCOUNT).await {
        Err(error) if error.heals() => return Ok(false),
        Ok(loaded) if loaded.account.is_some() => return Ok(false),
        other => other?,
    };
    match flow.reading(&subject).await {
        Ok(reading) => match ingest::refresh(flow, &key, &reading.account).await {
            // A partition that is lost gets its snapshots from the rebuild.
            Err(FlowError::Store(error)) if error.heals() => Ok(false),
            other => other.map(|_| true),
        },
        Err(FlowError::Idp(IdpError::UnknownSubject)) => Ok(false),
        Err(error) => Err(error),
    }
}
