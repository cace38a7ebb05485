//! What we took away at the IdP ourselves: no line tells of it, so the snapshot has to know, or whoever compares later
//! would take it for somebody else's act, and hold the account for it.

use crate::domain::subject::Subject;
use crate::domain::subject::account::{Account, Factor};
use crate::domain::time::Timestamp;
use crate::flow::{Flow, FlowError};
use crate::ports::idp::IdpError;
use crate::ports::store::{Parts, Write};

/// Reads the account, and notes as gone those factors that we took and that are gone, and the contacts as they are now
/// where we gave those of before back. What anybody else did meanwhile is left to be found.
///
/// # Errors
/// [`FlowError`]: it has to be noted again.
pub(in crate::flow) async fn took_away(
    flow: &Flow,
    subject: &Subject,
    taken: &(dyn Fn(&Factor) -> bool + Sync),
    contacts_too: bool,
) -> Result<(), FlowError> {
    let reading = match flow.reading(subject).await {
        Err(FlowError::Idp(IdpError::UnknownSubject)) => return Ok(()),
        other => other?.account,
    };
    let noted = |before: &Account, seen: Timestamp| {
        let mut next = before.clone();
        if contacts_too {
            next.contacts = before.refreshed(&reading, seen).contacts;
        }
        for factor in next.factors.iter_mut().filter(|f| f.gone.is_none()) {
            let there = reading
                .factors
                .iter()
                .any(|f| f.id == factor.id && f.created == factor.created);
            if !there && taken(factor) {
                factor.gone = Some(seen);
            }
        }
        next
    };
    flow.store
        .update(&flow.key(subject), Parts::ACCOUNT, None, &|loaded| {
            let before = loaded.account.as_ref()?;
            let next = noted(before, flow.now(loaded.store_time).latest());
            (next != *before).then(|| Write {
                account: Some(next),
                ..Write::default()
            })
        })
        .await?;
    Ok(())
}
