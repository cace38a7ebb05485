//! What the tests need from an adapter besides its trait: starting it, killing it, and spoiling what it holds.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use reentry::ports::store::Store;
use reentry::store::seal::Keys;

/// An adapter with its server or file.
#[async_trait]
pub trait House: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn Store>;
    /// The keys it uses.
    fn keys(&self) -> Arc<Keys>;
}

/// The file.
pub struct Embedded {
    folder: tempfile::TempDir,
    keys: Arc<Keys>,
    store: Option<Arc<dyn Store>>,
}

impl Embedded {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::ephemeral().unwrap());
        let mut house = Self {
            folder,
            keys,
            store: None,
        };
        house.open().await;
        assert!(house.store().init().await.unwrap());
        house
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.redb")
    }

    async fn open(&mut self) {
        let store = reentry::store::embedded::open(&self.path(), Arc::clone(&self.keys)).await;
        self.store = Some(store.unwrap());
    }
}

#[async_trait]
impl House for Embedded {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }
}
