//! `store`: where state lives.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::reader::Section;
use super::values::deadline;

/// The section `store`.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Which store.
    pub kind: StoreKind,
    /// File with the keys that name subjects, seal tokens and encrypt addresses. Made by `reentry store init`.
    pub keys_file: PathBuf,
}

/// Redis, or a file for one process.
#[derive(Clone, Debug)]
pub enum StoreKind {
    /// A Redis server.
    Redis(RedisSettings),
    /// A redb file: one process, no other server.
    Embedded {
        /// The file.
        path: PathBuf,
    },
}

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://` or `rediss://`, with user and database number where needed, never with a password.
    pub url: Url,
    /// The password.
    pub password: Option<SecretString>,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
}

fn redis_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .map_err(|e| format!("is `{text}`, not a URL ({e}); write redis://localhost:6379/0"))?;
    if !matches!(url.scheme(), "redis" | "rediss") {
        return Err(format!("is `{text}`; write redis:// or rediss:// (TLS)"));
    }
    if url.host().is_none() {
        return Err(format!(
            "is `{text}` and names no host; write redis://localhost:6379/0"
        ));
    }
    if url.password().is_some() {
        return Err("has a password in it; name a file with `store.password_file`".to_owned());
    }
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() && database.parse::<u16>().is_err() {
        return Err(format!("is `{text}`; after the slash stands the database number"));
    }
    Ok(url)
}

impl StoreSettings {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let redis = s.choice("kind", true, &[("redis", true), ("embedded", false)]);
        let keys_file = s.file("keys_file").and_then(|f| {
            if f.is_none() {
                s.fault(
                    "keys_file",
                    "is missing",
                    "write for example `keys_file: store-keys` and run `reentry store init`",
                );
            }
            f
        });
        let url = s.optional("url", redis_url);
        let password = s.secret("password");
        let path = s.file("path");
        let timeout = s.or("timeout", Duration::from_millis(500), deadline);
        let connect_timeout = s.or("connect_timeout", Duration::from_secs(1), deadline);
        let kind = if redis? {
            if matches!(url, Some(None)) {
                s.fault(
                    "url",
                    "is missing",
                    "write for example `url: redis://localhost:6379/0`",
                );
            }
            if matches!(path, Some(Some(_))) {
                s.fault(
                    "path",
                    "belongs to `kind: embedded`",
                    "take it away, or set `kind: embedded`",
                );
            }
            StoreKind::Redis(RedisSettings {
                url: url??,
                password: password?,
                timeout: timeout?,
                connect_timeout: connect_timeout?,
            })
        } else {
            if matches!(path, Some(None)) {
                s.fault("path", "is missing", "write for example `path: reentry.redb`");
            }
            for key in ["url", "password", "password_file"] {
                if s.node(key).is_some() {
                    s.fault(
                        key,
                        "belongs to `kind: redis`",
                        "take it away, or set `kind: redis`",
                    );
                }
            }
            StoreKind::Embedded { path: path?? }
        };
        Some(Self {
            kind,
            keys_file: keys_file?,
        })
    }
}
