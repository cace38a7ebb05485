//! Dead letters are sent again by a person's word, which is written down.

use crate::domain::audit::{Actor, Entry};
use crate::domain::subject::Subject;
use crate::flow::{Flow, FlowError};
use crate::ports::store::PendingId;

/// Puts a dead letter back into the outbox. Says whether it was there.
///
/// # Errors
/// [`FlowError::Store`].
pub async fn retry(flow: &Flow, at: &PendingId, who: &Subject) -> Result<bool, FlowError> {
    let now = flow.clock.now();
    if !flow.store.revive(at, now).await? {
        return Ok(false);
    }
    let id = format!("letter_retried:{at}:{}", flow.random::<6>());
    let entry = Entry::system(id, now, "letter_retried", None)
        .by(Actor::Administrator(who.name()))
        .with("letter", at);
    flow.store.note(who, &flow.key(who), &entry).await?;
    Ok(true)
}
