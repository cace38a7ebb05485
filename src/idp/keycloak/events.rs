//! Reading Keycloak's two logs: which lines matter, and what one line says.

use crate::domain::session::Withdrawal;
use crate::domain::subject::account::FactorClass;
use crate::domain::time::Timestamp;
use crate::idp::keycloak::representations::{AdminEvent, Event};

/// User events that say that something about an account changed: what the poller asks for.
pub const TELLING: [&str; 15] = [
    "CUSTOM_REQUIRED_ACTION",
    "FEDERATED_IDENTITY_LINK",
    "FEDERATED_IDENTITY_OVERRIDE_LINK",
    "REGISTER",
    "REMOVE_CREDENTIAL",
    "REMOVE_FEDERATED_IDENTITY",
    "REMOVE_TOTP",
    "RESET_PASSWORD",
    "SEND_RESET_PASSWORD",
    "UPDATE_CREDENTIAL",
    "UPDATE_EMAIL",
    "UPDATE_PASSWORD",
    "UPDATE_PROFILE",
    "UPDATE_TOTP",
    "VERIFY_EMAIL",
];

/// User events that say that Keycloak has ended something: what the poller asks for beside [`TELLING`]. Each is believed
/// as it stands, without reading the account.
pub const ENDING: [&str; 2] = ["DELETE_ACCOUNT", "LOGOUT"];

/// User events of log-ins: with a password or a code, or by way of another provider.
pub const ENTERING: [&str; 4] = [
    "IDENTITY_PROVIDER_FIRST_LOGIN",
    "IDENTITY_PROVIDER_LOGIN",
    "IDENTITY_PROVIDER_POST_LOGIN",
    "LOGIN",
];

/// What is read beside [`TELLING`] when an account's story is judged.
pub const TELLING_TOO: [&str; 2] = ["IMPERSONATE", "LOGIN"];

/// Types without which changes would go unseen: an alarm when the realm does not store them.
pub const NEEDED: [&str; 8] = [
    "LOGIN",
    "FEDERATED_IDENTITY_LINK",
    "REMOVE_CREDENTIAL",
    "REMOVE_FEDERATED_IDENTITY",
    "SEND_RESET_PASSWORD",
    "UPDATE_CREDENTIAL",
    "UPDATE_EMAIL",
    "UPDATE_PROFILE",
];

/// What a user event did to a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Set or replaced.
    Set,
    /// Removed.
    Removed,
}

/// The class of a Keycloak credential type.
#[must_use]
pub fn class(kind: &str) -> FactorClass {
    match kind {
        "password" => FactorClass::Password,
        "otp" | "totp" | "hotp" => FactorClass::Otp,
        "webauthn" | "webauthn-passwordless" => FactorClass::Passkey,
        "recovery-authn-codes" => FactorClass::RecoveryCodes,
        _ => FactorClass::Other,
    }
}

/// Whether one can prove oneself with a credential of this type. Old passwords, kept for a password policy, are
/// listed beside the credentials.
#[must_use]
pub fn is_factor(kind: &str) -> bool {
    kind != "password-history"
}

/// What a user event did to which class of credential, and whether it is of a deprecated type that
/// Keycloak raises beside the generic one. Failed attempts did nothing.
#[must_use]
pub fn credential(event: &Event) -> Option<(Touch, FactorClass, bool)> {
    if event.error.is_some() {
        return None;
    }
    let named = event.details.get("credential_type").map(|kind| class(kind));
    match event.kind.as_str() {
        "UPDATE_CREDENTIAL" => Some((Touch::Set, named.unwrap_or(FactorClass::Other), false)),
        "REMOVE_CREDENTIAL" => Some((Touch::Removed, named.unwrap_or(FactorClass::Other), false)),
        // `RESET_PASSWORD` ends only a flow of somebody's own; what it did is a reset.
        "UPDATE_PASSWORD" | "RESET_PASSWORD" => Some((Touch::Set, FactorClass::Password, true)),
        "UPDATE_TOTP" => Some((Touch::Set, FactorClass::Otp, true)),
        "REMOVE_TOTP" => Some((Touch::Removed, FactorClass::Otp, true)),
        // The clone of a WebAuthn registration, and recovery codes on 26.0, where no generic event exists.
        "CUSTOM_REQUIRED_ACTION" => {
            let action = event.details.get("custom_required_action").map(String::as_str);
            let of_action = match action {
                Some("webauthn-register" | "webauthn-register-passwordless") => Some(FactorClass::Passkey),
                Some("CONFIGURE_RECOVERY_AUTHN_CODES") => Some(FactorClass::RecoveryCodes),
                _ => None,
            };
            named.or(of_action).map(|class| (Touch::Set, class, true))
        }
        _ => None,
    }
}

