//! The URL of a Redis, in its three kinds:
//!
//! | what | spelling |
//! |---|---|
//! | one server | `redis://[user@]host[:6379][/database]` |
//! | a set watched by Sentinel | `redis+sentinel://[user@]host[:26379],host...[/name of the master[/database]]` |
//! | a Redis Cluster | `redis+cluster://[user@]host[:6379],host...` |
//!
//! `rediss` instead of `redis` means TLS, to Sentinels as well. Several hosts are separated by commas; any one of them
//! that answers is enough to find the others. The user is Redis' (ACL); Sentinel has credentials of its own.

use std::fmt;

/// What a URL leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Plain,
    /// A master with replicas, and Sentinels that know who the master is.
    Sentinel {
        /// What the Sentinels call it.
        master: String,
    },
    /// Many masters, each with a share of the slots.
    Cluster,
}

/// Where Redis is.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// What the URL leads to.
    pub topology: Topology,
    /// Whether connections are protected by TLS.
    pub tls: bool,
    /// Hosts and ports: the server, the Sentinels, or some nodes of the cluster. Never empty.
    pub hosts: Vec<(String, u16)>,
    /// The ACL user.
    pub user: Option<String>,
    /// A password that stands in the URL. A configuration refuses it.
    pub password: Option<String>,
    /// The database's number.
    pub database: u16,
}

/// Never with the password.
impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisUrl")
            .field("topology", &self.topology)
            .field("tls", &self.tls)
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// How each kind is written.
const SPELLINGS: &str = "redis://host:6379/0, redis+sentinel://host:26379,host:26379/mymaster or redis+cluster://host:6379,host:6379; rediss for TLS";

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong, in words that follow the key; never with a password in them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let spelt = |why: &str| format!("{why}; write {SPELLINGS}");
        let refused = |why: &str| Err(spelt(why));
        let Some((scheme, rest)) = text.split_once("://") else {
            return refused("is not a URL");
        };
        let (tls, kind) = match scheme {
            "redis" => (false, ""),
            "rediss" => (true, ""),
            "redis+sentinel" => (false, "sentinel"),
            "rediss+sentinel" => (true, "sentinel"),
            "redis+cluster" => (false, "cluster"),
            "rediss+cluster" => (true, "cluster"),
            // With an `@` in it the text may hold a password.
            other if text.contains('@') => return refused(&format!("begins with `{other}://`")),
            _ => return refused(&format!("is `{text}`")),
        };
        if rest.contains(['?', '#']) {
            return refused("has a query or a fragment, which mean nothing here");
        }
        // A password may hold anything, so the last `@` ends it.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(l, r)| (Some(l), r));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let usual = if kind == "sentinel" { 26379 } else { 6379 };
        let hosts = hosts
            .split(',')
            .map(|h| host(h, usual))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| spelt(&why))?;
        let (user, password) = match login.map(|l| l.split_once(':').unwrap_or((l, ""))) {
            None => (None, None),
            Some((user, password)) => (filled(user)?, filled(password)?),
        };
        let several = hosts.len() > 1;
        let (topology, database) = target(kind, path, several).map_err(|why| spelt(&why))?;
        Ok(Self {
            topology,
            tls,
            hosts,
            user,
            password,
            database,
        })
    }
}

/// What the scheme and what stands after the slash mean: whom the URL leads to, and which database.
fn target(kind: &str, path: &str, several: bool) -> Result<(Topology, u16), String> {
    let (topology, number) = match kind {
        "sentinel" => {
            let (master, number) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err("does not say what the Sentinels call the master".to_owned());
            }
            let master = master.to_owned();
            (Topology::Sentinel { master }, number)
        }
        "cluster" if !matches!(path, "" | "0") => {
            return Err("has something after the slash, but a cluster has no databases".to_owned());
        }
        "cluster" => (Topology::Cluster, path),
        _ if several => {
            return Err(
                "names several hosts, so it must say whether they are Sentinels or a cluster".to_owned(),
            );
        }
        _ => (Topology::Plain, path),
    };
    if number.is_empty() {
        return Ok((topology, 0));
    }
    match number.parse() {
        Ok(number) => Ok((topology, number)),
        Err(_) => Err(format!("ends with `{number}`, which is no database number")),
    }
}

/// A host with its port. An IPv6 address stands in brackets.
fn host(text: &str, usual: u16) -> Result<(String, u16), String> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest
                .split_once(']')
                .ok_or_else(|| format!("has `{text}`, where a `]` is missing"))?;
            (name, port)
        }
        None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '[' | ']' | '\\');
    if name.is_empty() {
        return Err("names no host".to_owned());
    }
    if name.contains(odd) {
        return Err(format!("has `{text}`, which is no host"));
    }
    let port = match port {
        "" => usual,
        port => port
            .strip_prefix(':')
            .and_then(|p| p.parse().ok())
            .filter(|p| *p > 0)
            .ok_or_else(|| format!("has `{text}`, whose port is not 1 to 65535"))?,
    };
    Ok((name.to_owned(), port))
}

/// A user or password with its `%xx` resolved; nothing when it is empty.
fn filled(text: &str) -> Result<Option<String>, String> {
    let wrong = || "has a `%` in its user or password that is not two hexadecimal digits".to_owned();
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong());
        };
        octets.push(high << 4 | low);
    }
    let text = String::from_utf8(octets).map_err(|_| wrong())?;
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::{RedisUrl, Topology};

    fn url(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap_or_else(|why| unreachable!("{text}: {why}"))
    }

    #[test]
    fn all_three_kinds_are_read() {
        let plain = url("redis://reentry@redis.example.com/3");
        assert_eq!(plain.topology, Topology::Plain);
        assert_eq!(plain.hosts, [("redis.example.com".to_owned(), 6379)]);
        assert_eq!(
            (plain.user.as_deref(), plain.database, plain.tls),
            (Some("reentry"), 3, false)
        );
        let set = url("rediss+sentinel://a,b:1,[::1]:2/mymaster/1");
        let master = "mymaster".to_owned();
        assert_eq!(set.topology, Topology::Sentinel { master });
        let hosts = [("a", 26379), ("b", 1), ("::1", 2)].map(|(h, p)| (h.to_owned(), p));
        assert_eq!(
            (set.hosts.as_slice(), set.database, set.tls),
            (hosts.as_slice(), 1, true)
        );
        let cluster = url("redis+cluster://:p%40ss:w@a:7000,b:7001/");
        assert_eq!(cluster.topology, Topology::Cluster);
        assert_eq!(cluster.password.as_deref(), Some("p@ss:w"));
        assert_eq!(cluster.user, None);
        assert!(!format!("{cluster:?}").contains("p@ss"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_spellings() {
        for (text, says) in [
            ("localhost:6379", "is not a URL"),
            ("http://localhost", "is `http://localhost`; write redis://"),
            ("http://u:p@localhost", "begins with `http://`"),
            ("redis://", "names no host"),
            ("redis://a/x", "no database number"),
            ("redis://a:0", "port"),
            ("redis://a:99999", "port"),
            ("redis://a,b", "Sentinels or a cluster"),
            ("redis://a/0?protocol=resp3", "query"),
            ("redis+sentinel://a,b", "call the master"),
            ("redis+sentinel://a,/m", "names no host"),
            ("redis+cluster://a/1", "no databases"),
            ("redis://[::1", "`]` is missing"),
            ("redis://%4@a", "hexadecimal"),
        ] {
            let why = RedisUrl::parse(text);
            assert!(
                why.as_ref().is_err_and(|why| why.contains(says)),
                "{text}: {why:?}"
            );
        }
    }
}
