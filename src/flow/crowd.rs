//! Says of an account that it has more addresses than are watched: once in a while, since every reading shows it.

use crate::domain::audit::Entry;
use crate::domain::subject::Subject;
use crate::domain::subject::account::WATCHED;
use crate::domain::time::Span;
use crate::flow::Flow;
use crate::ports::store::{Loaded, Mark, Parts, Write};

/// It is not said again for so long.
const QUIET: Span = Span::from_days(30);

/// Writes it down, unless it was. The hold and the notices to those that are watched wait for nothing here.
pub(super) async fn said(flow: &Flow, subject: &Subject, unwatched: usize) {
    let mark = Mark {
        name: "contacts_unwatched".to_owned(),
        keep: QUIET,
    };
    let at = flow.clock.now();
    let id = format!("contacts_unwatched:{}", at.millis());
    let entry = Entry::system(id, at, "contacts_unwatched", None)
        .alarming()
        .with("sub", &subject.sub)
        .with(
            "alarm",
            "more addresses than are watched: the others are told nothing",
        )
        .with("watched_of_a_kind", WATCHED)
        .with("unwatched", unwatched);
    let say = |_: &Loaded| Some(Write::saying(subject, entry.clone()));
    let key = flow.key(subject);
    let written = flow.store.update(&key, Parts::RECORD, Some(&mark), &say);
    if let Err(error) = written.await {
        tracing::warn!(upstream = %subject.upstream, %error, "that an account has too many addresses could not be written down");
    }
}
