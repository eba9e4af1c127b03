//! Where Services and their endpoints come from. Every source sends batches of changes and says
//! once when it has sent all there was to begin with. A source that is cut off sends nothing, and
//! the last state stays.

pub mod api;
pub mod events;
pub mod host;
pub mod manifests;
pub mod node;

use std::time::Instant;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::mpsc;

use crate::{
    index::{Change, local_node::OwnNode},
    model::{ObjectName, Problem},
};

/// What a source has to say.
#[derive(Debug)]
pub enum Event {
    /// Objects changed.
    Changes {
        /// The changes.
        changes: Vec<Change>,
        /// When the last of them came.
        arrived: Instant,
    },
    /// One of the streams has delivered its first complete list.
    Synced,
    /// What this source cannot read, all of it; replaces what it said before.
    Problems(Vec<Problem>),
    /// This node's Node object changed, or (`None`) is gone.
    Node(Option<OwnNode>),
    /// The blocks that ClusterIPs are allocated from, all of them; replaces what it said before.
    ServiceCidrs(Vec<IpNet>),
    /// Addresses or devices of the host may have changed.
    HostChanged,
}

/// The receiving end: events, and how many `Synced` make the state complete.
#[derive(Debug)]
pub struct Source {
    /// The events.
    pub events: mpsc::Receiver<Event>,
    /// Number of [`Event::Synced`] until everything was delivered once.
    pub streams: usize,
    /// Who tells the owners of objects what is wrong with them, if anybody.
    pub problems: Option<mpsc::Sender<Problem>>,
}

/// Events that may wait for the reconciler before a source has to.
const QUEUE_LEN: usize = 1024;

fn channel() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(QUEUE_LEN)
}

/// The name of an object; `default` is the namespace of one that has none, as for kubectl.
fn object_name(metadata: &ObjectMeta) -> ObjectName {
    ObjectName {
        namespace: metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        name: metadata.name.clone().unwrap_or_default(),
    }
}
