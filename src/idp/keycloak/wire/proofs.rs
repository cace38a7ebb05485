//! Settings of the realm on which it depends what a line of its log proves, against what the configuration says of them.

use super::audit::Finding;
use super::snapshot::Snapshot;
use crate::domain::time::Span;

/// Keycloak's own limit for the age of the log-in that an action asks for, in seconds.
const LOGIN_AGE: i64 = 300;

/// What the configuration says of the realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proofs {
    /// Life of a link in a reset mail.
    pub reset_lifespan: Span,
    /// Life of a link in an administrator's mail.
    pub admin_lifespan: Span,
    /// Every action asks for a log-in at most 300 s old.
    pub fresh_login_for_actions: bool,
    /// Every way to a new password without the old one leaves a line.
    pub resets_leave_lines: bool,
}

impl Default for Proofs {
    fn default() -> Self {
        Self {
            reset_lifespan: Span::from_mins(5),
            admin_lifespan: Span::from_hours(12),
            fresh_login_for_actions: false,
            resets_leave_lines: true,
        }
    }
}

/// Where the configuration takes the realm for something that it is not.
#[must_use]
pub fn find(proofs: Proofs, snapshot: &Snapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    let links = [
        (
            "reset-lifespan",
            "reset mail",
            snapshot.reset_lifespan(),
            "reset_lifespan",
            proofs.reset_lifespan,
        ),
        (
            "admin-lifespan",
            "mail that an administrator sends",
            snapshot.admin_lifespan(),
            "admin_lifespan",
            proofs.admin_lifespan,
        ),
    ];
    for (code, what, lives, setting, configured) in links {
        if lives > configured.secs() {
            let lives = Span::from_secs(lives);
            let text = format!(
                "the link in a {what} lives for {lives}, and the configuration says {configured}: a password set by it later is not known for a reset; set `{setting}: {lives}`"
            );
            found.push(Finding::error(code, text));
        }
    }
    if proofs.resets_leave_lines && !snapshot.resets_by_mail() {
        let text = "the flow of \"Forgot password?\" does not demand Keycloak's own mail: a reset without it looks like a log-in with the old password; set `resets_leave_lines: false`, or make `Send Reset Email` required".to_owned();
        found.push(Finding::error("reset-without-mail", text));
    }
    found.extend(login_age(proofs, snapshot));
    if let Some(days) = snapshot.password_policy("forceExpiredPasswordChange") {
        let held = if proofs.resets_leave_lines {
            "the new password that people choose inside the log-in is told and holds nothing where both logs show all of the time before; else it counts as a reset"
        } else {
            "the new password that people choose inside the log-in counts as a reset, since `resets_leave_lines` is false"
        };
        let text = format!("passwords expire after {days} days: {held}");
        found.push(Finding::warning("password-expiry", text));
    }
    found
}

/// The age of the log-in that actions ask for.
fn login_age(proofs: Proofs, snapshot: &Snapshot) -> Option<Finding> {
    let general = snapshot.password_policy("maxAuthAge");
    let age = |config: Option<&str>| config.and_then(|seconds| seconds.parse::<i64>().ok());
    let older = snapshot
        .required_actions()
        .iter()
        .filter(|action| action.enabled)
        .filter_map(|action| {
            let config = action
                .config
                .as_ref()
                .and_then(|config| config.get("max_auth_age"));
            let own = age(config.and_then(Option::as_deref));
            let of_password = general.filter(|_| action.alias == "UPDATE_PASSWORD");
            let seconds = own.or(of_password).unwrap_or(LOGIN_AGE);
            let long = !(0..=LOGIN_AGE).contains(&seconds);
            long.then(|| format!("{} ({seconds} s)", action.alias))
        });
    let older: Vec<String> = older.collect();
    if older.is_empty() {
        return None;
    }
    let older = older.join(", ");
    Some(if proofs.fresh_login_for_actions {
        let text = format!(
            "`fresh_login_for_actions` is true, but these actions take an older log-in: {older}: a stolen session can change a password, and it is taken for the owner's change; set their maximum authentication age (and the policy `maxAuthAge`) to {LOGIN_AGE}, or the setting to false"
        );
        Finding::error("action-login-age", text)
    } else {
        let text = format!(
            "these actions take a log-in older than {LOGIN_AGE} s: {older}: a password that is changed in such a session counts as a reset"
        );
        Finding::warning("action-login-age", text)
    })
}
