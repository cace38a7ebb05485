//! What Reentry's tests stand on: real servers as children of the test process, a mailbox, a browser
//! without JavaScript, a proxy that cuts or hangs, and a relying party that knows nothing of Reentry.
//!
//! This crate does not depend on `reentry`: it is compiled once, and sees the product as anybody else
//! does, through its sockets. Everything here fails by panicking with what was expected and what came,
//! because its only callers are tests; a server that is missing is a failure, never a skipped test.

pub mod browser;
pub mod children;
pub mod clock;
pub mod directory;
pub mod keycloak;
pub mod mail;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod redis;
pub mod rp;

pub use ports::free_port;
