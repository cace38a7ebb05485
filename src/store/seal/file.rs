//! The key file: one secret a line, `kind id secret`, the newest seal key last.
//!
//! ```text
//! # What this is, for whoever finds it.
//! names n-3f9a1c 4jq…
//! seal  s-81b2d0 9Zk…
//! ```

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::config::private;

use super::{KeyFault, Keys, SECRET_LEN, Secret, hex};

const HEAD: &str = "\
# Root secrets of one Reentry installation. Keep them secret, keep a copy: without them nobody can read the store.
# The `names` key never changes. `seal` keys: the last one is used, all are accepted; to rotate, add one,
# and remove the oldest when nothing that it sealed or signed is in use any more.
";

impl Keys {
    /// Makes a new key file that only its owner can read, and reads it.
    ///
    /// # Errors
    /// [`KeyFault::File`] also when there is a file already: it is never overwritten.
    pub fn create(path: &Path) -> Result<Self, KeyFault> {
        let text = new_text()?;
        let fault = |source| file_fault(path, source);
        let mut file = private::create(path).map_err(fault)?;
        file.write_all(text.as_bytes()).map_err(fault)?;
        file.sync_all().map_err(fault)?;
        Self::parse(&text)
    }

    /// Adds a new seal key to a key file that can be read; it is the one that is used from then on.
    ///
    /// # Errors
    /// [`KeyFault`]; a file that does not read stays as it is.
    pub fn rotate(path: &Path) -> Result<Self, KeyFault> {
        let old = read(path)?;
        Self::parse(&old)?;
        let fault = |source| file_fault(path, source);
        let gap = if old.ends_with('\n') { "" } else { "\n" };
        let line = Zeroizing::new(format!("{gap}{}", line("seal")?.as_str()));
        let mut file = OpenOptions::new().append(true).open(path).map_err(fault)?;
        file.write_all(line.as_bytes()).map_err(fault)?;
        file.sync_all().map_err(fault)?;
        Self::load(path)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyFault`] says what is wrong, and in which line; it never holds a secret.
    pub fn load(path: &Path) -> Result<Self, KeyFault> {
        Self::parse(&read(path)?)
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let (mut names, mut seals) = (None, Vec::new());
        for (index, content) in text.lines().enumerate() {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let fault = |what| KeyFault::Line {
                line: index + 1,
                what,
            };
            let (kind, secret) = parse_line(content).map_err(fault)?;
            match kind {
                "names" if names.is_none() => names = Some(secret),
                "names" => return Err(fault("is a second `names` key")),
                "seal" if seals.iter().any(|s: &Secret| s.id == secret.id) => {
                    return Err(fault("repeats the id of a key"));
                }
                "seal" => seals.push(secret),
                _ => return Err(fault("does not begin with `names` or `seal`")),
            }
        }
        let names = names.ok_or(KeyFault::Whole("has no `names` key"))?;
        Self::derive(&names, &seals)
    }
}

fn parse_line(content: &str) -> Result<(&str, Secret), &'static str> {
    let mut words = content.split_whitespace();
    let (Some(kind), Some(id), Some(secret), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("is not `kind id secret`");
    };
    let decoded = Zeroizing::new(
        URL_SAFE_NO_PAD
            .decode(secret)
            .map_err(|_| "has a secret that is not base64url")?,
    );
    let bytes = <[u8; SECRET_LEN]>::try_from(decoded.as_slice())
        .map_err(|_| "has a secret that is not 32 octets long")?;
    let secret = Secret {
        id: id.to_owned(),
        bytes: Zeroizing::new(bytes),
    };
    Ok((kind, secret))
}

/// The text of a new key file.
pub(super) fn new_text() -> Result<Zeroizing<String>, KeyFault> {
    let text = [HEAD, &line("names")?, &line("seal")?].concat();
    Ok(Zeroizing::new(text))
}

fn line(kind: &str) -> Result<Zeroizing<String>, KeyFault> {
    let (mut id, mut secret) = ([0; 4], Zeroizing::new([0; SECRET_LEN]));
    rand::fill(&mut id).map_err(|_| KeyFault::Crypto)?;
    rand::fill(secret.as_mut_slice()).map_err(|_| KeyFault::Crypto)?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice()));
    let initial = kind.get(..1).unwrap_or_default();
    Ok(Zeroizing::new(format!(
        "{kind} {initial}-{} {}\n",
        hex(&id),
        secret.as_str()
    )))
}

fn read(path: &Path) -> Result<Zeroizing<String>, KeyFault> {
    private::read(path).map_err(KeyFault::Private)
}

fn file_fault(path: &Path, source: io::Error) -> KeyFault {
    KeyFault::File {
        path: path.display().to_string(),
        source,
    }
}
