//! What our rights at the IdP do not show, said once: it stays true until somebody does something about it, and an alarm
//! every day is one that nobody reads.

use crate::domain::audit::Entry;
use crate::domain::subject::UpstreamId;
use crate::flow::{Flow, FlowError};
use crate::ports::store::Lease;

fn name(upstream: &UpstreamId) -> String {
    format!("unseen:{upstream}")
}

/// Raises the alarm when what is unseen is not what was told last, and notes its end.
pub(super) async fn tell(flow: &Flow, upstream: &UpstreamId, lease: &Lease) -> Result<(), FlowError> {
    let unseen = flow.idp(upstream)?.blind_spots().await?.join("; ");
    let told = flow.store.setting(&name(upstream)).await?.unwrap_or_default();
    if unseen == told {
        return Ok(());
    }
    let now = flow.now(None).latest();
    let said = |action: &str, what: &str| {
        let id = format!("{action}:{upstream}:{}", now.millis());
        Entry::system(id, now, action, None).with("what", what)
    };
    let entry = if unseen.is_empty() {
        tracing::info!(%upstream, "what the identity provider hid from us is seen now");
        said("unseen_over", &told)
    } else {
        metrics::counter!("reentry_reconcile_findings_total", "kind" => "unseen").increment(1);
        tracing::error!(%upstream, unseen, "the identity provider hides from us what holds rest on");
        said("unseen", &unseen).alarming().with("alarm", &unseen)
    };
    // Written down before it is noted as told: a crash in between tells it twice, never not at all.
    super::write_down(flow, upstream, &entry).await?;
    flow.store
        .set_setting(&name(upstream), &unseen, Some(lease))
        .await?;
    Ok(())
}
