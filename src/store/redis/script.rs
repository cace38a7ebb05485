//! The scripts, by name. Sent by their hash; loaded with every connection, and again when the server forgot them.

use std::sync::LazyLock;

use redis::{Cmd, Script, ToRedisArgs};

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file)));)*

        /// All of them, to be loaded.
        pub(super) fn all() -> impl Iterator<Item = Cmd> {
            [$(include_str!($file)),*].into_iter().map(|code| {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(code);
                load
            })
        }
    };
}

scripts! {
    COMMIT = "lua/commit.lua",
    OUTBOX = "lua/outbox.lua",
    DEFER = "lua/defer.lua",
    MOVED = "lua/moved.lua",
    LEASE = "lua/lease.lua",
    RELEASE = "lua/release.lua",
    SETTING = "lua/setting.lua",
    INSTALLATION = "lua/installation.lua",
    MARKER = "lua/marker.lua",
    BEGIN = "lua/begin.lua",
    FINISH = "lua/finish.lua",
    WIDEN = "lua/widen.lua",
}

/// A call of a script; arguments are added to it.
pub(super) fn call<K: ToRedisArgs>(script: &Script, keys: &[K]) -> Cmd {
    roomy(script, keys, (8, 256))
}

/// The same with room for so many arguments and octets.
pub(super) fn roomy<K: ToRedisArgs>(script: &Script, keys: &[K], (count, octets): (usize, usize)) -> Cmd {
    let mut call = Cmd::with_capacity(count, octets);
    call.arg("EVALSHA")
        .arg(script.get_hash())
        .arg(keys.len())
        .arg(keys);
    call
}
