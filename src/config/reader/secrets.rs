//! Secrets and files that a configuration names.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::super::fault::Place;
use super::super::private::{self, PrivateFault};
use super::super::words::filled;
use super::Section;

/// Stands for a secret that will be made.
const LATER: &str = "this secret has not been made yet";

impl Section<'_> {
    /// Whether this stands for a secret that will be made.
    #[must_use]
    pub fn is_made_later(secret: &SecretString) -> bool {
        secret.expose_secret() == LATER
    }

    /// A secret: `{key}_file` names a file that holds it, or the environment variable of `key` holds it itself. In the
    /// configuration file itself a secret is refused. `Some(None)` when there is neither.
    #[expect(clippy::option_option, reason = "not there and not readable are two things")]
    pub fn secret(&self, key: &str) -> Option<Option<SecretString>> {
        let file_key = format!("{key}_file");
        let inline = self.node(key);
        let file = self.file(&file_key)?;
        match (inline, file) {
            (None, None) => Some(None),
            (Some(_), Some(_)) => {
                let advice = format!("keep `{file_key}` or the environment variable");
                self.fault(key, format!("is given twice, also as `{file_key}`"), advice);
                None
            }
            (Some(node), None) => {
                if !matches!(node.place, Place::Environment(_)) {
                    let advice = format!("put it into a file and name that with `{file_key}`");
                    self.fault(key, "is a secret in the configuration file", advice);
                    return None;
                }
                self.value(&self.path(key), node, &|text: &str| filled(text))
                    .map(|text| Some(SecretString::from(text)))
            }
            (None, Some(path)) => self.secret_in(&file_key, &path).map(Some),
        }
    }

    fn secret_in(&self, key: &str, path: &Path) -> Option<SecretString> {
        let text = match private::read(path) {
            Ok(text) => text,
            Err(fault) if self.findings.secrets_later && fault.is_missing() => {
                return Some(SecretString::from(LATER.to_owned()));
            }
            Err(PrivateFault::Unreadable { source, .. }) => {
                let problem = format!("names {}, which cannot be read ({source})", path.display());
                self.fault(key, problem, "make the file, readable by this program alone");
                return None;
            }
            Err(fault @ PrivateFault::Exposed { .. }) => {
                self.exposed(key, path, &fault);
                return None;
            }
        };
        if let Ok(text) = filled(text.trim_end_matches(['\r', '\n'])) {
            return Some(SecretString::from(text));
        }
        let problem = format!("names {}, which is empty", path.display());
        self.fault(key, problem, "write the secret in it");
        None
    }

    /// A file that this program keeps to itself and reads later: one that is there already must be private.
    pub fn kept_private(&self, key: &str, path: &Path) {
        if let Err(fault @ PrivateFault::Exposed { .. }) = private::look(path) {
            self.exposed(key, path, &fault);
        }
    }

    fn exposed(&self, key: &str, path: &Path, fault: &PrivateFault) {
        let PrivateFault::Exposed { mode, .. } = fault else {
            return;
        };
        let problem = format!(
            "names {}, which others can read (mode {mode:04o})",
            path.display()
        );
        let advice = format!(
            "run `chmod 600 {}` (of a mounted secret: `defaultMode: 0440` and `fsGroup`), and replace the secret if others had access",
            path.display()
        );
        self.fault(key, problem, advice);
    }

    /// Reads a whole file that a key names.
    #[expect(clippy::option_option, reason = "not there and not readable are two things")]
    pub fn contents(&self, key: &str) -> Option<Option<(PathBuf, String)>> {
        let Some(path) = self.file(key)? else {
            return Some(None);
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(Some((path, text))),
            Err(error) => {
                let problem = format!("names {}, which cannot be read ({error})", path.display());
                self.fault(key, problem, "name a file that is there");
                None
            }
        }
    }
}
