//! Jobs.

use crate::field::{Cursor, Error};

use super::{immutable, metadata, non_negative, pod, same};

const COMPLETION_MODES: [&str; 2] = ["Indexed", "NonIndexed"];
const REPLACEMENT_POLICIES: [&str; 2] = ["Failed", "TerminatingOrFailed"];
/// More pods at a time than this, or more results, an Indexed Job cannot record.
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const COUNTS: [&str; 7] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
];

/// A Job.
pub fn job(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let spec = at.child("spec");
    let template = spec.child("template");
    generated_selector(at, errors);
    COUNTS.iter().for_each(|name| non_negative(&spec.child(name), errors));
    completion_mode(&spec, errors);
    failure_policy(&spec, errors);
    pod::template(&template, errors);
    restart_policy(&spec, errors);
    let selector = spec.child("selector");
    if !selector.is_set() {
        errors.push(selector.required(""));
        return;
    }
    metadata::label_selector(&selector, errors);
    let labels = template.descend(&["metadata", "labels"]);
    if metadata::selector_matches(&selector, &labels) == Some(false) {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
}

/// What may not change about a Job.
pub fn update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (spec, old) = (at.child("spec"), old.child("spec"));
    for name in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        immutable(&spec.child(name), &old.child(name), errors);
    }
    completions_update(&spec, &old, errors);
    template_update(&spec, &old, errors);
}

fn completions_update(spec: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let completions = spec.child("completions");
    if same(completions.value, old.child("completions").value) {
        return;
    }
    if spec.child("completionMode").text() != "Indexed" || !completions.is_set() {
        immutable(&completions, &old.child("completions"), errors);
    } else if completions.value != spec.child("parallelism").value {
        errors.push(completions.invalid("can only be modified in tandem with spec.parallelism"));
    }
}

/// The template stays; while the Job is suspended and before it first ran, the scheduling directives
/// (KEP-2926) may change.
fn template_update(spec: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (template, mut previous) = (spec.child("template"), old.child("template").value.clone());
    if old.child("suspend").flag() {
        for path in [
            "/metadata/labels",
            "/metadata/annotations",
            "/spec/nodeSelector",
            "/spec/tolerations",
            "/spec/affinity",
            "/spec/schedulingGates",
        ] {
            let (parent, name) = path.rsplit_once('/').unwrap_or_default();
            let Some(fields) = previous.pointer_mut(parent).and_then(|value| value.as_object_mut())
            else {
                continue;
            };
            match template.value.pointer(path) {
                Some(value) => fields.insert(name.to_owned(), value.clone()),
                None => fields.remove(name),
            };
        }
    }
    if !same(template.value, &previous) {
        errors.push(template.invalid("field is immutable"));
    }
}

/// Unless the user manages the selector, it and the pods' labels are made from the Job's uid.
fn generated_selector(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if at.descend(&["spec", "manualSelector"]).flag() {
        return;
    }
    let selector = at.descend(&["spec", "selector"]);
    if !selector.is_set() {
        return;
    }
    let labels = at.descend(&["spec", "template", "metadata", "labels"]);
    let expected = [
        ("batch.kubernetes.io/controller-uid", at.descend(&["metadata", "uid"]).text()),
        ("batch.kubernetes.io/job-name", at.descend(&["metadata", "name"]).text()),
        ("controller-uid", at.descend(&["metadata", "uid"]).text()),
        ("job-name", at.descend(&["metadata", "name"]).text()),
    ];
    for (key, value) in expected {
        let label = labels.value.get(key).and_then(|label| label.as_str());
        match label {
            None => {
                errors.push(Error::required(&labels.path.key(key), format!("must be '{value}'")))
            }
            Some(label) if label != value => errors.push(Error::invalid(
                &labels.path.key(key),
                labels.value.clone(),
                format!("must be '{value}'"),
            )),
            Some(_) => {}
        }
    }
    if metadata::selector_matches(&selector, &labels) == Some(false) {
        errors.push(selector.invalid("`selector` not auto-generated"));
    }
}

fn completion_mode(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (mode, completions, parallelism) =
        (spec.child("completionMode"), spec.child("completions"), spec.child("parallelism"));
    let indexed = mode.text() == "Indexed";
    if mode.is_set() && !COMPLETION_MODES.contains(&mode.text()) {
        errors.push(mode.not_supported(&COMPLETION_MODES));
    }
    if indexed {
        if !completions.is_set() {
            errors.push(completions.required("when completion mode is Indexed"));
        }
        if parallelism.int_or_zero() > INDEXED_PARALLELISM_MAX {
            errors.push(parallelism.invalid(format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed")));
        }
    } else {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.child(name).is_set() {
                errors.push(spec.child(name).invalid("requires indexed completion mode"));
            }
        }
    }
    if spec.child("maxFailedIndexes").is_set() && !spec.child("backoffLimitPerIndex").is_set() {
        errors.push(
            spec.child("backoffLimitPerIndex").required("when maxFailedIndexes is specified"),
        );
    }
    let replacement = spec.child("podReplacementPolicy");
    if replacement.is_set() {
        if spec.child("podFailurePolicy").is_set() && replacement.text() != "Failed" {
            errors.push(replacement.not_supported(&["Failed"]));
        } else if !REPLACEMENT_POLICIES.contains(&replacement.text()) {
            errors.push(replacement.not_supported(&REPLACEMENT_POLICIES));
        }
    }
}

fn failure_policy(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    for rule in spec.descend(&["podFailurePolicy", "rules"]).items() {
        let action = rule.child("action");
        let supported = ["Count", "FailIndex", "FailJob", "Ignore"];
        if action.is_empty() {
            errors.push(
                action.required("valid values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\""),
            );
        } else if !supported.contains(&action.text()) {
            errors.push(action.not_supported(&supported));
        }
        let (codes, conditions) = (rule.child("onExitCodes"), rule.child("onPodConditions"));
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => errors.push(
                rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"),
            ),
            (false, false) => errors.push(
                rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"),
            ),
            _ => {}
        }
        if codes.is_set() && codes.child("values").is_empty() {
            errors.push(codes.child("values").invalid("at least one value is required"));
        }
        let operator = codes.child("operator");
        if codes.is_set() && !["In", "NotIn"].contains(&operator.text()) {
            errors.push(Error::not_supported(&operator.path, operator.text(), &["In", "NotIn"]));
        }
    }
}

fn restart_policy(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let policy = spec.descend(&["template", "spec", "restartPolicy"]);
    match policy.text() {
        // Always is also what defaulting makes of no policy at all.
        "Always" | "" => {
            errors.push(Error::required(&policy.path, "valid values: \"OnFailure\", \"Never\""))
        }
        "OnFailure" if spec.child("podFailurePolicy").is_set() => {
            errors.push(
                policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"),
            );
        }
        "OnFailure" | "Never" => {}
        _ => errors.push(policy.not_supported(&["OnFailure", "Never"])),
    }
}
