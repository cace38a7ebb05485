//! The keys never show, and never do each other's work.

use super::*;
use crate::domain::subject::UpstreamId;

fn subject(upstream: &str, sub: &str) -> Subject {
    Subject::new(UpstreamId::parse(upstream).unwrap(), sub).unwrap()
}

#[test]
fn what_was_sealed_opens_only_with_the_same_key_kind_and_place() {
    let (keys, others) = (Keys::ephemeral().unwrap(), Keys::ephemeral().unwrap());
    let sealed = keys
        .seal(Kind::Account, "re:{001}:a:x", b"alice@example.com")
        .unwrap();
    assert!(!sealed.windows(5).any(|w| w == b"alice"));
    let opened = keys.open(Kind::Account, "re:{001}:a:x", sealed.clone()).unwrap();
    assert_eq!(&opened[..], b"alice@example.com");
    let mut bent = sealed.clone();
    *bent.last_mut().unwrap() ^= 1;
    let mut newer = sealed.clone();
    newer[0] = SEALED + 1;
    let opened = |keys: &Keys, octets| keys.open(Kind::Account, "re:{001}:a:x", octets);
    assert!(matches!(
        opened(&others, sealed.clone()),
        Err(Shut::OtherKey { .. })
    ));
    assert!(matches!(opened(&keys, newer), Err(Shut::Newer { .. })));
    let mut former = sealed.clone();
    former[0] = SEALED - 1;
    for answer in [
        keys.open(Kind::Grants, "re:{001}:a:x", sealed.clone()),
        keys.open(Kind::Account, "re:{001}:a:y", sealed.clone()),
        keys.open(Kind::Account, "re:{001}:a:x", bent),
        keys.open(Kind::Account, "re:{001}:a:x", former),
        keys.open(Kind::Account, "re:{001}:a:x", sealed[..9].to_vec()),
    ] {
        assert!(matches!(answer, Err(Shut::Altered { .. })));
    }
}

// row P12: an artefact of one purpose is nothing for another.
#[test]
fn a_mac_of_one_purpose_never_verifies_as_another() {
    let keys = Keys::ephemeral().unwrap();
    for made in PURPOSES {
        let mac = keys.mac(made, b"m");
        for checked in PURPOSES {
            assert_eq!(keys.verify(checked, b"m", &mac), made == checked);
        }
        assert!(!keys.verify(made, b"n", &mac));
        assert!(!keys.verify(made, b"m", &mac[..31]));
    }
}

#[test]
fn a_rotated_key_file_opens_the_old_seals_anew_and_keeps_every_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let before = Keys::create(&path).unwrap();
    let sealed = before.seal(Kind::State, "p", b"v").unwrap();
    let mac = before.mac(Purpose::Refresh, b"m");
    let after = Keys::rotate(&path).unwrap();
    assert_eq!(after.ids().len(), 2);
    assert_eq!(after.fingerprint(), before.fingerprint());
    let who = subject("keycloak", "u");
    assert_eq!(after.subject(&who), before.subject(&who));
    assert!(after.open(Kind::State, "p", sealed.clone()).is_ok());
    assert!(after.verify(Purpose::Refresh, b"m", &mac));
    assert_ne!(after.mac(Purpose::Refresh, b"m"), mac);
    let resealed = after.seal(Kind::State, "p", b"v").unwrap();
    assert!(before.open(Kind::State, "p", resealed.clone()).is_err());
}

#[test]
fn a_key_file_is_private_and_is_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let fingerprint = Keys::create(&path).unwrap().fingerprint();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Keys::create(&path), Err(KeyFault::File { .. })));
    assert_eq!(Keys::load(&path).unwrap().fingerprint(), fingerprint);
}

#[test]
fn every_fault_of_a_key_file_names_its_line_and_no_secret() {
    let good = "A".repeat(43);
    let short = "A".repeat(40);
    for (text, says) in [
        (String::new(), "no `names` key"),
        (format!("names n {good}\n"), "no `seal` key"),
        (format!("names n {good}\nnames m {good}\n"), "line 2"),
        (format!("names n {good}\nseal s {short}\n"), "32 octets"),
        (format!("names n {good}\nseal s !!!\n"), "base64url"),
        (format!("names n {good}\nseal s\n"), "kind id secret"),
        (format!("names n {good}\nseel s {good}\n"), "line 2"),
        (
            format!("names n {good}\nseal s {good}\nseal s {good}\n"),
            "line 3",
        ),
    ] {
        let fault = Keys::parse(&text).unwrap_err().to_string();
        assert!(fault.contains(says), "{fault}");
        assert!(!fault.contains("AAAA"), "{fault}");
    }
}

#[test]
fn keys_never_print_themselves() {
    let text = file::new_text().unwrap();
    let keys = Keys::parse(&text).unwrap();
    let printed = format!("{keys:?}");
    for secret in text.lines().filter_map(|l| l.split(' ').nth(2)) {
        assert!(!printed.contains(secret));
    }
}

#[test]
fn subjects_and_channels_have_names_that_say_nothing_and_do_not_collide() {
    let keys = Keys::ephemeral().unwrap();
    let a = keys.subject(&subject("kc", "u"));
    assert_eq!(a, keys.subject(&subject("kc", "u")));
    assert_ne!(a, keys.subject(&subject("kd", "u")));
    let mail = keys.channel(ContactKind::Email, " Alice@Example.com ");
    assert_eq!(mail, keys.channel(ContactKind::Email, "alice@example.com"));
    assert_eq!(mail.0.len(), 22);
    let phone = keys.channel(ContactKind::Phone, "+1 (555) 010-0000");
    assert_eq!(phone, keys.channel(ContactKind::Phone, "+15550100000"));
    assert_ne!(
        keys.channel(ContactKind::Email, "+1"),
        keys.channel(ContactKind::Phone, "+1")
    );
}
