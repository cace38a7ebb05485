//! What an IdP itself carries of a hold: the floor below a record that was lost (P5).

use crate::domain::ceiling::Ceiling;
use crate::domain::hold::Posture;

/// What an IdP itself carries of a hold, whoever lost the record of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The account is held at this ceiling; not at all when `None`.
    pub ceiling: Option<Ceiling>,
    /// It is frozen, or was and has not been free since.
    pub contested: bool,
    /// We switched it off.
    pub disabled: bool,
    /// Something that a lift gives back was taken from it.
    pub taken: bool,
}

impl Carried {
    /// Whether the IdP carries nothing of a hold.
    #[must_use]
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this is what `posture` asks for.
    #[must_use]
    pub fn agrees(&self, posture: &Posture) -> bool {
        match posture {
            Posture::Free => self.is_free(),
            Posture::Held(ceiling) => self.ceiling.as_ref().is_some_and(|c| c.within(ceiling)),
            Posture::Contested(_) => self.contested && self.ceiling == Some(Ceiling::none()),
        }
    }
}
