//! `keys`: signing keys and which algorithm signs what.

use std::path::{Path, PathBuf};

use super::reader::Section;
use super::values::{span, span_between};
use crate::domain::time::Span;

/// JWS algorithms that we sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jws {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Jws {
    pub(super) const CHOICES: [(&'static str, Self); 3] = [
        ("RS256", Self::Rs256),
        ("ES256", Self::Es256),
        ("EdDSA", Self::EdDsa),
    ];
}

/// The section `keys`.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// The directory with one file for each key (`reentry keys`).
    pub directory: PathBuf,
    /// Signs access tokens unless a client says otherwise.
    pub access_token: Jws,
    /// Signs ID tokens unless a client says otherwise.
    pub id_token: Jws,
    /// How long a key signs before its successor does; `None`: keys come and go by hand.
    pub rotate_every: Option<Span>,
    /// How long a successor is published before it signs.
    pub publish_ahead: Span,
}

/// The key files of a directory that is there.
fn key_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect()
}

impl KeySettings {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let directory = s.file("directory").and_then(|f| {
            if f.is_none() {
                s.fault(
                    "directory",
                    "is missing",
                    "write for example `directory: keys` and run `reentry keys create`",
                );
            }
            f
        });
        for key in directory.iter().flat_map(|d| key_files(d)) {
            s.kept_private("directory", &key);
        }
        let access_token = s.choice("access_token", Jws::Es256, &Jws::CHOICES);
        let id_token = s.choice("id_token", Jws::Rs256, &Jws::CHOICES);
        let rotate_every = s.or("rotate_every", Span::ZERO, |text| match span(text)? {
            Span::ZERO => Ok(Span::ZERO),
            _ => span_between(Span::from_hours(1), Span::from_days(3650))(text),
        });
        let publish_ahead = s.or(
            "publish_ahead",
            Span::from_hours(24),
            span_between(Span::from_mins(10), Span::from_days(90)),
        );
        if let (Some(every), Some(ahead)) = (rotate_every, publish_ahead)
            && every > Span::ZERO
            && ahead >= every
        {
            let problem = format!("is {ahead}, not less than rotate_every");
            s.fault(
                "publish_ahead",
                problem,
                "a key would be published after it signs",
            );
        }
        Some(Self {
            rotate_every: rotate_every.map(|every| (every > Span::ZERO).then_some(every))?,
            publish_ahead: publish_ahead?,
            directory: directory?,
            access_token: access_token?,
            id_token: id_token?,
        })
    }
}
