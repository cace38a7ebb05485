//! Files that nobody else may read: one way to open them, and one to make them.
//!
//! Store keys forge links and cookies, signing keys forge tokens, secrets are those of others: a file that everybody on
//! the machine can read is refused, wherever it comes from, and so is one that a group can read to which this program
//! does not belong. Where secrets are mounted (Kubernetes: links through `..data`, owned by root, mode 0440 for the
//! group of the pod) the file behind the links is judged, and our own groups may read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a private file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFault {
    /// Others can read it.
    #[error(
        "{path} can be read by others (mode {mode:04o}, group {group}); run `chmod 600 {path}` (of a mounted secret: `defaultMode: 0440` and `fsGroup`), and replace what it holds if others had access"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its group.
        group: u32,
    },
    /// It cannot be opened or read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl PrivateFault {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Whether somebody else can read a file of this mode and group, who is not in one of `ours`.
fn is_exposed(mode: u32, group: u32, ours: &[u32]) -> bool {
    mode & 0o007 != 0 || (mode & 0o070 != 0 && !ours.contains(&group))
}

/// The groups of this process.
fn groups() -> Vec<u32> {
    let more = rustix::process::getgroups().unwrap_or_default();
    let own = [rustix::process::getegid(), rustix::process::getgid()];
    own.into_iter()
        .chain(more)
        .map(rustix::process::Gid::as_raw)
        .collect()
}

fn judged(path: &Path) -> Result<File, PrivateFault> {
    let unreadable = |source| PrivateFault::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    let mode = facts.mode() & 0o7777;
    if facts.is_file() && is_exposed(mode, facts.gid(), &groups()) {
        return Err(PrivateFault::Exposed {
            path: path.to_owned(),
            mode,
            group: facts.gid(),
        });
    }
    Ok(file)
}

/// Whether a file that is there is private; one that is not there is.
///
/// # Errors
/// [`PrivateFault`].
pub fn look(path: &Path) -> Result<(), PrivateFault> {
    match judged(path) {
        Err(fault) if !fault.is_missing() => Err(fault),
        _ => Ok(()),
    }
}

/// Reads a private file.
///
/// # Errors
/// [`PrivateFault`]; what others can read is not read here.
pub fn read(path: &Path) -> Result<Zeroizing<String>, PrivateFault> {
    let mut text = Zeroizing::new(String::new());
    judged(path)?
        .read_to_string(&mut text)
        .map_err(|source| PrivateFault::Unreadable {
            path: path.to_owned(),
            source,
        })?;
    Ok(text)
}

/// Makes a new file for its owner alone, from its first moment on.
///
/// # Errors
/// Also when there is a file already: it is never overwritten.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn others_are_everybody_and_groups_that_are_not_ours() {
        for (mode, group, exposed) in [
            (0o600, 7, false),
            (0o400, 7, false),
            (0o440, 5, false),
            (0o660, 5, false),
            (0o440, 7, true),
            (0o604, 5, true),
            (0o644, 5, true),
            (0o602, 5, true),
        ] {
            assert_eq!(is_exposed(mode, group, &[5, 6]), exposed, "{mode:o} {group}");
        }
    }

    // As Kubernetes mounts a secret: the name is a link to `..data/name`, and that a link to a folder of a date.
    #[test]
    fn a_mounted_secret_is_judged_by_the_file_behind_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let dated = folder.path().join("..2026_11_30");
        fs::create_dir(&dated).unwrap();
        let real = dated.join("store-keys");
        fs::write(&real, "text").unwrap();
        symlink("..2026_11_30", folder.path().join("..data")).unwrap();
        let name = folder.path().join("store-keys");
        symlink("..data/store-keys", &name).unwrap();
        for (mode, good) in [(0o440, true), (0o400, true), (0o444, false), (0o644, false)] {
            fs::set_permissions(&real, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&name).is_ok(), good, "{mode:o}");
            assert_eq!(look(&name).is_ok(), good, "{mode:o}");
        }
        let said = read(&name).unwrap_err().to_string();
        assert!(said.contains("mode 0644") && said.contains("chmod 600"), "{said}");
        assert!(look(&folder.path().join("nowhere")).is_ok());
        assert!(read(&folder.path().join("nowhere")).unwrap_err().is_missing());
    }

    #[test]
    fn what_is_made_is_private_from_the_beginning_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        drop(create(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
