//! The store in one file (redb), for one process: `demo`, and installations of one node.
//!
//! redb takes an exclusive lock on the file, writes one transaction at a time, and answers a commit only after the
//! file system has synced it, so what was acknowledged survives `kill -9` and a loss of power. Work on the file
//! runs on the blocking pool. Records are never collected here: one node has room for them.

mod audit;
mod dead;
mod queues;
mod subjects;
mod tables;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, WriteTransaction};

use super::backend::{Backend, Batch, ChainHead, Committed, Line, Raw, Waiting};
use super::marker::Marker;
use super::retention::AUDIT_RETENTION;
use super::seal::Keys;
use super::shared::Shared;
use crate::config::private;
use crate::domain::time::{Span, Timestamp};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Lease, Parts, PendingId, Soundness, Store, StoreError};

/// Opens the store in a file, which is created if it is not there. Markers are not: that is what
/// [`Store::init`] is for.
///
/// # Errors
/// [`StoreError::Unavailable`] when the file cannot be opened, or another process has it.
pub async fn open(path: &Path, keys: Arc<Keys>) -> Result<Arc<dyn Store>, StoreError> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || open_file(&path)).await;
    let file = opened.map_err(|e| StoreError::Unavailable(e.to_string()))??;
    Ok(Arc::new(Shared::new(file, keys)))
}

fn open_file(path: &Path) -> Result<File, StoreError> {
    private::look(path).map_err(|fault| StoreError::Unavailable(fault.to_string()))?;
    if !path.exists() {
        // Empty and for its owner alone, before anything is in it.
        match private::create(path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Unavailable(format!("{}: {e}", path.display())));
            }
            _ => {}
        }
    }
    let database = Database::create(path).map_err(|e| {
        let why = match e {
            DatabaseError::DatabaseAlreadyOpen => return StoreError::Taken(path.display().to_string()),
            other => other.to_string(),
        };
        StoreError::Unavailable(format!("{}: {why}", path.display()))
    })?;
    let file = File {
        database: Arc::new(database),
    };
    let transaction = file.database.begin_write().map_err(fault)?;
    tables::create(&transaction)?;
    transaction.commit().map_err(fault)?;
    Ok(file)
}

/// The file.
struct File {
    database: Arc<Database>,
}

/// A fault of the file is no answer about an account.
fn fault(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        e @ (redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. }) => {
            StoreError::Unsound(e.to_string())
        }
        e => StoreError::Unavailable(e.to_string()),
    }
}

impl File {
    async fn reading<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        let done = tokio::task::spawn_blocking(move || {
            let transaction = database.begin_read().map_err(fault)?;
            work(&transaction)
        });
        done.await.map_err(|e| StoreError::Unavailable(e.to_string()))?
    }

    /// Runs `work` and commits, unless it fails or says that there is nothing to commit.
    async fn writing<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&WriteTransaction) -> Result<(T, bool), StoreError> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        let done = tokio::task::spawn_blocking(move || {
            let transaction = database.begin_write().map_err(fault)?;
            let (answer, commit) = work(&transaction)?;
            if commit {
                transaction.commit().map_err(fault)?;
            } else {
                transaction.abort().map_err(fault)?;
            }
            Ok(answer)
        });
        done.await.map_err(|e| StoreError::Unavailable(e.to_string()))?
    }
}

#[async_trait]
impl Backend for File {
    fn exclusive(&self) -> bool {
        true
    }

    async fn read(&self, key: &SubjectKey, parts: Parts, mark: Option<&str>) -> Result<Raw, StoreError> {
        let (key, mark) = (*key, mark.map(str::to_owned));
        self.reading(move |t| subjects::read(t, &key, parts, mark.as_deref()))
            .await
    }

    async fn commit(&self, batch: &Arc<Batch>) -> Result<Committed, StoreError> {
        let batch = Arc::clone(batch);
        self.writing(move |t| {
            let committed = subjects::commit(t, &batch)?;
            let stored = matches!(committed, Committed::Stored(_));
            Ok((committed, stored))
        })
        .await
    }

    async fn outbox(
        &self,
        partitions: &[u8],
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        let partitions = partitions.to_vec();
        self.reading(move |t| queues::outbox(t, &partitions, now, max))
            .await
    }

    async fn peek(&self, max: usize) -> Result<Vec<Waiting>, StoreError> {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        self.reading(move |t| queues::outbox(t, &all, Timestamp::from_millis(i64::MAX), max))
            .await
    }

    async fn remove(&self, at: &PendingId) -> Result<(), StoreError> {
        let at = at.clone();
        self.writing(move |t| Ok(((), queues::remove(t, &at)?))).await
    }

    async fn defer(&self, at: &PendingId, sealed: &[u8], until: Timestamp) -> Result<(), StoreError> {
        let (at, sealed) = (at.clone(), sealed.to_vec());
        self.writing(move |t| Ok(((), queues::defer(t, &at, &sealed, until)?)))
            .await
    }

