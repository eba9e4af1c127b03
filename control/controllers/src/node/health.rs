//! Conditions and taints of a node by what was last heard of it: pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Conditions a node agent keeps; all of them are unknown when it is silent.
const KEPT: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Conditions that keep new pods away while they hold.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// A condition of a node.
pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The conditions of a node that was silent for too long.
pub(super) fn silent(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let status = node.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    for kind in KEPT {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    conditions
}

/// The taints a node is to have: other people's stay, ours follow its conditions.
pub(super) fn taints(node: &Node, now: Timestamp) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    let known = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let wanted = wanted(node);
    let judged = condition(node, "Ready").is_some();
    let mut taints: Vec<Taint> = known
        .into_iter()
        .filter(|taint| {
            !is_ours(taint, judged)
                || wanted.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect)
        })
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let (key, effect) = (key.to_owned(), effect.to_owned());
            taints.push(Taint { key, effect, value: None, time_added: None });
        }
    }
    for taint in &mut taints {
        // Tolerations for a time count from here, also after a restart of this program.
        if taint.effect == "NoExecute" && taint.time_added.is_none() {
            taint.time_added = Some(Time(now));
        }
    }
    taints
}

fn wanted(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("False") => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Some("Unknown") => {
            wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]);
        }
        _ => {}
    }
    for (kind, key) in PRESSURES {
        if condition(node, kind).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

/// A node that has not said yet whether it is ready keeps the taint it was born with.
fn is_ours(taint: &Taint, judged: bool) -> bool {
    let key = taint.key.as_str();
    if key == NOT_READY || key == UNREACHABLE {
        return judged;
    }
    let pressure = PRESSURES.iter().any(|(_, ours)| *ours == key);
    taint.effect == "NoSchedule" && (pressure || key == UNSCHEDULABLE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(ready: Option<&str>, unschedulable: bool, taints: &[(&str, &str)]) -> Node {
        let conditions: Vec<_> =
            ready.iter().map(|status| json!({ "type": "Ready", "status": status })).collect();
        let taints: Vec<_> =
            taints.iter().map(|(key, effect)| json!({ "key": key, "effect": effect })).collect();
        serde_json::from_value(json!({
            "metadata": { "name": "n" },
            "spec": { "unschedulable": unschedulable, "taints": taints },
            "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    #[test]
    fn taints_follow_conditions() {
        let born: &[(&str, &str)] = &[(NOT_READY, "NoSchedule")];
        let lost: &[(&str, &str)] = &[(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")];
        let refused: &[(&str, &str)] = &[(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")];
        let foreign: &[(&str, &str)] = &[("gpu", "NoExecute")];
        let cordoned: &[(&str, &str)] = &[(UNSCHEDULABLE, "NoSchedule")];
        for (ready, cordon, known, want) in [
            (None, false, born, born),
            (Some("True"), false, born, &[][..]),
            (Some("False"), false, born, refused),
            (Some("Unknown"), false, refused, lost),
            (Some("True"), false, lost, &[]),
            (Some("True"), false, foreign, foreign),
            (Some("True"), true, &[], cordoned),
            (Some("True"), false, cordoned, &[]),
        ] {
            let found = taints(&node(ready, cordon, known), Timestamp::UNIX_EPOCH);
            let pairs: Vec<_> =
                found.iter().map(|taint| (taint.key.as_str(), taint.effect.as_str())).collect();
            assert_eq!(pairs, want, "{ready:?} {known:?}");
            for taint in found {
                assert_eq!(taint.time_added.is_some(), taint.effect == "NoExecute");
            }
        }
    }

    #[test]
    fn silence_makes_all_conditions_unknown_once() {
        let mut node = node(Some("True"), false, &[]);
        let first = silent(&node, Timestamp::UNIX_EPOCH);
        let told: Vec<_> = first.iter().map(|c| (&*c.type_, c.reason.as_deref())).collect();
        let never = Some("NodeStatusNeverUpdated");
        assert_eq!(
            told,
            [
                ("Ready", Some("NodeStatusUnknown")),
                ("MemoryPressure", never),
                ("DiskPressure", never),
                ("PIDPressure", never),
            ]
        );
        assert!(first.iter().all(|condition| condition.status == "Unknown"));
        node.status.get_or_insert_default().conditions = Some(first.clone());
        assert_eq!(silent(&node, Timestamp::now()), first);
    }
}
