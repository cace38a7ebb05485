//! The marks by which a change is known to have been stored.

use std::collections::BTreeSet;

use super::MARK_KEEP;
use crate::domain::change::Change;
use crate::flow::{Flow, FlowError};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Mark, Parts, Updated};

/// The mark carries kind and row, so that a stricter judgement of the same event passes.
pub(super) fn change_mark(change: &Change) -> Mark {
    Mark {
        name: format!(
            "{}:{}:{:?}:{}",
            change.source.as_str(),
            change.id,
            change.kind,
            change.row().as_str()
        ),
        keep: MARK_KEEP,
    }
}

/// Those of `changes` that were never stored, by their ids: an account that was altered could not take them.
///
/// # Errors
/// [`FlowError::Store`].
pub(in crate::flow) async fn unheard(
    flow: &Flow,
    key: &SubjectKey,
    changes: &[Change],
) -> Result<BTreeSet<String>, FlowError> {
    let mut unheard = BTreeSet::new();
    for change in changes {
        let mark = change_mark(change);
        let parts = Parts::RECORD.while_rebuilding();
        let found = flow.store.update(key, parts, Some(&mark), &|_| None).await?;
        if !matches!(found, Updated::Duplicate) {
            unheard.insert(change.id.clone());
        }
    }
    Ok(unheard)
}