    async fn bury(&self, at: &PendingId, sealed: &[u8]) -> Result<(), StoreError> {
        let (at, sealed) = (at.clone(), sealed.to_vec());
        self.writing(move |t| Ok(((), dead::bury(t, &at, &sealed)?)))
            .await
    }

    async fn dead(&self, max: usize) -> Result<Vec<Waiting>, StoreError> {
        self.reading(move |t| dead::all(t, max)).await
    }

    async fn dead_one(&self, at: &PendingId) -> Result<Option<Waiting>, StoreError> {
        let at = at.clone();
        self.reading(move |t| dead::one(t, &at)).await
    }

    async fn revive(&self, at: &PendingId, sealed: &[u8]) -> Result<bool, StoreError> {
        let (at, sealed) = (at.clone(), sealed.to_vec());
        self.writing(move |t| {
            let revived = dead::revive(t, &at, &sealed)?;
            Ok((revived, revived))
        })
        .await
    }

    async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<SubjectKey>, StoreError> {
        self.reading(move |t| queues::due(t, now, max)).await
    }

    async fn put_state(&self, name: &str, sealed: &[u8], keep: Span) -> Result<(), StoreError> {
        let (name, sealed) = (name.to_owned(), sealed.to_vec());
        self.writing(move |t| Ok(((), queues::put_state(t, &name, &sealed, keep)?)))
            .await
    }

    async fn take_state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let name = name.to_owned();
        self.writing(move |t| {
            let found = queues::take_state(t, &name)?;
            let any = found.is_some();
            Ok((found, any))
        })
        .await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.reading(move |t| queues::setting(t, &name)).await
    }

    async fn set_setting(&self, name: &str, value: &str, lease: Option<&Lease>) -> Result<(), StoreError> {
        let (name, value, lease) = (name.to_owned(), value.to_owned(), lease.cloned());
        self.writing(move |t| queues::set_setting(t, &name, &value, lease.as_ref()).map(|()| ((), true)))
            .await
    }

    async fn lease(&self, name: &str, owner: &str, keep: Span) -> Result<Option<Lease>, StoreError> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.writing(move |t| {
            let lease = queues::lease(t, &name, &owner, keep)?;
            let taken = lease.is_some();
            Ok((lease, taken))
        })
        .await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.writing(move |t| Ok(((), queues::release(t, &name, &owner)?)))
            .await
    }

    async fn audit(&self, partition: Option<u8>, before: i64, max: usize) -> Result<Vec<Line>, StoreError> {
        self.reading(move |t| audit::lines(t, partition, before, max))
            .await
    }

    async fn head(&self, partition: u8) -> Result<Option<ChainHead>, StoreError> {
        self.reading(move |t| audit::head(&t.open_table(tables::CHAINS).map_err(fault)?, partition))
            .await
    }

    async fn heads(&self) -> Result<Vec<Option<ChainHead>>, StoreError> {
        self.reading(|t| {
            let table = t.open_table(tables::CHAINS).map_err(fault)?;
            (0..=u8::MAX).map(|p| audit::head(&table, p)).collect()
        })
        .await
    }

    fn audit_retention(&self) -> Span {
        AUDIT_RETENTION
    }

    async fn markers_in(&self, partitions: &[u8]) -> Result<Vec<Option<Marker>>, StoreError> {
        let partitions = partitions.to_vec();
        self.reading(move |t| {
            let markers = t.open_table(tables::MARKERS).map_err(fault)?;
            let losses = t.open_table(tables::LOSSES).map_err(fault)?;
            partitions
                .into_iter()
                .map(|p| subjects::marker(&markers, &losses, p))
                .collect()
        })
        .await
    }

    async fn installation(&self, fresh: Option<&Marker>) -> Result<Option<Marker>, StoreError> {
        let fresh = fresh.cloned();
        self.writing(move |t| subjects::installation(t, fresh.as_ref()))
            .await
    }

    async fn create_markers(&self, marker: &Marker) -> Result<(), StoreError> {
        let marker = marker.clone();
        self.writing(move |t| Ok(((), subjects::create_markers(t, &marker)?)))
            .await
    }

    async fn begin(&self, partition: u8, marker: &Marker) -> Result<Option<Marker>, StoreError> {
        let marker = marker.clone();
        self.writing(move |t| subjects::begin(t, partition, &marker))
            .await
    }

    async fn finish(&self, partition: u8, generation: u64) -> Result<Option<u64>, StoreError> {
        self.writing(move |t| subjects::finish(t, partition, generation))
            .await
    }

    async fn widen(&self, fingerprint: &str) -> Result<(), StoreError> {
        let fingerprint = fingerprint.to_owned();
        self.writing(move |t| Ok(((), subjects::widen(t, &fingerprint)?)))
            .await
    }

    async fn check(&self) -> Result<Soundness, StoreError> {
        Ok(Soundness::default())
    }
}
