//! The generic hook: any program may push a change, signed as Standard Webhooks 1.0.0 asks.
//!
//! What is signed is `{webhook-id}.{webhook-timestamp}.{body}` with HMAC-SHA256; `webhook-signature` carries one or more
//! `v1,<base64>`, and any of several secrets may have made one of them, so that a secret can be changed without a
//! gap. The id is the idempotency mark: a sender repeats until it gets a 2xx, and the repetition stores nothing twice.
//! A timestamp more than five minutes from our clock is refused, so what was recorded is of no use later.
//!
//! A pushed change never loosens anything: nobody but ourselves can say that an eligible factor or a recent log-in
//! proved it, and a first enrolment is not among the kinds. Whoever steals a secret can restrict accounts, no more.

pub mod event;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

use crate::domain::time::{Span, Timestamp};
use crate::ports::hook::{Heeded, HookCall, HookRefusal};
use crate::ports::idp::{Heard, Line};

/// How far the time of a call may be from ours, either way (Standard Webhooks: "a few minutes").
pub const TOLERANCE: Span = Span::from_mins(5);
/// What a secret in its text form begins with.
const PREFIX: &str = "whsec_";
/// Most signatures that are looked at in one call.
const SIGNATURES: usize = 8;

/// Secrets of one hook, each of which may sign.
pub struct Secrets(Vec<hmac::Key>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Secrets in their text form, `whsec_` and 24 to 64 octets in base64.
    ///
    /// # Errors
    /// What is wrong with one of them; its text is not repeated.
    pub fn new(texts: &[SecretString]) -> Result<Self, String> {
        let key = |text: &SecretString| {
            let octets = text
                .expose_secret()
                .strip_prefix(PREFIX)
                .and_then(|encoded| STANDARD.decode(encoded).ok())
                .filter(|octets| (24..=64).contains(&octets.len()));
            octets
                .map(|octets| hmac::Key::new(hmac::HMAC_SHA256, &octets))
                .ok_or_else(|| format!("a webhook secret is not `{PREFIX}` and 24 to 64 octets in base64"))
        };
        texts.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them made one of the signatures in `header`. Every pair is compared in constant time.
    fn made(&self, header: &str, message: &[u8]) -> bool {
        let given = header
            .split(' ')
            .filter_map(|one| one.strip_prefix("v1,"))
            .take(SIGNATURES)
            .filter_map(|encoded| STANDARD.decode(encoded).ok());
        let given: Vec<Vec<u8>> = given.collect();
        let tries = self
            .0
            .iter()
            .flat_map(|key| given.iter().map(move |tag| (key, tag)));
        tries.fold(false, |found, (key, tag)| {
            found | hmac::verify(key, message, tag).is_ok()
        })
    }
}

/// Proves and reads one call.
///
/// # Errors
/// [`HookRefusal`].
pub fn heed(secrets: &Secrets, call: &HookCall<'_>, now: Timestamp) -> Result<Heeded, HookRefusal> {
    if secrets.is_empty() {
        return Err(HookRefusal::NotConfigured);
    }
    let id = call.header("webhook-id")?;
    let sent = call.header("webhook-timestamp")?;
    let signature = call.header("webhook-signature")?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-:".contains(&b);
    if id.len() > 100 || !id.bytes().all(fits) {
        return Err(HookRefusal::Malformed(
            "webhook-id is not 1 to 100 of A-Z a-z 0-9 _ - :".to_owned(),
        ));
    }
    let digits = !sent.is_empty() && sent.len() <= 12 && sent.bytes().all(|b| b.is_ascii_digit());
    let at = sent.parse::<i64>().ok().filter(|_| digits);
    let at = at
        .map(Timestamp::from_secs)
        .ok_or_else(|| HookRefusal::Malformed("webhook-timestamp is not in seconds since 1970".to_owned()))?;
    let message = [id.as_bytes(), b".", sent.as_bytes(), b".", call.body].concat();
    if !secrets.made(signature, &message) {
        return Err(HookRefusal::Unproven(
            "no signature in webhook-signature is one of ours: sign `{webhook-id}.{webhook-timestamp}.{body}`, and send the body as it was signed"
                .to_owned(),
        ));
    }
    let away = now.since(at);
    if away.abs() > TOLERANCE {
        let way = if away > Span::ZERO { "old" } else { "early" };
        return Err(HookRefusal::Unproven(format!(
            "webhook-timestamp is {} s too {way}: sign each try anew, and set the clocks by NTP",
            (away.abs().secs() - TOLERANCE.secs()).max(1)
        )));
    }
    let (sub, change) = event::read(call.body, id, at, now)?;
    Ok(Heeded::Told(Line {
        sub,
        heard: Heard::Change(change),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::change::{ChangeKind, Proof, Source};

    // The example of the Standard Webhooks specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    fn sign(secret: &str, id: &str, sent: Timestamp, body: &[u8]) -> String {
        let octets = STANDARD.decode(secret.strip_prefix(PREFIX).unwrap()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &octets);
        let message = [
            id.as_bytes(),
            b".",
            sent.secs().to_string().as_bytes(),
            b".",
            body,
        ]
        .concat();
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, &message)))
    }

    #[test]
    fn the_published_test_vector_verifies() {
        let body = br#"{"test": 2432232314}"#;
        let sent = Timestamp::from_secs(1_614_265_330);
        let made = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", sent, body);
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let message = [b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.".as_slice(), body].concat();
        assert!(Secrets::new(&[secret(SECRET)]).unwrap().made(&made, &message));
    }

    #[test]
    fn a_signed_change_is_told_and_one_with_any_other_octet_is_not() {
        let other = secret("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let secrets = Secrets::new(&[other, secret(SECRET)]).unwrap();
        let now = Timestamp::from_secs(1_700_000_000);
        let body = br#"{"type":"password_reset","timestamp":"2023-11-14T22:13:00Z","data":{"sub":"u1","proof":"message"}}"#;
        let signature = format!("v1a,x v1,AAAA {}", sign(SECRET, "m1", now, body));
        let call = |id: &'static str, sent: &'static str, body: &'static [u8]| HookCall {
            kind: crate::ports::hook::HookKind::Generic,
            headers: BTreeMap::from([
                ("webhook-id", id),
                ("webhook-timestamp", sent),
                ("webhook-signature", signature.as_str()),
            ]),
            body,
        };
        let told = heed(&secrets, &call("m1", "1700000000", body), now).unwrap();
        let Heeded::Told(Line {
            sub,
            heard: Heard::Change(change),
        }) = told
        else {
            panic!("{told:?}");
        };
        assert_eq!(
            (sub.as_str(), change.kind, change.source),
            ("u1", ChangeKind::PasswordReset, Source::Hook)
        );
        assert_eq!((change.proof, change.at.secs()), (Proof::Message, 1_699_999_980));
        for wrong in [
            call("m2", "1700000000", body),
            call("m1", "1700000001", body),
            call("m1", "1700000000", b"{}"),
        ] {
            assert!(
                matches!(heed(&secrets, &wrong, now), Err(HookRefusal::Unproven(_))),
                "{wrong:?}"
            );
        }
        for off in [301, -301] {
            let then = Timestamp::from_secs(1_700_000_000 + off);
            let said = heed(&secrets, &call("m1", "1700000000", body), then);
            assert!(matches!(said, Err(HookRefusal::Unproven(_))), "{off}: {said:?}");
        }
        assert!(
            heed(
                &secrets,
                &call("m1", "1700000000", body),
                Timestamp::from_secs(1_700_000_300)
            )
            .is_ok()
        );
    }

    #[test]
    fn secrets_are_long_enough_and_written_as_they_are_everywhere() {
        for wrong in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_c2hvcnQ=",
            "whsec_%%%%",
        ] {
            let said = Secrets::new(&[secret(wrong)]).unwrap_err();
            assert!(
                wrong.is_empty() || !said.contains(wrong) || wrong == PREFIX,
                "{said}"
            );
        }
    }
}
