//! Reentry: account recovery as trustworthy as login.
