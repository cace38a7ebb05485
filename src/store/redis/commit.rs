//! A commit as a call of its script.

use redis::Cmd;

use super::{audit, keys, script};
use crate::domain::time::Span;
use crate::store::backend::{Batch, Cell, Due, Former, Put};
use crate::store::seal::HEADER_LEN;
use crate::store::shared::form::order_span;

/// The call of the commit script.
pub(super) fn call(batch: &Batch, audit_retention: Span) -> Cmd {
    let partition = batch.key.partition();
    let mark = batch
        .mark
        .as_ref()
        .map_or_else(|| keys::epoch(partition), |(name, _)| keys::mark(partition, name));
    let touched = [
        keys::record(&batch.key),
        keys::account(&batch.key),
        keys::grants(&batch.key),
        keys::due(partition),
        keys::out(partition),
        keys::epoch(partition),
        keys::audit(partition),
        mark,
    ];
    // Some forty arguments, most of them short, and one value of a kilobyte or two.
    let mut call = script::roomy(&script::COMMIT, &touched, (64, 3072));
    call.arg(batch.marker.incarnation.as_deref().unwrap_or_default())
        .arg(batch.marker.keys())
        .arg(batch.marker.fence);
    match &batch.mark {
        Some((_, keep)) => call.arg(keep.millis().max(1)),
        None => call.arg(""),
    };
    call.arg(keys::member(&batch.key));
    match batch.due {
        Due::Leave => call.arg(""),
        Due::Never => call.arg("-"),
        Due::At(at) => call.arg(at.millis()),
    };
    call.arg(order_span(audit_retention));
    add_value(&mut call, &batch.record);
    add_value(&mut call, &batch.account);
    add_value(&mut call, &batch.grants);
    call.arg(batch.outbox.len());
    for effect in &batch.outbox {
        call.arg(effect);
    }
    call.arg(batch.audit.len());
    for (place, line) in &batch.audit {
        call.arg(*place).arg(line);
    }
    if let Some(step) = batch.step.as_ref().filter(|_| !batch.audit.is_empty()) {
        audit::add_step(&mut call, step);
    }
    call.arg(if batch.marker.rebuilding { "r" } else { "" });
    call
}

/// One value's five arguments of the commit script. A sealed value is known by its header, which holds a nonce.
fn add_value(call: &mut Cmd, value: &Cell) {
    let known = |former: &Vec<u8>| former.get(..HEADER_LEN).unwrap_or(former).to_vec();
    match &value.former {
        Former::Unseen => call.arg("").arg(""),
        Former::Absent => call.arg("0").arg(""),
        Former::Was(former) => call.arg("1").arg(known(former)),
    };
    match &value.put {
        Put::Set(put) => call.arg("1").arg(put),
        Put::Remove => call.arg("-").arg(""),
        Put::Leave => call.arg("").arg(""),
    };
    match value.keep {
        Some(keep) => call.arg(keep.millis().max(1)),
        None => call.arg(""),
    };
}
