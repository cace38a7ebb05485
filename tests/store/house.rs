//! What the tests need from an adapter besides its trait: starting it, killing it, and spoiling what it holds.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use reentry::ports::store::Store;
use reentry::store::redis::Settings;
use reentry::store::seal::Keys;
use reentry_test_support::redis::Redis as Server;

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

/// The server.
pub struct Redis {
    pub server: Server,
    keys: Arc<Keys>,
    store: Arc<dyn Store>,
}

impl Redis {
    pub async fn start() -> Self {
        let server = Server::durable();
        let keys = Arc::new(Keys::ephemeral().unwrap());
        let store = Self::connect(&server, &keys).await;
        assert!(store.init().await.unwrap());
        Self { server, keys, store }
    }

    async fn connect(server: &Server, keys: &Arc<Keys>) -> Arc<dyn Store> {
        let settings = Settings::new(server.url().into());
        reentry::store::redis::connect(settings, Arc::clone(keys))
            .await
            .unwrap()
    }
}

#[async_trait]
impl House for Redis {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }
}
