//! The row of a Pod: one word for its state, drawn from phase, conditions and container statuses.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    AGE, Cells, Column, NAME, NONE, age, column, has_condition, int, list, name, or_none, text,
    text_or_none,
};
use crate::object;
use crate::resource::Resource;

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    column("Status", "The aggregate status of the containers in this pod."),
    column("Restarts", "The number of times the containers in this pod have been restarted."),
    AGE,
    column("IP", "The address of the pod.").wide(),
    column("Node", "The node the pod is bound to.").wide(),
    column("Nominated Node", "The node other pods are being preempted on for this one.").wide(),
    column("Readiness Gates", "The gates passed, of those to pass before the pod is ready.").wide(),
];

pub(super) fn cells(pod: &Value, now: Timestamp) -> Cells {
    let summary = Summary::of(pod);
    let restarts = match summary.restarted_last {
        Some(at) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, super::age::since(at, now))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = match text(pod, "/status/podIPs/0/ip") {
        "" => text(pod, "/status/podIP"),
        ip => ip,
    };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or_none(ip)),
        json!(text_or_none(pod, "/spec/nodeName")),
        json!(text_or_none(pod, "/status/nominatedNodeName")),
        json!(readiness_gates(pod)),
    ]
}

/// What tells clients that a pod has ended, so that they can leave it out.
pub(super) fn row_conditions(resource: &Resource, pod: &Value) -> Option<Value> {
    if (resource.group, resource.kind) != ("", "Pod") {
        return None;
    }
    let message = match text(pod, "/status/phase") {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    let reason = text(pod, "/status/phase");
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    let passed = gates.iter().filter(|gate| has_condition(pod, text(gate, "/conditionType")));
    match gates.len() {
        0 => NONE.to_owned(),
        all => format!("{}/{all}", passed.count()),
    }
}

/// What the statuses of the containers amount to.
struct Summary<'a> {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    restarted_last: Option<&'a str>,
}

impl<'a> Summary<'a> {
    fn of(pod: &'a Value) -> Self {
        let sidecars = list(pod, "/spec/initContainers").iter().filter(|c| is_restartable(c));
        let mut summary = Self {
            ready: 0,
            total: list(pod, "/spec/containers").len() + sidecars.count(),
            reason: text(pod, "/status/phase").to_owned(),
            restarts: 0,
            restarted_last: None,
        };
        if !text(pod, "/status/reason").is_empty() {
            text(pod, "/status/reason").clone_into(&mut summary.reason);
        }
        if list(pod, "/status/conditions").iter().any(|condition| {
            condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated"
        }) {
            "SchedulingGated".clone_into(&mut summary.reason);
        }
        let initializing = summary.add_init_containers(pod);
        if !initializing || has_condition(pod, "Initialized") {
            summary.add_containers(pod);
        }
        let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        if object::is_terminating(pod) && text(pod, "/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if object::is_terminating(pod) && !ended {
            "Terminating".clone_into(&mut summary.reason);
        }
        summary
    }

    /// Goes through the init containers up to the first that is not done; whether there is one.
    fn add_init_containers(&mut self, pod: &'a Value) -> bool {
        let declared = list(pod, "/spec/initContainers");
        for (index, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
            self.add_restarts(status);
            let sidecar = declared
                .iter()
                .any(|container| container["name"] == status["name"] && is_restartable(container));
            let terminated = status.pointer("/state/terminated");
            if terminated.is_some_and(|terminated| int(terminated, "/exitCode") == 0) {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waiting = text(status, "/state/waiting/reason");
            self.reason = match terminated {
                Some(terminated) => format!("Init:{}", how_it_ended(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => {
                    format!("Init:{waiting}")
                }
                None => format!("Init:{index}/{}", declared.len()),
            };
            return true;
        }
        false
    }

    fn add_containers(&mut self, pod: &'a Value) {
        // Of the init containers only those still count that run beside the containers.
        (self.restarts, self.restarted_last) = (0, None);
        let declared = list(pod, "/spec/initContainers");
        for status in list(pod, "/status/initContainerStatuses") {
            if declared.iter().any(|c| c["name"] == status["name"] && is_restartable(c)) {
                self.add_restarts(status);
            }
        }
        let mut any_running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            self.add_restarts(status);
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(terminated) = status.pointer("/state/terminated") {
                self.reason = how_it_ended(terminated);
            } else if status["ready"] == true && status.pointer("/state/running").is_some() {
                any_running = true;
                self.ready += 1;
            }
        }
        // One container may be done while others go on.
        if self.reason == "Completed" && any_running {
            let reason = if has_condition(pod, "Ready") { "Running" } else { "NotReady" };
            reason.clone_into(&mut self.reason);
        }
    }

    fn add_restarts(&mut self, status: &'a Value) {
        self.restarts += int(status, "/restartCount");
        let at = text(status, "/lastState/terminated/finishedAt");
        // RFC 3339 times of whole seconds in UTC sort as texts.
        if !at.is_empty() && self.restarted_last.is_none_or(|last| last < at) {
            self.restarted_last = Some(at);
        }
    }
}

fn how_it_ended(terminated: &Value) -> String {
    match (text(terminated, "/reason"), int(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// A sidecar: an init container that is restarted whatever becomes of it (KEP-753).
fn is_restartable(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}
