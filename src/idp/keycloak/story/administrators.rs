//! What administrators did to an account, as their log tells it.

use super::{Story, Told, What};
use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::subject::account::FactorClass;
use crate::domain::time::Timestamp;
use crate::idp::keycloak::admin::text;
use crate::idp::keycloak::events::{self, AdminAct};
use crate::idp::keycloak::representations::AdminEvent;

impl Story<'_> {
    pub(super) fn admin_event(&self, event: &AdminEvent) -> Vec<Told> {
        let Some((_, act)) = events::admin_act(event) else {
            return Vec::new();
        };
        if events::is_own(event, &act, self.rules.own.as_deref()) {
            return Vec::new();
        }
        let told = |what| {
            vec![Told {
                time: event.time,
                event: events::admin_id(event),
                what,
            }]
        };
        let change = |kind, factor| {
            told(What::Change(Box::new(self.admin_change(
                event,
                kind,
                Some(factor),
            ))))
        };
        match act {
            AdminAct::SetPassword => change(self.password_set(event), FactorClass::Password),
            AdminAct::RemovedCredential(_) => change(ChangeKind::FactorRemoved, class_removed(event)),
            AdminAct::Linked(_) | AdminAct::Unlinked(_) => {
                change(ChangeKind::FederatedLinkChanged, FactorClass::FederatedLink)
            }
            AdminAct::Created => told(What::Touched),
            AdminAct::Edited => {
                let mut lines: Vec<Told> = self.contacts_edited(event).collect();
                lines.extend(told(What::Touched));
                lines
            }
            AdminAct::MovedGroup(group) => told(What::Moved {
                what: moved(event),
                group: Some(group.to_owned()),
            }),
            AdminAct::MovedRoles => told(What::Moved {
                what: moved(event),
                group: None,
            }),
            AdminAct::Deleted
            | AdminAct::SignedOut
            | AdminAct::SentActions
            | AdminAct::SentVerification
            | AdminAct::Other => Vec::new(),
        }
    }

    /// A password that an administrator set: the first of a young account, or one that takes another's place.
    fn password_set(&self, event: &AdminEvent) -> ChangeKind {
        if self.may_be_first(event.time, FactorClass::Password, None) {
            ChangeKind::CredentialInitialised
        } else {
            ChangeKind::PasswordSetByAdmin
        }
    }

    /// The addresses that this edit took away, as far as the logs know them. What an account had before its first line is
    /// found by comparing.
    fn contacts_edited(&self, event: &AdminEvent) -> impl Iterator<Item = Told> {
        let taken = self
            .window
            .former
            .iter()
            .filter(|former| former.gone == event.time);
        taken.enumerate().map(|(index, former)| {
            let kind = if former.name == "email" {
                ChangeKind::EmailChanged
            } else {
                ChangeKind::PhoneChanged
            };
            let mut change = self.admin_change(event, kind, None);
            if index > 0 {
                change.id = format!("{}#{}", change.id, former.name);
            }
            change.previous_address = Some(former.address.clone());
            Told {
                time: event.time,
                event: events::admin_id(event),
                what: What::Change(Box::new(change)),
            }
        })
    }

    fn admin_change(&self, event: &AdminEvent, kind: ChangeKind, factor: Option<FactorClass>) -> Change {
        Change {
            id: events::admin_id(event),
            source: Source::AdminEvents,
            kind,
            factor,
            at: Timestamp::from_millis(event.time),
            offset: self.ahead,
            received: self.received,
            proof: Proof::Administrator,
            mediated: false,
            session: None,
            channel: None,
            // An administrator's network says nothing to the owner about a stranger.
            origin: None,
            previous_address: None,
        }
    }
}

/// The class of the credential that was removed.
fn class_removed(event: &AdminEvent) -> FactorClass {
    let kind = event.details.get("credential_type");
    kind.map_or(FactorClass::Other, |kind| events::class(kind))
}

/// What was moved, for the audit log.
fn moved(event: &AdminEvent) -> String {
    let path = event.resource_path.as_deref().unwrap_or_default();
    let names = event.representation.as_deref().map(names).unwrap_or_default();
    format!("{} {path} {}", event.operation_type, names.join(", "))
        .trim_end()
        .to_owned()
}

/// Names of the roles or the path of the group that were sent.
fn names(representation: &str) -> Vec<String> {
    let Ok(value) = text::read::<serde_json::Value>(representation.as_bytes()) else {
        return Vec::new();
    };
    let name = |of: &serde_json::Value| {
        let text = of.get("path").or_else(|| of.get("name"));
        text.and_then(serde_json::Value::as_str).map(str::to_owned)
    };
    match &value {
        serde_json::Value::Array(roles) => roles.iter().filter_map(name).collect(),
        other => name(other).into_iter().collect(),
    }
}
