//! What the use cases need from the world: traits and the plain types that cross them.

pub mod clock;
pub mod hook;
pub mod idp;
pub mod notifier;
pub mod outbound;
pub mod seal;
pub mod signer;
pub mod store;
pub mod trace;
