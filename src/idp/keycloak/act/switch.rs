//! Switching an account off for a hold or a freeze, and on again: only what we switched off, and only when the server
//! has taken it.
//!
//! Keycloak checks the whole account at every PUT. A rule that was added to its user profile since, or a directory that
//! takes no edits, refuses it with 400: that is told, tried again, and keeps nothing else from being done. A directory that
//! is away makes every account of its own look switched off. That is not our switch: for such an account only a PUT that
//! was taken counts.

use super::layout::Taken;
use super::{Hand, Seen};
use crate::idp::keycloak::admin::AdminError;
use crate::ports::idp::IdpError;

impl Hand<'_> {
    /// Switches the account off and ends what it has open. Gives why the server would not do it.
    pub(super) async fn switch_off(&mut self, seen: &Seen) -> Result<Option<String>, IdpError> {
        let admin = &self.keycloak.admin;
        let user = admin.user(self.sub).await;
        let refused = match self.answered(user).await? {
            Ok(user) if !user.enabled => {
                let elsewhere = user.federation_link.is_some() && !self.took(Taken::Enabled, seen);
                let kept = if elsewhere {
                    admin.keep_disabled(self.sub).await
                } else {
                    Ok(())
                };
                return self.refused("off", kept).await;
            }
            Ok(_) => self.switch(seen).await?,
            Err(why) => Some(format!("it cannot be read: {why}")),
        };
        // Whether it could be switched off or not.
        let stopped = self.stop().await;
        let open = self.told(stopped).await?.err();
        Ok(refused.or(open.map(|why| format!("its sessions could not all be ended: {why}"))))
    }

    /// Switches off an account that is on.
    async fn switch(&mut self, seen: &Seen) -> Result<Option<String>, IdpError> {
        // Without the root there is nowhere to note it but in our own record.
        if self.layout.root.is_some() {
            let may = self.may_take(Taken::Enabled, seen).await;
            if let Err(why) = self.answered(may).await? {
                return Ok(Some(format!("that it is switched off cannot be noted: {why}")));
            }
        }
        let switched = self.keycloak.admin.set_enabled(self.sub, false).await;
        let done = switched.is_ok();
        let refused = self.refused("off", switched).await?;
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
        let user = self.keycloak.admin.user(self.sub).await;
        let user = match self.answered(user).await? {
            Ok(user) => user,
            Err(why) => return Ok(Some(format!("whether it is switched on cannot be read: {why}"))),
        };
        if !user.enabled {
            let switched = self.keycloak.admin.set_enabled(self.sub, true).await;
            let refused = self.refused("on", switched).await?;
            if refused.is_some() {
                return Ok(refused);
            }
            self.did("switched the account on again");
        }
        let struck = self.strike(Taken::Enabled).await;
        let kept = self.answered(struck).await?.err();
        Ok(kept.map(|why| format!("that it was switched off stays noted: {why}")))
    }

    /// An answer to a switch. Why it was refused is told, and tried again, since somebody may have to mend it.
    async fn refused(
        &mut self,
        which: &str,
        answer: Result<(), AdminError>,
    ) -> Result<Option<String>, IdpError> {
        let refused = self.answered(answer).await?.err();
        Ok(refused.map(|why| format!("it cannot be switched {which}: {why}")))
    }
}
