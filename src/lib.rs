//! Reentry: account recovery as trustworthy as login.
pub mod idp;
