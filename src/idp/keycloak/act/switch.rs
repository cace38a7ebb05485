//! Switching an account off for a hold or a freeze, and on again: only what we switched off, and only when the server
//! has taken it.
//!
//! Keycloak checks the whole account at every PUT. A rule that was added to its user profile since, or a directory that
//! takes no edits, refuses it with 400: that is told, tried again, and keeps nothing else from being done. A directory that
//! is away makes every account of its own look switched off. That is not our switch: for such an account only a PUT that
//! was taken counts.

use super::layout::Taken;
use super::{Hand, Seen, idp, of_account};
use crate::idp::keycloak::admin::AdminError;
use crate::ports::idp::IdpError;

impl Hand<'_> {
    /// Switches the account off and ends what it has open. Gives why the server would not do it.
    pub(super) async fn switch_off(&mut self, seen: &Seen) -> Result<Option<String>, IdpError> {
        let admin = &self.keycloak.admin;
        let user = admin.user(self.sub).await.map_err(of_account)?;
        if !user.enabled {
            let elsewhere = user.federation_link.is_some() && !self.took(Taken::Enabled, seen);
            let kept = if elsewhere {
                admin.keep_disabled(self.sub).await
            } else {
                Ok(())
            };
            return self.refused("off", kept);
        }
        // Without the root there is nowhere to note it but in our own record.
        if self.layout.root.is_some() {
            self.note(Taken::Enabled, seen).await.map_err(idp)?;
        }
        let switched = admin.set_enabled(self.sub, false).await;
        let done = switched.is_ok();
        let refused = self.refused("off", switched)?;
        self.stop().await?;
        if done {
            self.owed.insert(Taken::Enabled);
            self.did("switched the account off and ended every session");
        }
        Ok(refused)
    }

    /// Switches on what we switched off. Gives why the server would not do it.
    pub(super) async fn switch_on_again(&mut self, seen: &Seen) -> Result<Option<String>, IdpError> {
        if !self.took(Taken::Enabled, seen) {
            return Ok(None);
        }
        let user = self.keycloak.admin.user(self.sub).await.map_err(of_account)?;
        if !user.enabled {
            let switched = self.keycloak.admin.set_enabled(self.sub, true).await;
            let refused = self.refused("on", switched)?;
            if refused.is_some() {
                return Ok(refused);
            }
            self.did("switched the account on again");
        }
        self.strike(Taken::Enabled).await.map_err(of_account)?;
        Ok(None)
    }

    /// An answer to a switch: what passes by itself, and what concerns our rights, is an error; anything else is told,
    /// and tried again, since somebody has to mend it.
    fn refused(&mut self, which: &str, answer: Result<(), AdminError>) -> Result<Option<String>, IdpError> {
        match answer {
            Ok(()) => Ok(None),
            Err(error @ (AdminError::Unexpected { status: 400.., .. } | AdminError::Conflict { .. }))
                if !error.is_transient() =>
            {
                self.again = true;
                Ok(Some(format!("it cannot be switched {which}: {error}")))
            }
            Err(error) => Err(of_account(error)),
        }
    }
}
