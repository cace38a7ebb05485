//! Making Keycloak's own tokens agree with the record (token mode: role-gated client scopes).
//!
//! The order fails closed. A hold first takes the realm's default role, and with it `reentry-full`: from then on the
//! account's tokens carry no claim at all, which a relying party reads as `none`. Then it puts the account into the
//! group of its level. A lift leaves the group first and gives the role back last. In between, and whenever somebody
//! takes the group away, there is no claim. Two there are only where a role cannot be taken: then the scope of the level
//! is a ceiling of its own for whoever checks it.
//!
//! What a hold takes from an account it first writes down beside it, as membership in a group that maps nothing:
//! `/reentry/lift.default-role`, `lift.full-role` (a `reentry-full` of the account's own, for accounts without the
//! default role), `lift.enabled` (it was switched on). A lift gives back what is written there and nothing else: an
//! account that never had the default role does not get it, one that an administrator had switched off stays off,
//! and a `reentry-full` that somebody granted *during* the hold is taken and not given back. The note is made before
//! the act and struck after its reversal, so that a crash at any point loses no right and grants none.
//!
//! The same is said to our own record ([`Converged::owes`]): notes can be taken away, by a tool that empties groups or
//! with the whole of `/reentry`. What the record names is noted again while the account is held, and given back by the
//! lift whatever is left at the realm.
//!
//! A freeze ends sessions and offline tokens before anything else. Whether the account can be switched off, its user
//! profile and its directory have a say in; neither keeps a session alive.
//!
//! Every act is read back, by effective roles and groups, and repeated if somebody was faster. What still does not
//! agree is told in `cannot`, and the account is switched off where the operator chose so.
//!
//! A call about one account may fail while the server answers all others: a directory that takes no groups, a row that
//! cannot be written. That is no reason to stop, and none to be silent. Each other step is tried all the same, the account
//! counts as one that cannot be held, and it is tried again; only a server that is away as a whole is an error
//! ([`Hand::told`]). A note that cannot be written at the realm stands in our record first, and what it speaks of is taken
//! by the next try ([`Hand::may_take`]): also then no right is lost.

mod hold;
mod layout;
mod lift;
mod restore;
mod sessions;
mod switch;

use std::collections::BTreeSet;

use futures_util::future::try_join;

use self::layout::{HOLD_GROUP, Taken};
pub(super) use self::layout::{Layout, carried, drift, forget_layout, layout};
pub(super) use self::restore::{remove_factor, restore};
pub(super) use self::sessions::{end_session, sessions};
use super::Keycloak;
use super::absent::found;
use super::admin::AdminError;
use super::representations::{Group, Role};
use super::wire::names::GROUP as ROOT;
use crate::domain::ceiling::Ceiling;
use crate::domain::hold::Posture;
use crate::ports::idp::{Converged, IdentityProvider as _, IdpError, Wanted};

/// Beside what was taken, our record notes that the account is held: what somebody grants after that is no right of before.
const HELD: &str = "held";
/// How often an act is repeated when the reading back does not agree.
const ROUNDS: u32 = 3;

/// What a hold changes of an account.
#[derive(Default)]
struct Seen {
    groups: Vec<Group>,
    mapped: Vec<Role>,
}

/// What came of a change.
#[derive(Default)]
struct After {
    seen: Seen,
    effective: Vec<Role>,
}

impl Seen {
    fn mapped(&self, name: &str) -> Option<&Role> {
        self.mapped.iter().find(|role| role.name == name)
    }

    fn is_in(&self, group: &str) -> bool {
        self.group_ids().any(|id| id == group)
    }

    fn group_ids(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(|group| group.id.as_deref())
    }
}

impl After {
    fn has(&self, role: &str) -> bool {
        self.effective.iter().any(|has| has.name == role)
    }
}

async fn see(keycloak: &Keycloak, sub: &str) -> Result<Seen, IdpError> {
    let admin = &keycloak.admin;
    let both = try_join(admin.user_groups(sub), admin.realm_roles(sub)).await;
    let (groups, mapped) = found(keycloak, sub, both).await?;
    Ok(Seen { groups, mapped })
}

