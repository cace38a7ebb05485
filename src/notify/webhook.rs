//! Outbound webhooks, signed as Standard Webhooks 1.0.0 describes: `webhook-id`, `webhook-timestamp` (Unix seconds of
//! this try) and `webhook-signature`, one `v1,` HMAC-SHA-256 in base64 over `id.timestamp.body` for each secret, so
//! that a secret is rotated by having two for a while. The id is the event's: the same at every try, so that a
//! receiver can leave out what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::domain::event::{Event, EventKind};
use crate::domain::subject::Subject;
use crate::domain::time::Span;
use crate::domain::wording::Wording;
use crate::ports::notifier::{Announcement, Notifier, NotifyError, Outgoing};
use crate::ports::outbound::{Outbound, OutboundError, Post};

/// A secret as octets; what stands behind `whsec_` in base64.
pub struct SigningSecret(hmac::Key);

impl SigningSecret {
    /// A secret of 24 to 64 octets, as the specification wants it.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<Self> {
        (24..=64)
            .contains(&octets.len())
            .then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, octets)))
    }

    /// The signature of a message.
    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        format!("v1,{}", STANDARD.encode(hmac::sign(&self.0, &signed)))
    }
}

/// Who is told what.
pub struct Receiver {
    /// Where to.
    pub url: String,
    /// Newest first; every one of them signs.
    pub secrets: Vec<SigningSecret>,
    /// Which events.
    pub events: BTreeSet<EventKind>,
}

/// Receivers that have answered 410: they get nothing until the configuration is loaded anew.
#[derive(Debug, Default)]
pub struct Gone(Mutex<BTreeSet<String>>);

impl Gone {
    fn has(&self, receiver: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(receiver)
    }

    /// Notes one; said once.
    fn note(&self, receiver: &str) {
        let mut gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.insert(receiver.to_owned()) {
            tracing::warn!(
                receiver,
                "the receiver wants no more (410): it is told nothing until `reentry serve` starts anew; take it out of `webhooks`"
            );
            metrics::gauge!("reentry_webhooks_gone", "receiver" => receiver.to_owned()).set(1.0);
        }
    }
}

/// The receivers of a deployment, beside the gateways for owners.
pub struct Webhooks {
    /// Gateways for notices.
    pub notices: Arc<dyn Notifier>,
    /// The client.
    pub outbound: Arc<dyn Outbound>,
    /// Receivers by configured id.
    pub receivers: BTreeMap<String, Receiver>,
    /// How long a delivery is tried.
    pub patience: Span,
    /// Receivers that said that they want no more.
    pub gone: Gone,
}

#[async_trait]
impl Notifier for Webhooks {
    async fn deliver(&self, outgoing: &Outgoing<'_>) -> Result<(), NotifyError> {
        self.notices.deliver(outgoing).await
    }

    fn receivers(&self, kind: EventKind) -> Vec<String> {
        let wanting = self.receivers.iter();
        let wanting = wanting.filter(|(id, r)| r.events.contains(&kind) && !self.gone.has(id));
        wanting.map(|(id, _)| id.clone()).collect()
    }

    async fn announce(&self, a: &Announcement<'_>) -> Result<(), NotifyError> {
        let Some(receiver) = self.receivers.get(a.receiver) else {
            let why = format!("there is no receiver `{}` any more", a.receiver);
            return Err(NotifyError::Never(why));
        };
        if self.gone.has(a.receiver) {
            return Ok(());
        }
        let (id, timestamp) = (message_id(a.id), a.now.secs());
        let body = document(a.subject, a.event).to_string().into_bytes();
        let signatures: Vec<String> = receiver
            .secrets
            .iter()
            .map(|secret| secret.sign(&id, timestamp, &body))
            .collect();
        let post = Post {
            url: &receiver.url,
            content_type: "application/json",
            headers: vec![
                ("webhook-id", id),
                ("webhook-timestamp", timestamp.to_string()),
                ("webhook-signature", signatures.join(" ")),
            ],
            body,
        };
        match self.outbound.post(&post).await {
            Ok(answer) if answer.taken() => Ok(()),
            // Gone: the receiver says itself that it wants no more (Standard Webhooks).
            Ok(answer) if answer.status == 410 => {
                self.gone.note(a.receiver);
                Ok(())
            }
            Ok(answer) if (300..400).contains(&answer.status) => Err(NotifyError::Later(format!(
                "the receiver redirects ({}), which is not followed: configure where it really is",
                answer.status
            ))),
            Ok(answer) => Err(NotifyError::Later(format!(
                "the receiver answered {}",
                answer.status
            ))),
            // An operator may change the name's address or allow the host: it is tried again, and visible meanwhile.
            Err(error @ (OutboundError::Refused(_) | OutboundError::Failed(_))) => {
                Err(NotifyError::Later(error.to_string()))
            }
        }
    }

    fn patience(&self) -> Span {
        self.patience
    }
}

/// The id on the wire: opaque, without a dot, the same whenever the event is.
fn message_id(id: &str) -> String {
    let hash = digest::digest(&digest::SHA256, id.as_bytes());
    let short = hash.as_ref().get(..18).unwrap_or_default();
    format!("msg_{}", URL_SAFE_NO_PAD.encode(short))
}

/// The body: `type`, `timestamp`, `data`, described in `openapi.yaml`.
fn document(subject: &Subject, event: &Event) -> Value {
    let mut data = json!({ "upstream": subject.upstream });
    if let Some(members) = data.as_object_mut() {
        if !event.kind.is_of_installation() {
            members.insert("sub".to_owned(), json!(subject.sub));
        }
        if let Some(case) = &event.case {
            members.insert("recovery_ref".to_owned(), json!(case));
        }
        members.insert("details".to_owned(), json!(event.details));
    }
    json!({ "type": event.kind, "timestamp": Wording::machine(event.at), "data": data })
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the Standard Webhooks specification's own libraries.
    #[test]
    fn a_signature_is_the_specifications() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = SigningSecret::new(&secret).unwrap().sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_id_has_no_dot_and_is_the_same_at_every_try() {
        let id = message_id("event:rc_1:hold_started:password.reset");
        assert_eq!(id, message_id("event:rc_1:hold_started:password.reset"));
        assert!(
            id.starts_with("msg_") && !id.contains('.') && id.len() == 28,
            "{id}"
        );
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(SigningSecret::new(&[0; 23]).is_none() && SigningSecret::new(&[0; 24]).is_some());
    }
}
