//! The rows of the kinds that describe the cluster itself: nodes, namespaces, leases, events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::since;
use super::{
    AGE, Cells, Column, NAME, NONE, age, column, int, list, name, or_none, text, text_or_none,
};
use crate::object;

const ROLE_LABEL_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) const NODE: &[Column] = &[
    NAME,
    column("Status", "The status of the node."),
    column("Roles", "The roles of the node."),
    AGE,
    column("Version", "The version of its agent."),
    column("Internal-IP", "Its address inside the cluster.").wide(),
    column("External-IP", "Its address outside the cluster.").wide(),
    column("OS-Image", "Its operating system.").wide(),
    column("Kernel-Version", "Its kernel.").wide(),
    column("Container-Runtime", "What runs its containers.").wide(),
];

pub(super) fn node(node: &Value, now: Timestamp) -> Cells {
    let info = |field: &str| {
        let text = text(node, &format!("/status/nodeInfo/{field}"));
        json!(if text.is_empty() { "<unknown>" } else { text })
    };
    vec![
        name(node),
        json!(node_status(node)),
        json!(roles(node)),
        age(node, now),
        json!(text(node, "/status/nodeInfo/kubeletVersion")),
        json!(address(node, "InternalIP")),
        json!(address(node, "ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn node_status(node: &Value) -> String {
    let ready =
        list(node, "/status/conditions").iter().find(|condition| condition["type"] == "Ready");
    let mut words = vec![match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = object::labels(node)
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_LABEL_PREFIX) {
            Some(role) => Some(role),
            None => (key == ROLE_LABEL).then_some(value),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    let addresses = list(node, "/status/addresses");
    let found = addresses.iter().find(|address| address["type"] == kind);
    or_none(found.map(|address| text(address, "/address")).unwrap_or_default())
}

pub(super) const NAMESPACE: &[Column] =
    &[NAME, column("Status", "The status of the namespace."), AGE];

pub(super) fn namespace(namespace: &Value, now: Timestamp) -> Cells {
    vec![name(namespace), json!(text(namespace, "/status/phase")), age(namespace, now)]
}

pub(super) const LEASE: &[Column] = &[NAME, column("Holder", "Who holds the lease."), AGE];

pub(super) fn lease(lease: &Value, now: Timestamp) -> Cells {
    vec![name(lease), json!(text(lease, "/spec/holderIdentity")), age(lease, now)]
}

pub(super) const EVENT: &[Column] = &[
    column("Last Seen", "Time since this was last seen."),
    column("Type", "Normal or Warning."),
    column("Reason", "Why this happened, in one word."),
    column("Object", "What this is about."),
    column("Subobject", "The part of the object this is about.").wide(),
    column("Source", "Who reports this.").wide(),
    column("Message", "What happened."),
    column("First Seen", "Time since this was first seen.").wide(),
    column("Count", "How often this was seen.").integer().wide(),
    Column { priority: 1, ..NAME },
];

/// Both forms of an event: `v1` and `events.k8s.io/v1` name the same things differently.
pub(super) fn event(event: &Value, now: Timestamp) -> Cells {
    let either = |core: &str, events: &str| match text(event, core) {
        "" => text(event, events).to_owned(),
        found => found.to_owned(),
    };
    let or_event_time = |time: String| {
        let time = if time.is_empty() { text(event, "/eventTime").to_owned() } else { time };
        if time.is_empty() { text(event, "/metadata/creationTimestamp").to_owned() } else { time }
    };
    let first = or_event_time(either("/firstTimestamp", "/deprecatedFirstTimestamp"));
    let mut last = either("/lastTimestamp", "/deprecatedLastTimestamp");
    let mut count = int(event, "/count").max(int(event, "/deprecatedCount"));
    if event.get("series").is_some_and(Value::is_object) {
        text(event, "/series/lastObservedTime").clone_into(&mut last);
        count = int(event, "/series/count");
    }
    let last = if last.is_empty() { first.clone() } else { last };
    let kind = either("/involvedObject/kind", "/regarding/kind").to_lowercase();
    let about = either("/involvedObject/name", "/regarding/name");
    let source = [
        either("/source/component", "/deprecatedSource/component"),
        either("/source/host", "/deprecatedSource/host"),
    ];
    let reporter = [
        either("/reportingComponent", "/reportingController"),
        text(event, "/reportingInstance").to_owned(),
    ];
    let [component, host] = if source[0].is_empty() { reporter } else { source };
    vec![
        json!(since(&last, now)),
        json!(text(event, "/type")),
        json!(text(event, "/reason")),
        json!(if kind.is_empty() { about } else { format!("{kind}/{about}") }),
        json!(either("/involvedObject/fieldPath", "/regarding/fieldPath")),
        json!(if host.is_empty() { component } else { format!("{component}, {host}") }),
        json!(either("/message", "/note").trim()),
        json!(since(&first, now)),
        json!(count.max(1)),
        json!(text_or_none(event, "/metadata/name")),
    ]
}