/// Reads back what an act brought about.
async fn see_after(keycloak: &Keycloak, sub: &str) -> Result<After, IdpError> {
    let effective = async {
        let effective = keycloak.admin.effective_realm_roles(sub).await;
        found(keycloak, sub, effective).await
    };
    let (seen, effective) = try_join(see(keycloak, sub), effective).await?;
    Ok(After { seen, effective })
}

/// One account being brought to agree.
struct Hand<'a> {
    keycloak: &'a Keycloak,
    layout: Layout,
    sub: &'a str,
    acts: Vec<String>,
    /// What our record and the realm's notes say that holds took.
    owed: BTreeSet<Taken>,
    /// What our record said of it when this began: that much is safe to be taken.
    recorded: BTreeSet<Taken>,
    /// Something was left for the next try, by which our record knows of it.
    waits: bool,
    /// Our record knows of this hold already.
    known: bool,
    again: bool,
}

/// Makes the realm agree with `wanted`.
pub(super) async fn converge(keycloak: &Keycloak, sub: &str, wanted: &Wanted) -> Result<Converged, IdpError> {
    let mut hand = Hand::new(keycloak, sub, wanted);
    // What a freeze ends does not wait for anything else that may fail.
    if let Posture::Contested(_) = wanted.posture
        && let Err(error) = hand.stop().await
    {
        tracing::warn!(%error, "sessions of a frozen account could not all be ended; it is tried again below");
    }
    hand.layout = layout(keycloak).await?;
    if hand.layout.wired().is_none() {
        // Somebody may have wired it this minute.
        hand.look_again().await?;
    }
    let cannot = match &wanted.posture {
        Posture::Free => return hand.freed(wanted).await,
        Posture::Held(ceiling) => hand.hold(ceiling, None, wanted.barred).await?,
        Posture::Contested(at_idp) => hand.hold(&Ceiling::none(), Some(*at_idp), false).await?,
    };
    let ended = hand.end_sessions(wanted).await;
    let mut open = hand.told(ended).await?.err();
    if matches!(wanted.posture, Posture::Contested(_)) {
        // Who signed in meanwhile, too.
        let stopped = hand.stop().await;
        open = open.or(hand.told(stopped).await?.err());
    }
    let open = open.map(|why| format!("its sessions could not all be ended: {why}"));
    Ok(hand.done(cannot.or(open), true))
}

impl<'a> Hand<'a> {
    fn new(keycloak: &'a Keycloak, sub: &'a str, wanted: &Wanted) -> Self {
        let owed = Taken::named(&wanted.owed);
        Self {
            keycloak,
            layout: Layout::default(),
            sub,
            acts: Vec::new(),
            recorded: owed.clone(),
            owed,
            waits: false,
            known: wanted.owed.contains(HELD),
            again: false,
        }
    }

    /// Takes the hold back, after the sessions that must not see it.
    async fn freed(mut self, wanted: &Wanted) -> Result<Converged, IdpError> {
        // A fresh log-in is asked for by ending sessions before the lift: none of them may see it.
        let lifted = match self.end_sessions(wanted).await {
            Ok(()) => self.lift().await,
            Err(error) => Err(error),
        };
        let lifted = self.told(lifted).await?;
        // As long as it may still be held there, what is granted meanwhile is no right of before.
        let held = lifted.is_err() && self.known;
        let cannot = lifted.unwrap_or_else(|why| Some(format!("it cannot be given back what it had: {why}")));
        Ok(self.done(cannot, held))
    }

    /// What came of a call about this account. A fault of its own, on a server that answers otherwise, is told, and tried
    /// again; a server that is away as a whole is an error, and an account that is gone.
    async fn told<T>(&mut self, done: Result<T, IdpError>) -> Result<Result<T, String>, IdpError> {
        let error = match done {
            Ok(done) => return Ok(Ok(done)),
            Err(error) => error,
        };
        let why = match &error {
            IdpError::UnknownSubject => return Err(error),
            IdpError::Unreachable(why) | IdpError::Refused(why) | IdpError::Unexpected(why) => why.clone(),
        };
        if self.keycloak.answers().await.is_err() {
            return Err(error);
        }
        if let IdpError::Refused(_) = error {
            // What our account may do may have changed: what its token says of that is of before.
            self.keycloak.admin.renew().await;
        }
        self.again = true;
        Ok(Err(why))
    }

