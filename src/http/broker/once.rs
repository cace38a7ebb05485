//! What counts once, at whichever replica: marked in the store when it has been proven, never before.

use crate::domain::time::Span;
use crate::flow::Flow;
use crate::oidc::digest;
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Mark, Parts, StoreError, Updated};

/// Something that counts once.
#[derive(Clone, Debug)]
pub struct Once {
    place: SubjectKey,
    mark: Mark,
}

impl Once {
    /// By its kind and its name; remembered so long.
    #[must_use]
    pub fn of(kind: &str, name: &str, keep: Span) -> Self {
        let digest = digest::sha256(format!("{kind}\0{name}").as_bytes());
        Self {
            place: SubjectKey(digest.first_chunk().copied().unwrap_or_default()),
            mark: Mark {
                name: format!("{kind}:{}", digest::s256(name)),
                keep: keep.max(Span::ZERO),
            },
        }
    }

    /// Whether it could be marked now, before something is used up that cannot be had again. Stores nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn can_be_marked(&self, flow: &Flow) -> Result<(), StoreError> {
        flow.store.read(&self.place, Parts::RECORD).await.map(|_| ())
    }

    /// Whether it is the first time; from now on it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_first(&self, flow: &Flow) -> Result<bool, StoreError> {
        let updated = flow
            .store
            .update(&self.place, Parts::RECORD, Some(&self.mark), &|_| None)
            .await?;
        Ok(!matches!(updated, Updated::Duplicate))
    }
}
