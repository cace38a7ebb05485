//! One signing key, one file: JSON with the private key as PKCS#8 PEM inside, readable by its owner alone.
//!
//! A file that others can read is refused at start, by the rule that all private files have
//! ([`private`]).

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::KeyFault;
use crate::config::private::{self, PrivateFault};
use crate::domain::time::Timestamp;
use crate::ports::signer::Algorithm;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// What a key may sign. A key of one purpose never signs for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Access tokens and ID tokens.
    Tokens,
}

/// A key as it stands in its file.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// RFC 7638 thumbprint; also the file's name.
    pub kid: String,
    /// What it may sign.
    pub purpose: Purpose,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// When it was made.
    pub created: Timestamp,
    /// It signs from here on.
    pub active_from: Timestamp,
    /// It signs no more from here on.
    pub retired: Option<Timestamp>,
    pub(super) pkcs8: Vec<u8>,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFile")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    kid: String,
    purpose: Purpose,
    algorithm: String,
    created: String,
    active_from: String,
    retired: Option<String>,
    private_key: String,
}

impl Drop for Written {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

/// Reads an algorithm by its JOSE name, in any case.
#[must_use]
pub fn algorithm(name: &str) -> Option<Algorithm> {
    super::ALGORITHMS
        .into_iter()
        .find(|a| a.as_str().eq_ignore_ascii_case(name))
}

/// An instant as RFC 3339 in UTC.
#[must_use]
pub fn instant(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.millis()).map_or_else(|e| e.to_string(), |t| t.to_string())
}

fn read_instant(text: &str) -> Result<Timestamp, String> {
    let at: jiff::Timestamp = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    Ok(Timestamp::from_millis(at.as_millisecond()))
}

impl KeyFile {
    fn parse(text: &str) -> Result<Self, String> {
        let written: Written = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if written.version != 1 {
            return Err(format!(
                "it has version {}, this program reads version 1",
                written.version
            ));
        }
        Ok(Self {
            algorithm: algorithm(&written.algorithm).ok_or_else(|| {
                format!(
                    "its algorithm is {}, not RS256, ES256 or EdDSA",
                    written.algorithm
                )
            })?,
            kid: written.kid.clone(),
            purpose: written.purpose,
            created: read_instant(&written.created)?,
            active_from: read_instant(&written.active_from)?,
            retired: written.retired.as_deref().map(read_instant).transpose()?,
            pkcs8: from_pem(&written.private_key)?,
        })
    }

    fn text(&self) -> Result<Zeroizing<String>, String> {
        let written = Written {
            version: 1,
            kid: self.kid.clone(),
            purpose: self.purpose,
            algorithm: self.algorithm.as_str().to_owned(),
            created: instant(self.created),
            active_from: instant(self.active_from),
            retired: self.retired.map(instant),
            private_key: to_pem(&self.pkcs8).to_string(),
        };
        serde_json::to_string_pretty(&written)
            .map(Zeroizing::new)
            .map_err(|e| e.to_string())
    }
}

fn to_pem(der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(body.len() + 64));
    pem.push_str(BEGIN);
    for (i, c) in body.chars().enumerate() {
        if i % 64 == 0 {
            pem.push('\n');
        }
        pem.push(c);
    }
    pem.push('\n');
    pem.push_str(END);
    pem.push('\n');
    pem
}

fn from_pem(pem: &str) -> Result<Vec<u8>, String> {
    let body = pem
        .trim()
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_suffix(END))
        .ok_or("its private_key is not a PKCS#8 PEM block")?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    STANDARD
        .decode(body.as_bytes())
        .map_err(|_| "its private_key is not base64".to_owned())
}

/// Makes the directory, for its owner alone, when it is not there.
pub(super) fn make_directory(directory: &Path) -> Result<(), KeyFault> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| KeyFault::Write {
            path: directory.to_owned(),
            why: e.to_string(),
        })
}

/// Reads every `*.json` of the directory.
pub(super) fn read_directory(directory: &Path) -> Result<Vec<(PathBuf, KeyFile)>, KeyFault> {
    let unreadable = |e: std::io::Error| KeyFault::Directory {
        path: directory.to_owned(),
        why: e.to_string(),
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "json") {
            let file = read(&path)?;
            found.push((path, file));
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<KeyFile, KeyFault> {
    let unusable = |why: String| KeyFault::Unusable {
        path: path.to_owned(),
        why,
    };
    let text = private::read(path).map_err(|fault| match fault {
        PrivateFault::Exposed { .. } => KeyFault::Exposed(fault),
        PrivateFault::Unreadable { source, .. } => unusable(source.to_string()),
    })?;
    KeyFile::parse(&text).map_err(unusable)
}

/// Writes a new file in one step, so that nobody who reads the directory meanwhile finds half a key. Its name is the
/// key's own, so it can never be over another's.
pub(super) fn write_new(directory: &Path, key: &KeyFile) -> Result<(), KeyFault> {
    replace(&directory.join(format!("{}.json", key.kid)), key)
}

/// Removes a file; one that is gone already is no fault.
pub(super) fn remove(path: &Path) -> Result<(), KeyFault> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(KeyFault::Write {
            path: path.to_owned(),
            why: e.to_string(),
        }),
        _ => Ok(()),
    }
}

fn write(path: &Path, key: &KeyFile) -> Result<(), KeyFault> {
    let failed = |why: String| KeyFault::Write {
        path: path.to_owned(),
        why,
    };
    let text = key.text().map_err(failed)?;
    let mut file = private::create(path).map_err(|e| failed(e.to_string()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|e| failed(e.to_string()))
}

/// Replaces a file by a new version of the same key, in one step.
pub(super) fn replace(path: &Path, key: &KeyFile) -> Result<(), KeyFault> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    write(&beside, key)?;
    fs::rename(&beside, path).map_err(|e| KeyFault::Write {
        path: path.to_owned(),
        why: e.to_string(),
    })
}