/// Whether a log-in was made with a recovery code. An enrolment inside a log-in names the same type of credential, and its
/// action beside it.
#[must_use]
pub fn used_recovery_code(event: &Event) -> bool {
    let named = event.details.get("credential_type").map(|kind| class(kind));
    event.kind == "LOGIN"
        && event.error.is_none()
        && named == Some(FactorClass::RecoveryCodes)
        && !event.details.contains_key("custom_required_action")
}

/// Who signed in by way of another provider.
#[must_use]
pub fn came_by_provider(event: &Event) -> Option<&str> {
    let by_provider = event.details.contains_key("identity_provider");
    let entered = ENTERING.contains(&event.kind.as_str()) && event.error.is_none();
    event.user_id.as_deref().filter(|_| by_provider && entered)
}

/// The root authentication session in which an event happened, which is the user session's id too.
#[must_use]
pub fn code(event: &Event) -> Option<&str> {
    event
        .details
        .get("code_id")
        .map(String::as_str)
        .filter(|code| !code.is_empty())
}

/// The id of a user event: Keycloak's, or one made of what it says (servers before 26.2 give none).
#[must_use]
pub fn id(event: &Event) -> String {
    event.id.clone().unwrap_or_else(|| {
        let user = event.user_id.as_deref().unwrap_or_default();
        bounded(format!(
            "{}:{}:{user}:{}",
            event.time,
            event.kind,
            code(event).unwrap_or_default()
        ))
    })
}

/// The id of an admin event.
#[must_use]
pub fn admin_id(event: &AdminEvent) -> String {
    event.id.clone().unwrap_or_else(|| {
        let path = event.resource_path.as_deref().unwrap_or_default();
        bounded(format!("{}:{}:{path}", event.time, event.operation_type))
    })
}

fn bounded(mut id: String) -> String {
    id.truncate(id.floor_char_boundary(128));
    id
}

