//! What a node of a cluster says about who has which slot.

use std::collections::BTreeMap;

use redis::{Pipeline, RedisResult, Value};

use super::dial::Endpoint;

/// A node's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Whether it can speak for the cluster at all.
    sound: bool,
    epoch: u64,
    /// First and last slot, and the master; by the first slot.
    pub(super) slots: Vec<(u16, u16, Endpoint)>,
    /// Masters and replicas.
    pub(super) all: Vec<Endpoint>,
}

impl View {
    /// What a node is asked.
    pub(super) fn question() -> Pipeline {
        let mut question = Pipeline::with_capacity(2);
        question.cmd("CLUSTER").arg("INFO");
        question.cmd("CLUSTER").arg("SLOTS");
        question
    }

    /// The view in the answers of the node at `asked`.
    pub(super) fn read(asked: &Endpoint, answers: Vec<RedisResult<Value>>) -> Result<Self, String> {
        let answers: Result<Vec<Value>, _> = answers.into_iter().collect();
        let answers = answers.map_err(|e| format!("{asked}: {e}"))?;
        let strange = || format!("{asked} gave a strange answer about its cluster");
        let [info, Value::Array(ranges)] = answers.as_slice() else {
            return Err(strange());
        };
        let info = text(info).ok_or_else(strange)?;
        let facts: BTreeMap<&str, &str> = info.lines().filter_map(|l| l.trim().split_once(':')).collect();
        let (mut slots, mut all) = (Vec::new(), Vec::new());
        for range in ranges {
            let Value::Array(range) = range else {
                return Err(strange());
            };
            let [Value::Int(first), Value::Int(last), nodes @ ..] = range.as_slice() else {
                return Err(strange());
            };
            let nodes: Vec<Endpoint> = nodes.iter().filter_map(|node| address(asked, node)).collect();
            let bounds = u16::try_from(*first).ok().zip(u16::try_from(*last).ok());
            let (Some((first, last)), Some(master)) = (bounds, nodes.first()) else {
                return Err(strange());
            };
            slots.push((first, last, master.clone()));
            all.extend(nodes);
        }
        slots.sort();
        let epoch = facts.get("cluster_current_epoch").and_then(|e| e.parse().ok());
        Ok(Self {
            sound: facts.get("cluster_state") == Some(&"ok"),
            epoch: epoch.unwrap_or(0),
            slots,
            all,
        })
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(octets) => std::str::from_utf8(octets).ok(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// A node in the answer; without a host of its own it is where the answer came from.
fn address(asked: &Endpoint, node: &Value) -> Option<Endpoint> {
    let Value::Array(parts) = node else {
        return None;
    };
    let [host, Value::Int(port), ..] = parts.as_slice() else {
        return None;
    };
    let host = text(host).filter(|h| !h.is_empty()).unwrap_or(&asked.host);
    Some(Endpoint::new(host, u16::try_from(*port).ok()?))
}

/// The best of several views: of a node that says the cluster is well, and then the newest.
pub(super) fn best(views: Vec<Result<View, String>>) -> Result<View, String> {
    let mut why = "no node of the cluster is known".to_owned();
    let mut best: Option<View> = None;
    for view in views {
        match view {
            Ok(view) if view.slots.is_empty() => "a node has no slots to tell of".clone_into(&mut why),
            Ok(view) => {
                let better = best
                    .as_ref()
                    .is_none_or(|b| (view.sound, view.epoch) > (b.sound, b.epoch));
                if better {
                    best = Some(view);
                }
            }
            Err(fault) => why = fault,
        }
    }
    best.ok_or(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn view(info: &str, host: &str) -> View {
        let node = Value::Array(vec![
            bulk(host),
            Value::Int(7000),
            bulk("id"),
            Value::Array(vec![]),
        ]);
        let range = Value::Array(vec![Value::Int(0), Value::Int(16383), node]);
        let answers = vec![Ok(bulk(info)), Ok(Value::Array(vec![range]))];
        View::read(&Endpoint::new("asked", 7000), answers).unwrap_or_else(|why| unreachable!("{why}"))
    }

    #[test]
    fn the_newest_view_of_a_sound_cluster_counts() {
        let old = view("cluster_state:ok\r\ncluster_current_epoch:3\r\n", "a");
        let new = view("cluster_state:ok\r\ncluster_current_epoch:4\r\n", "b");
        let cut_off = view("cluster_state:fail\r\ncluster_current_epoch:9\r\n", "c");
        let views = vec![Ok(old), Ok(new.clone()), Ok(cut_off), Err("away".to_owned())];
        assert_eq!(best(views), Ok(new));
        assert_eq!(best(vec![Err("away".to_owned())]), Err("away".to_owned()));
    }

    #[test]
    fn a_node_without_a_host_is_where_the_answer_came_from() {
        let found = view("cluster_state:ok", "");
        assert_eq!(found.slots, [(0, 16383, Endpoint::new("asked", 7000))]);
    }
}
