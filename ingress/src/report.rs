//! Telling people: problems to the log and as Events on the objects they are in, addresses into the status
//! of Ingresses.
//!
//! What to tell is decided here from what an update changed; writing happens in tasks of their own, so that
//! a slow API never delays a snapshot.

pub mod addresses;
pub mod events;
pub mod statuses;

use crate::objects::service::Service;
use crate::objects::uid::Uid;
use crate::objects::{Kind, ObjectKey, World};
use crate::problem::Severity;
use crate::translate::{Index, Update};
use events::Finding;
use statuses::Board;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Findings waiting for the API; what comes while it is away longer is in the log.
pub const FINDINGS_MAX: usize = 4096;

/// Where statuses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusSource {
    /// They are left alone, or the writer looks them up itself.
    Elsewhere,
    /// These addresses.
    Given(Vec<String>),
    /// Those of the published Service.
    Service,
}

/// The tasks that write to a cluster.
pub struct Desk {
    /// Takes Events.
    pub findings: mpsc::Sender<Finding>,
    /// Every Ingress taken in gets one, as from ingress-nginx.
    pub sync_events: bool,
    /// Takes statuses.
    pub board: Arc<Board>,
    /// Where their addresses come from.
    pub source: StatusSource,
}

/// Tells what updates changed.
pub struct Reporter {
    desk: Option<Desk>,
    /// What Ingresses said when they were taken in, to tell a change of theirs from one of their status.
    taken_in: BTreeMap<ObjectKey, u64>,
}

impl Reporter {
    /// A reporter that writes to a cluster, if there is one, besides the log.
    pub fn new(desk: Option<Desk>) -> Reporter {
        if let Some(Desk { source: StatusSource::Given(given), board, .. }) = &desk {
            board.want(addresses::of_list(given));
        }
        Reporter { desk, taken_in: BTreeMap::new() }
    }

    /// Reports what an update changed. `published` is the Service whose addresses go into statuses.
    pub fn report(&mut self, index: &Index, update: &Update, published: Option<&Service>) {
        for problem in &update.problems.new {
            match problem.severity {
                Severity::Error => tracing::error!("{problem}"),
                Severity::Warning => tracing::warn!("{problem}"),
            }
        }
        for problem in &update.problems.gone {
            tracing::info!("no longer: {problem}");
        }
        let Some(desk) = &self.desk else {
            return;
        };
        let say = |finding: Finding| {
            if desk.findings.try_send(finding).is_err() {
                tracing::debug!("an Event is dropped: the API does not keep up");
            }
        };
        for problem in &update.problems.new {
            if let Some(uid) = uid(index.world(), problem.kind, &problem.object) {
                say(Finding::of(problem, uid));
            }
        }
        let ours = |key: &ObjectKey| index.ingress(key);
        for key in update.ingresses.iter().filter(|_| desk.sync_events) {
            let Some(ingress) = ours(key) else {
                self.taken_in.remove(key);
                continue;
            };
            let now = ingress.request_hash();
            if self.taken_in.insert(key.clone(), now) != Some(now) {
                say(Finding::synced(key.clone(), ingress.uid.as_ref().map(Uid::to_string)));
            }
        }
        if let (StatusSource::Service, Some(service)) = (&desk.source, published) {
            desk.board.want(addresses::of_service(service));
        }
        let touched = update.ingresses.iter();
        desk.board.note(touched.map(|key| (key.clone(), ours(key).map(|ingress| &**ingress))));
    }
}

/// The uid of the object a problem is about, if that is known and one of the cluster's.
fn uid(world: &World, kind: Kind, key: &ObjectKey) -> Option<Option<String>> {
    let text = |uid: &Option<Uid>| uid.as_ref().map(Uid::to_string);
    match kind {
        Kind::Ingress => world.ingresses.get(key).map(|object| text(&object.uid)),
        Kind::IngressClass => world.classes.get(&*key.name).map(|o| o.metadata.uid.clone()),
        Kind::Service => world.services.get(key).map(|object| text(&object.uid)),
        Kind::Secret => world.secrets.get(key).map(|object| object.metadata.uid.clone()),
        Kind::ConfigMap => world.config_maps.get(key).map(|object| object.metadata.uid.clone()),
        // Slices have no problems but that of being unreadable.
        Kind::EndpointSlice | Kind::File => None,
    }
}