/// What an administrator did to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAct<'a> {
    /// Made it.
    Created,
    /// Edited it: e-mail, attributes, enabled, required actions, even credentials.
    Edited,
    /// Deleted it.
    Deleted,
    /// Set its password.
    SetPassword,
    /// Sent a mail with a link to required actions.
    SentActions,
    /// Sent a mail with a link that verifies its address: it leads on to actions that are due.
    SentVerification,
    /// Deleted one credential.
    RemovedCredential(&'a str),
    /// Linked a login at another provider.
    Linked(&'a str),
    /// Took such a link away.
    Unlinked(&'a str),
    /// Moved it in or out of a group.
    MovedGroup(&'a str),
    /// Gave or took roles.
    MovedRoles,
    /// Signed it out everywhere: sessions end, and Keycloak takes no token of before any more.
    SignedOut,
    /// Something that changes nothing here.
    Other,
}

/// What can stand below an account in a path.
const BELOW: [&str; 14] = [
    "configured-user-storage-credential-types",
    "consents",
    "credentials",
    "disable-credential-types",
    "execute-actions-email",
    "federated-identity",
    "groups",
    "impersonation",
    "logout",
    "offline-sessions",
    "reset-password",
    "reset-password-email",
    "role-mappings",
    "send-verify-email",
];

/// The account that a path names, and what is below it. Keycloak writes an id as it is: one with a slash ends where
/// something begins that can stand below an account.
#[must_use]
pub fn account_of(path: &str) -> Option<(&str, Vec<&str>)> {
    let path = path.strip_prefix("users/")?;
    // The realm's user profile.
    if path.is_empty() || path == "profile" {
        return None;
    }
    let slashes = path.match_indices('/').map(|(at, _)| at);
    let mut ends = slashes.filter(|at| {
        let below = path.get(at + 1..).unwrap_or_default();
        BELOW.contains(&below.split('/').next().unwrap_or_default())
    });
    let Some((sub, below)) = ends.next().and_then(|at| path.split_at_checked(at)) else {
        return Some((path, Vec::new()));
    };
    Some((sub, below.split('/').skip(1).collect()))
}

/// Whom an admin event concerns and what was done. `None` when it concerns no account, or failed.
#[must_use]
pub fn admin_act(event: &AdminEvent) -> Option<(&str, AdminAct<'_>)> {
    if event.error.is_some() {
        return None;
    }
    let (sub, rest) = account_of(event.resource_path.as_deref()?)?;
    let act = match (event.operation_type.as_str(), rest.as_slice()) {
        ("CREATE", []) => AdminAct::Created,
        ("UPDATE", []) => AdminAct::Edited,
        ("DELETE", []) => AdminAct::Deleted,
        (_, ["reset-password"]) => AdminAct::SetPassword,
        (_, ["execute-actions-email" | "reset-password-email"]) => AdminAct::SentActions,
        (_, ["send-verify-email"]) => AdminAct::SentVerification,
        ("ACTION" | "DELETE", ["credentials", credential]) => AdminAct::RemovedCredential(credential),
        ("CREATE", ["federated-identity", provider]) => AdminAct::Linked(provider),
        ("DELETE", ["federated-identity", provider]) => AdminAct::Unlinked(provider),
        (_, ["groups", group]) => AdminAct::MovedGroup(group),
        (_, ["role-mappings", ..]) => AdminAct::MovedRoles,
        ("ACTION", ["logout"]) => AdminAct::SignedOut,
        _ => AdminAct::Other,
    };
    Some((sub, act))
}

/// What a user event says that Keycloak has ended, and whose.
#[must_use]
pub fn ended(event: &Event) -> Option<(&str, Withdrawal)> {
    let sub = event.user_id.as_deref().filter(|_| event.error.is_none())?;
    let at = Timestamp::from_millis(event.time);
    match (event.kind.as_str(), &event.session_id) {
        ("DELETE_ACCOUNT", _) => Some((sub, Withdrawal::Account)),
        ("LOGOUT", Some(sid)) => {
            let (sid, offline) = (sid.clone(), false);
            Some((sub, Withdrawal::Session { sid, at, offline }))
        }
        _ => None,
    }
}

/// What an administrator's act says that Keycloak has ended, and whose. A sign-out everywhere ends offline tokens too.
#[must_use]
pub fn ended_by_admin(event: &AdminEvent) -> Option<(&str, Withdrawal)> {
    let at = Timestamp::from_millis(event.time);
    match admin_act(event)? {
        (sub, AdminAct::Deleted) => Some((sub, Withdrawal::Account)),
        (sub, AdminAct::SignedOut) => Some((sub, Withdrawal::Sessions { at, offline: true })),
        _ => None,
    }
}

/// Whether we did it ourselves, with a call that we use. `own` is the id of our service account. What we never
/// do (setting passwords, sending mails, making users) counts even when our account did it: somebody else has
/// our credentials then.
#[must_use]
pub fn is_own(event: &AdminEvent, act: &AdminAct<'_>, own: Option<&str>) -> bool {
    let used = matches!(
        act,
        AdminAct::Edited
            | AdminAct::RemovedCredential(_)
            | AdminAct::Unlinked(_)
            | AdminAct::MovedGroup(_)
            | AdminAct::MovedRoles
            | AdminAct::SignedOut
            | AdminAct::Other
    );
    used && own.is_some() && event.auth_details.user_id.as_deref() == own
}

/// The network an address belongs to, coarse enough for a mail: `/16` of IPv4, `/48` of IPv6.
#[must_use]
pub fn network(ip: &str) -> Option<String> {
    match ip.parse().ok()? {
        std::net::IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            Some(format!("{a}.{b}.0.0/16"))
        }
        std::net::IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return network(&v4.to_string());
            }
            let [a, b, c, ..] = v6.segments();
            let net = std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0);
            Some(format!("{net}/48"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_names_a_network_never_an_address() {
        assert_eq!(network("203.0.113.77").as_deref(), Some("203.0.0.0/16"));
        assert_eq!(
            network("2001:db8:85a3:1:2:3:4:5").as_deref(),
            Some("2001:db8:85a3::/48")
        );
        assert_eq!(network("::ffff:203.0.113.77").as_deref(), Some("203.0.0.0/16"));
        assert_eq!(network("unknown"), None);
    }

    fn admin(operation: &str, path: &str, by: &str) -> AdminEvent {
        serde_json::from_value(serde_json::json!({
            "id": "e", "time": 1, "operationType": operation, "resourcePath": path,
            "authDetails": {"userId": by},
        }))
        .unwrap()
    }

    #[test]
    fn admin_events_are_told_apart_by_their_paths() {
        let act = |operation, path| {
            let event = admin(operation, path, "a");
            admin_act(&event).map(|(sub, act)| (sub.to_owned(), format!("{act:?}")))
        };
        let yes = |what: &str| Some(("u".to_owned(), what.to_owned()));
        assert_eq!(act("ACTION", "users/u/reset-password"), yes("SetPassword"));
        assert_eq!(act("ACTION", "users/u/execute-actions-email"), yes("SentActions"));
        assert_eq!(
            act("ACTION", "users/u/credentials/c"),
            yes("RemovedCredential(\"c\")")
        );
        assert_eq!(act("UPDATE", "users/u/credentials/c/userLabel"), yes("Other"));
        assert_eq!(act("DELETE", "users/u/groups/g"), yes("MovedGroup(\"g\")"));
        assert_eq!(act("CREATE", "users/u/role-mappings/realm"), yes("MovedRoles"));
        assert_eq!(
            act("ACTION", "users/u/send-verify-email"),
            yes("SentVerification")
        );
        assert_eq!(act("UPDATE", "users/u"), yes("Edited"));
        assert_eq!(act("ACTION", "users/u/logout"), yes("SignedOut"));
        assert_eq!(act("UPDATE", "clients/c"), None);
        assert_eq!(
            act("UPDATE", "users/profile"),
            None,
            "the user profile of the realm"
        );
    }

    #[test]
    fn an_account_is_named_exactly_whatever_its_id_is_made_of() {
        let act = |operation, path: &str| {
            let event = admin(operation, path, "a");
            admin_act(&event).map(|(sub, act)| (sub.to_owned(), format!("{act:?}")))
        };
        for sub in [
            "f:7c1d:ann lee",
            "x:a/b",
            "x:50%",
            "x:a;b",
            "x:jürgen",
            "a/b/c",
            "profile/x",
        ] {
            let yes = |what: &str| Some((sub.to_owned(), what.to_owned()));
            let below = |what: &str| format!("users/{sub}{what}");
            assert_eq!(act("UPDATE", &below("")), yes("Edited"));
            assert_eq!(act("ACTION", &below("/reset-password")), yes("SetPassword"));
            assert_eq!(act("DELETE", &below("/groups/g")), yes("MovedGroup(\"g\")"));
            assert_eq!(
                act("CREATE", &below("/role-mappings/clients/c")),
                yes("MovedRoles")
            );
            assert_eq!(
                act("ACTION", &below("/credentials/c")),
                yes("RemovedCredential(\"c\")")
            );
        }
    }

    #[test]
    fn what_keycloak_ended_and_whose() {
        let at = Timestamp::from_millis(admin("ACTION", "users/u/logout", "a").time);
        let everywhere = admin("ACTION", "users/u/logout", "a");
        let all = Withdrawal::Sessions { at, offline: true };
        assert_eq!(ended_by_admin(&everywhere), Some(("u", all)));
        let deleted = admin("DELETE", "users/u", "a");
        assert_eq!(ended_by_admin(&deleted), Some(("u", Withdrawal::Account)));
        assert_eq!(ended_by_admin(&admin("UPDATE", "users/u", "a")), None);
        assert!(
            is_own(&everywhere, &AdminAct::SignedOut, Some("a")),
            "what we signed out ourselves has ended here already"
        );
    }

    #[test]
    fn our_own_acts_are_ours_only_for_calls_that_we_use() {
        let by = |who| admin("DELETE", "users/u/groups/g", who);
        let ours = |event: &AdminEvent| {
            let (_, act) = admin_act(event).unwrap();
            is_own(event, &act, Some("me"))
        };
        assert!(ours(&by("me")));
        assert!(!ours(&by("somebody")));
        assert!(
            !ours(&admin("ACTION", "users/u/reset-password", "me")),
            "we never set passwords"
        );
    }
}
