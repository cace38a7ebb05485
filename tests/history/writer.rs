//! Somebody who can write to Redis and has no key: keeps records as they were, and puts one back later, with the
//! second witness taken away. What was decided since must not be lifted by it (P5, S5).

use std::collections::BTreeMap;

use reentry_test_support::redis::Redis;

/// How the names of records begin: `re:{NNN}`, and then `:s:`.
const PLACE: usize = 8;

/// The writer, with the records as they were when they were first seen.
#[derive(Debug, Default)]
pub struct Writer {
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Writer {
    /// Keeps every record that is not kept yet.
    pub fn keep(&mut self, master: &Redis) {
        let mut connection = connection(master);
        let names: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg("re:{*}:s:*")
            .query(&mut connection)
            .unwrap();
        for name in names {
            if let Some(value) = dump(&mut connection, &name) {
                self.kept.entry(name).or_insert(value);
            }
        }
    }

    /// Puts the records back that are others by now. Gives how many.
    pub fn put_back(&mut self, master: &Redis) -> u32 {
        let mut connection = connection(master);
        let mut put = 0;
        for (name, value) in std::mem::take(&mut self.kept) {
            let now = dump(&mut connection, &name);
            if now.is_none_or(|now| now == value) {
                continue;
            }
            let mut restore = redis::cmd("RESTORE");
            restore.arg(&name).arg(0).arg(value).arg("REPLACE");
            restore.exec(&mut connection).unwrap();
            let due = [&name[..PLACE], b":due"].concat();
            redis::cmd("DEL").arg(due).exec(&mut connection).unwrap();
            put += 1;
        }
        put
    }
}

fn dump(connection: &mut redis::Connection, name: &[u8]) -> Option<Vec<u8>> {
    redis::cmd("DUMP").arg(name).query(connection).unwrap()
}

fn connection(redis: &Redis) -> redis::Connection {
    redis::Client::open(redis.url())
        .unwrap()
        .get_connection()
        .unwrap()
}
