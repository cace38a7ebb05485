//! The short-lived credential of a set-up: read when needed, kept nowhere.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::idp::keycloak::admin::Credentials;

/// Environment variable with the administrator's password.
pub const PASSWORD_VARIABLE: &str = "REENTRY_WIRE_PASSWORD";
/// Environment variable with the secret of a set-up client.
pub const SECRET_VARIABLE: &str = "REENTRY_WIRE_CLIENT_SECRET";

/// Longest secret file, in octets.
const LIMIT: u64 = 4096;

/// Who sets up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// An administrator by name.
    User(String),
    /// The service account of a client.
    Client(String),
}

/// Where the credential comes from: the file if one is given, else the environment, else the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Realm of the administrator or client, usually `master`.
    pub realm: String,
    /// Who.
    pub principal: Principal,
    /// File with the password or secret.
    pub file: Option<PathBuf>,
}

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The prompt failed.
    #[error("cannot ask for the password: {0}")]
    Prompt(std::io::Error),
    /// Nothing was given.
    #[error("the password is empty: give a file, set {0}, or type it")]
    Empty(&'static str),
}

impl Source {
    /// Reads the credential. `environment` looks a variable up; `prompt` asks a person, without
    /// echo, and is called only when neither file nor variable is there.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn read<E, P>(&self, environment: E, prompt: P) -> Result<Credentials, CredentialError>
    where
        E: Fn(&str) -> Option<String>,
        P: FnOnce(&str) -> std::io::Result<String>,
    {
        let (variable, question) = match &self.principal {
            Principal::User(name) => (
                PASSWORD_VARIABLE,
                format!("Password of {name} in realm {}: ", self.realm),
            ),
            Principal::Client(id) => (
                SECRET_VARIABLE,
                format!("Secret of client {id} in realm {}: ", self.realm),
            ),
        };
        let text = match (&self.file, environment(variable)) {
            (Some(path), _) => from_file(path)?,
            (None, Some(text)) => text,
            (None, None) => prompt(&question).map_err(CredentialError::Prompt)?,
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(CredentialError::Empty(variable));
        }
        let secret = SecretString::from(text.to_owned());
        let realm = self.realm.clone();
        Ok(match &self.principal {
            Principal::User(username) => Credentials::Password {
                realm,
                username: username.clone(),
                password: secret,
            },
            Principal::Client(id) => Credentials::Client {
                realm,
                id: id.clone(),
                secret,
            },
        })
    }
}

fn from_file(path: &Path) -> Result<String, CredentialError> {
    use std::io::Read as _;
    let fault = |source| CredentialError::File {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(fault)?;
    file.take(LIMIT).read_to_string(&mut text).map_err(fault)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn source(file: Option<PathBuf>) -> Source {
        Source {
            realm: "master".to_owned(),
            principal: Principal::User("admin".to_owned()),
            file,
        }
    }

    fn password(credentials: Result<Credentials, CredentialError>) -> Result<String, String> {
        match credentials.map_err(|error| error.to_string())? {
            Credentials::Password { password, .. } => Ok(password.expose_secret().to_owned()),
            Credentials::Client { .. } => Err("a client".to_owned()),
        }
    }

    #[test]
    fn file_then_environment_then_prompt() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("password");
        std::fs::write(&path, "from file\n")?;
        let environment = |name: &str| (name == PASSWORD_VARIABLE).then(|| "from environment".to_owned());
        let nothing = |_: &str| None;
        let prompt = |_: &str| Ok("typed".to_owned());
        assert_eq!(
            password(source(Some(path)).read(environment, prompt))?,
            "from file"
        );
        assert_eq!(
            password(source(None).read(environment, prompt))?,
            "from environment"
        );
        assert_eq!(password(source(None).read(nothing, prompt))?, "typed");
        assert!(matches!(
            source(None).read(nothing, |_| Ok("\n".to_owned())),
            Err(CredentialError::Empty(_))
        ));
        let absent = folder.path().join("absent");
        assert!(matches!(
            source(Some(absent)).read(nothing, prompt),
            Err(CredentialError::File { .. })
        ));
        Ok(())
    }
}
