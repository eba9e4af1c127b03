//! The rows of the kinds that make pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    AGE, Cells, Column, NAME, NONE, age, column, has_condition, human_duration, int, list, name,
    text,
};
use crate::object;
use crate::selector::LabelSelector;

const CONTAINERS: Column = column("Containers", "Names of each container in the template.").wide();
const IMAGES: Column = column("Images", "Images of each container in the template.").wide();
const SELECTOR: Column = column("Selector", "The labels of the pods it looks after.").wide();

pub(super) const DEPLOYMENT: &[Column] = &[
    NAME,
    column("Ready", "Number of the pod with ready state."),
    column("Up-to-date", "Pods of the newest template.").integer(),
    column("Available", "Pods ready for at least minReadySeconds.").integer(),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn deployment(deployment: &Value, now: Timestamp) -> Cells {
    let (ready, wanted) =
        (int(deployment, "/status/readyReplicas"), int(deployment, "/spec/replicas"));
    let mut cells = vec![
        name(deployment),
        json!(format!("{ready}/{wanted}")),
        json!(int(deployment, "/status/updatedReplicas")),
        json!(int(deployment, "/status/availableReplicas")),
        age(deployment, now),
    ];
    cells.extend(template_cells(deployment));
    cells
}

pub(super) const SCALE: &[Column] = &[
    NAME,
    column("Desired", "Number of replicas asked for.").integer(),
    column("Available", "Number of replicas there are.").integer(),
    AGE,
];

pub(super) fn scale(scale: &Value, now: Timestamp) -> Cells {
    vec![
        name(scale),
        json!(int(scale, "/spec/replicas")),
        json!(int(scale, "/status/replicas")),
        age(scale, now),
    ]
}

pub(super) const REPLICA_SET: &[Column] = &[
    NAME,
    column("Desired", "The number of pods wanted.").integer(),
    column("Current", "The number of pods there are.").integer(),
    column("Ready", "The number of pods that are ready.").integer(),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn replica_set(set: &Value, now: Timestamp) -> Cells {
    let mut cells = vec![
        name(set),
        json!(int(set, "/spec/replicas")),
        json!(int(set, "/status/replicas")),
        json!(int(set, "/status/readyReplicas")),
        age(set, now),
    ];
    cells.extend(template_cells(set));
    cells
}

pub(super) const JOB: &[Column] = &[
    NAME,
    column("Status", "What the job has come to."),
    column("Completions", "Pods that have succeeded, of those wanted."),
    column("Duration", "Time from start to completion, or until now."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn job(job: &Value, now: Timestamp) -> Cells {
    let mut cells = vec![
        name(job),
        json!(job_status(job)),
        json!(completions(job)),
        json!(job_duration(job, now)),
        age(job, now),
    ];
    cells.extend(template_cells(job));
    cells
}

fn job_status(job: &Value) -> &'static str {
    if has_condition(job, "Complete") {
        "Complete"
    } else if has_condition(job, "Failed") {
        "Failed"
    } else if object::is_terminating(job) {
        "Terminating"
    } else if has_condition(job, "Suspended") {
        "Suspended"
    } else if has_condition(job, "FailureTarget") {
        "FailureTarget"
    } else if has_condition(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = int(job, "/status/succeeded");
    match job.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        // A work queue: one success is enough, and the others then end by themselves.
        None => match int(job, "/spec/parallelism") {
            parallelism @ 2.. => format!("{succeeded}/1 of {parallelism}"),
            _ => format!("{succeeded}/1"),
        },
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let Ok(start) = text(job, "/status/startTime").parse::<Timestamp>() else {
        return String::new();
    };
    let end = text(job, "/status/completionTime").parse().unwrap_or(now);
    human_duration(end.duration_since(start))
}

fn template_cells(object: &Value) -> [Value; 3] {
    let containers = list(object, "/spec/template/spec/containers");
    let joined = |pointer: &str| {
        containers.iter().map(|container| text(container, pointer)).collect::<Vec<_>>().join(",")
    };
    [json!(joined("/name")), json!(joined("/image")), json!(selector(object))]
}

/// The selector in its text form.
fn selector(object: &Value) -> String {
    let selector = object.pointer("/spec/selector").and_then(LabelSelector::from_spec);
    match selector {
        Some(selector) if !selector.is_empty() => selector.to_string(),
        _ => NONE.to_owned(),
    }
}