    /// The same for what the server answered.
    async fn answered<T>(&mut self, answer: Result<T, AdminError>) -> Result<Result<T, String>, IdpError> {
        let answer = found(self.keycloak, self.sub, answer).await;
        self.told(answer).await
    }

    /// Reads anew what the realm is made of.
    async fn look_again(&mut self) -> Result<(), IdpError> {
        forget_layout(self.keycloak).await;
        self.layout = layout(self.keycloak).await?;
        Ok(())
    }

    fn did(&mut self, act: impl Into<String>) {
        self.acts.push(act.into());
    }

    fn done(self, cannot: Option<String>, held: bool) -> Converged {
        let owed = self.owed.into_iter().filter(|taken| *taken != Taken::Contested);
        let owed = owed.map(|taken| taken.group().to_owned());
        Converged {
            acts: self.acts,
            cannot,
            again: self.again,
            owes: owed.chain(held.then(|| HELD.to_owned())).collect(),
        }
    }

    async fn end_sessions(&mut self, wanted: &Wanted) -> Result<(), IdpError> {
        let ended = sessions::end_cut(self.keycloak, self.sub, &wanted.cuts, wanted.end_before).await?;
        self.acts.extend(ended);
        Ok(())
    }

    /// Ends every session and offline token.
    async fn stop(&mut self) -> Result<(), IdpError> {
        if sessions::end_all(self.keycloak, self.sub).await? {
            self.did("ended every session");
        }
        Ok(())
    }

    fn named(&self, group: &str) -> String {
        let level = self.layout.levels.iter().find(|(_, id)| *id == group);
        level.map_or_else(
            || group.to_owned(),
            |(level, _)| format!("{ROOT}/{HOLD_GROUP}{level}"),
        )
    }

    /// Writes down that something is about to be taken.
    async fn note(&mut self, taken: Taken, seen: &Seen) -> Result<(), AdminError> {
        let group = match self.layout.notes.get(&taken) {
            Some(group) => group.clone(),
            None => self.make_note_group(taken).await?,
        };
        if !seen.is_in(&group) {
            self.keycloak.admin.join_group(self.sub, &group).await?;
        }
        self.owed.insert(taken);
        Ok(())
    }

    /// Writes it down, and says whether it may be taken: what cannot be noted at the realm has to stand in our record first.
    async fn may_take(&mut self, taken: Taken, seen: &Seen) -> Result<bool, AdminError> {
        let noted = self.note(taken, seen).await;
        if noted.is_err() {
            self.owed.insert(taken);
            if !self.recorded.contains(&taken) {
                self.waits = true;
                return noted.map(|()| false);
            }
        }
        Ok(true)
    }

    /// A realm wired without the group gets it now: a hold must not wait for an operator.
    async fn make_note_group(&mut self, taken: Taken) -> Result<String, AdminError> {
        let group = Group {
            name: taken.group().to_owned(),
            ..Group::default()
        };
        let admin = &self.keycloak.admin;
        let id = match admin.create_group(self.layout.root.as_deref(), &group).await {
            Err(AdminError::Conflict { .. }) => {
                let path = format!("{ROOT}/{}", taken.group());
                let found = admin.group_by_path(&path).await?.and_then(|group| group.id);
                found.ok_or(AdminError::NotFound { what: path })?
            }
            other => other?,
        };
        self.layout.notes.insert(taken, id.clone());
        forget_layout(self.keycloak).await;
        Ok(id)
    }

    /// Strikes a note out, after what it says was given back.
    async fn strike(&mut self, taken: Taken) -> Result<(), AdminError> {
        if let Some(group) = self.layout.notes.get(&taken) {
            self.keycloak.admin.leave_group(self.sub, group).await?;
        }
        self.owed.remove(&taken);
        Ok(())
    }

    fn noted(&self, taken: Taken, seen: &Seen) -> bool {
        self.layout
            .notes
            .get(&taken)
            .is_some_and(|group| seen.is_in(group))
    }

    /// Whether a hold took it: the realm says so, or our record does.
    fn took(&self, taken: Taken, seen: &Seen) -> bool {
        self.owed.contains(&taken) || self.noted(taken, seen)
    }
}
