//! Which claims of an identity provider may pass into our tokens, and which words are never anybody else's.
//!
//! The allow-list of a policy is for statements about a person. Rights travel by the maps `roles:` and `groups:` alone,
//! because only what those maps know can be reduced in a hold (ISS-13): a right that passed as a plain claim would go
//! out whole.

/// Claims an upstream may never decide (contract section 3, "Broker claims").
pub const RESERVED_CLAIMS: [&str; 28] = [
    "iss",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "nonce",
    "azp",
    "client_id",
    "scope",
    "sid",
    "acr",
    "amr",
    "auth_time",
    "at_hash",
    "c_hash",
    "s_hash",
    "cnf",
    "act",
    "may_act",
    "events",
    "typ",
    "sub",
    "recovery_scope",
    "recovery_lift",
    "recovery_until",
    "recovery_epoch",
    "recovery_ref",
];

/// Standard claims that need a scope (OIDC Core §5.4).
pub const SCOPED: [(&str, &[&str]); 4] = [
    (
        "profile",
        &[
            "name",
            "family_name",
            "given_name",
            "middle_name",
            "nickname",
            "preferred_username",
            "profile",
            "picture",
            "website",
            "gender",
            "birthdate",
            "zoneinfo",
            "locale",
            "updated_at",
        ],
    ),
    ("email", &["email", "email_verified"]),
    ("address", &["address"]),
    ("phone", &["phone_number", "phone_number_verified"]),
];

/// Endings of words that say what somebody may do, without `_` and `-` and in small letters.
const RIGHTS: [&str; 7] = [
    "roles",
    "groups",
    "realmaccess",
    "resourceaccess",
    "permissions",
    "entitlements",
    "authorities",
];

/// The same where the whole word has to be it: `scp` is a scope elsewhere, `role` ends many harmless words.
const RIGHT_WORDS: [&str; 8] = [
    "scp",
    "scope",
    "scopes",
    "role",
    "group",
    "permission",
    "entitlement",
    "authority",
];

/// Whether a claim is ours alone: no identity provider may set it in our tokens.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED_CLAIMS.contains(&name) || name.ends_with("/recovery_scope")
}

/// Whether a claim says what somebody may do, in any spelling: `roles`, `realm_access.roles`, `https://x.example/Groups`,
/// `cognito:groups`, `app_roles`.
#[must_use]
pub fn is_right(name: &str) -> bool {
    let parts = name.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
    parts.into_iter().any(|part| {
        let word: String = part
            .chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect();
        RIGHTS.iter().any(|right| word.ends_with(right)) || RIGHT_WORDS.contains(&word.as_str())
    })
}

/// Whether a claim of an identity provider may pass, as far as its name goes.
#[must_use]
pub fn may_pass(name: &str) -> bool {
    !is_reserved(name) && !is_right(name)
}

/// Whether a role is one that holds and our administration are made of: it never goes out (ISS-13).
#[must_use]
pub fn is_own_role(role: &str) -> bool {
    role.starts_with("reentry-")
}

/// Whether a group is one of ours.
#[must_use]
pub fn is_own_group(group: &str) -> bool {
    let path = group.trim_start_matches('/');
    path == "reentry" || path.starts_with("reentry/")
}
