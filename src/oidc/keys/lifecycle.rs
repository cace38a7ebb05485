//! Keys come and go: made, listed, retired.

use std::path::Path;

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};

use super::file::{self, KeyFile, Purpose};
use super::{KeyFault, PUBLISH_AHEAD, Pair, published, read_all};
use crate::domain::time::Timestamp;
use crate::ports::signer::Algorithm;

/// Makes a key of `algorithm` and writes it into `directory` (made when missing). With a key of that algorithm that
/// signs at `now` the new one is only published first and signs from `now` + [`PUBLISH_AHEAD`] on, unless `at_once`.
///
/// # Errors
/// [`KeyFault`]; nothing is written then.
pub fn create(
    directory: &Path,
    algorithm: Algorithm,
    at_once: bool,
    now: Timestamp,
) -> Result<KeyFile, KeyFault> {
    file::make_directory(directory)?;
    let others = read_all(directory)?;
    let succeeds = others.iter().any(|k| k.algorithm == algorithm && k.signs(now));
    let from = if succeeds && !at_once {
        now.plus(PUBLISH_AHEAD)
    } else {
        now
    };
    create_from(directory, algorithm, now, from)
}

/// Makes a key at `now` that signs from `active_from` on.
pub(super) fn create_from(
    directory: &Path,
    algorithm: Algorithm,
    now: Timestamp,
    active_from: Timestamp,
) -> Result<KeyFile, KeyFault> {
    let made = |e: aws_lc_rs::error::Unspecified| KeyFault::Make(e.to_string());
    let pkcs8 = generate(algorithm).map_err(made)?;
    let pair = Pair::parse(algorithm, &pkcs8).map_err(KeyFault::Make)?;
    let (_, kid) = published(&pair.public(), algorithm).map_err(KeyFault::Make)?;
    let made = KeyFile {
        kid,
        purpose: Purpose::Tokens,
        algorithm,
        created: now,
        active_from,
        retired: None,
        pkcs8,
    };
    file::write_new(directory, &made)?;
    Ok(made)
}

fn generate(algorithm: Algorithm) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    match algorithm {
        Algorithm::Rs256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
            let der: Pkcs8V1Der<'_> = pair.as_der()?;
            Ok(der.as_ref().to_vec())
        }
        Algorithm::Es256 => Ok(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?
            .to_pkcs8v1()?
            .as_ref()
            .to_vec()),
        Algorithm::EdDsa => Ok(Ed25519KeyPair::generate()?.to_pkcs8v1()?.as_ref().to_vec()),
    }
}

/// Retires a key at `now`: it signs no more, and verifies for [`KEEP_RETIRED`](super::KEEP_RETIRED). A key that is the last current one of an
/// algorithm the broker cannot do without is not retired.
///
/// # Errors
/// [`KeyFault::Unknown`], [`KeyFault::Missing`] when no current key would be left, or a fault of the directory.
pub fn retire(directory: &Path, kid: &str, now: Timestamp) -> Result<KeyFile, KeyFault> {
    let all = file::read_directory(directory)?;
    let (path, mut found) = all
        .iter()
        .find(|(_, f)| f.kid == kid)
        .cloned()
        .ok_or_else(|| KeyFault::Unknown(kid.to_owned()))?;
    let left = all.iter().any(|(_, f)| {
        f.kid != kid && f.algorithm == found.algorithm && f.active_from <= now && f.retired.is_none()
    });
    if !left && found.algorithm != Algorithm::EdDsa {
        return Err(KeyFault::Missing(found.algorithm.as_str()));
    }
    found.retired = found.retired.or(Some(now));
    file::replace(&path, &found)?;
    Ok(found)
}

/// Every key in the directory as it is written there, newest first.
///
/// # Errors
/// [`KeyFault`].
pub fn list(directory: &Path) -> Result<Vec<KeyFile>, KeyFault> {
    let mut keys: Vec<KeyFile> = file::read_directory(directory)?
        .into_iter()
        .map(|(_, f)| f)
        .collect();
    keys.sort_by(|a, b| (b.created, &b.kid).cmp(&(a.created, &a.kid)));
    Ok(keys)
}
