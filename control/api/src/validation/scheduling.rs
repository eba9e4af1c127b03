//! Where a pod may run: affinity, tolerations, spreading, gates; and the taints of Nodes.

use std::collections::HashSet;

use serde_json::Value;

use crate::field::{Cursor, Error};

use super::{complain, format, metadata};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const UNSATISFIABLE: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
const INCLUSION_POLICIES: [&str; 2] = ["Honor", "Ignore"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// A pod's affinity to nodes and to other pods.
pub fn affinity(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let node = at.child("nodeAffinity");
    let required = node.child(REQUIRED);
    if required.is_set() {
        let terms = required.child("nodeSelectorTerms");
        if terms.is_empty() {
            errors.push(Error::required(&terms.path, "must have at least one node selector term"));
        }
        terms.items().for_each(|term| node_selector_term(&term, errors));
    }
    for preference in node.child(PREFERRED).items() {
        weight(&preference, errors);
        node_selector_term(&preference.child("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = at.child(kind);
        pods.child(REQUIRED).items().for_each(|term| pod_affinity_term(&term, errors));
        for preference in pods.child(PREFERRED).items() {
            weight(&preference, errors);
            pod_affinity_term(&preference.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let weight = at.child("weight");
    let value = weight.int_or_zero();
    if !(1..=100).contains(&value) {
        errors.push(Error::invalid(&weight.path, value, "must be in the range 1-100"));
    }
}

fn node_selector_term(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for requirement in at.child("matchExpressions").items() {
        let (operator, values) = (requirement.child("operator"), requirement.child("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors
                    .push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                errors
                    .push(values.required(
                        "must be specified single value when `operator` is 'Lt' or 'Gt'",
                    ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            text => {
                errors.push(Error::invalid(&operator.path, text, "not a valid selector operator"))
            }
        }
        let key = requirement.child("key");
        key_text(&key, errors);
        values
            .items()
            .for_each(|value| complain(&value, format::label_value(value.text()), errors));
    }
    for requirement in at.child("matchFields").items() {
        let (operator, values, key) =
            (requirement.child("operator"), requirement.child("values"), requirement.child("key"));
        match operator.text() {
            "In" | "NotIn" if values.len() != 1 => {
                errors.push(values.required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector"));
            }
            "In" | "NotIn" => {}
            text => {
                errors.push(Error::invalid(&operator.path, text, "not a valid selector operator"))
            }
        }
        match key.text() {
            "metadata.name" => values.items().for_each(|value| {
                complain(&value, format::dns1123_subdomain(value.text()), errors)
            }),
            text => errors.push(Error::invalid(&key.path, text, "not a valid field selector key")),
        }
    }
}

/// A label key that is a value, also reported when it is missing.
fn key_text(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let complaints = format::label_key(at.text());
    errors.extend(
        complaints.into_iter().map(|complaint| Error::invalid(&at.path, at.text(), complaint)),
    );
}

fn pod_affinity_term(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    metadata::label_selector(&at.child("labelSelector"), errors);
    metadata::label_selector(&at.child("namespaceSelector"), errors);
    for namespace in at.child("namespaces").items() {
        complain(&namespace, format::dns1123_label(namespace.text()), errors);
    }
    let topology_key = at.child("topologyKey");
    if topology_key.is_empty() {
        errors.push(topology_key.required("can not be empty"));
    }
    key_text(&topology_key, errors);
}

/// A pod's tolerations.
pub fn tolerations(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for toleration in at.items() {
        let (key, operator, value) =
            (toleration.child("key"), toleration.child("operator"), toleration.child("value"));
        let (effect, seconds) = (toleration.child("effect"), toleration.child("tolerationSeconds"));
        if !key.is_empty() {
            key_text(&key, errors);
        } else if operator.text() != "Exists" {
            errors.push(Error::invalid(&operator.path, operator.text(), "operator must be Exists when `key` is empty, which means \"match all values and all keys\""));
        }
        if seconds.is_set() && effect.text() != "NoExecute" {
            errors.push(Error::invalid(
                &effect.path,
                effect.text(),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        match operator.text() {
            "" | "Equal" => {
                let complaints = format::label_value(value.text());
                if !complaints.is_empty() {
                    errors.push(Error::invalid(&operator.path, value.text(), complaints.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.push(Error::invalid(
                    &operator.path,
                    toleration.value.clone(),
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
            "Exists" => {}
            text => errors.push(Error::not_supported(&operator.path, text, &["Equal", "Exists"])),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect.text()) {
            errors.push(effect.not_supported(&EFFECTS));
        }
    }
}

/// A pod's topologySpreadConstraints.
pub fn topology_spread(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let mut pairs = HashSet::new();
    for constraint in at.items() {
        let skew = constraint.child("maxSkew");
        if skew.int_or_zero() <= 0 {
            errors.push(Error::invalid(
                &skew.path,
                skew.int_or_zero(),
                "must be greater than zero",
            ));
        }
        let key = constraint.child("topologyKey");
        match key.is_empty() {
            true => errors.push(key.required("can not be empty")),
            false => key_text(&key, errors),
        }
        let unsatisfiable = constraint.child("whenUnsatisfiable");
        if !UNSATISFIABLE.contains(&unsatisfiable.text()) {
            errors.push(Error::not_supported(
                &unsatisfiable.path,
                unsatisfiable.text(),
                &UNSATISFIABLE,
            ));
        }
        let pair = (key.text(), unsatisfiable.text());
        if !pairs.insert(pair) {
            let path = constraint.path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(Error::duplicate(&path, format!("{{{}, {}}}", pair.0, pair.1)));
        }
        min_domains(&constraint, errors);
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = constraint.child(policy);
            if policy.is_set() && !INCLUSION_POLICIES.contains(&policy.text()) {
                errors.push(policy.not_supported(&INCLUSION_POLICIES));
            }
        }
        metadata::label_selector(&constraint.child("labelSelector"), errors);
    }
}

fn min_domains(constraint: &Cursor<'_>, errors: &mut Vec<Error>) {
    let min_domains = constraint.child("minDomains");
    let Some(count) = min_domains.int() else {
        return;
    };
    if count <= 0 {
        errors.push(min_domains.invalid("must be greater than zero"));
    }
    let unsatisfiable = constraint.child("whenUnsatisfiable").text();
    if unsatisfiable != "DoNotSchedule" {
        errors.push(min_domains.invalid(format!(
            "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {unsatisfiable}"
        )));
    }
}

/// A pod's schedulingGates.
pub fn gates(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let gates = spec.child("schedulingGates");
    let mut seen = HashSet::new();
    for gate in gates.items() {
        let name = gate.child("name").text();
        let complaints = format::label_key(name);
        errors.extend(
            complaints.into_iter().map(|complaint| Error::invalid(&gate.path, name, complaint)),
        );
        if !seen.insert(name) {
            errors.push(Error::duplicate(&gate.path, name));
        }
    }
    let node_name = spec.child("nodeName");
    if !gates.is_empty() && !node_name.is_empty() {
        errors
            .push(node_name.forbidden("cannot be set until all schedulingGates have been cleared"));
    }
}

/// A Node's taints; upstream reports them as `metadata.taints`.
pub fn taints(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let mut pairs = HashSet::new();
    for taint in at.items() {
        key_text(&taint.child("key"), errors);
        let value = taint.child("value");
        let complaints = format::label_value(value.text());
        if !complaints.is_empty() {
            errors.push(value.invalid(complaints.join(";")));
        }
        let effect = taint.child("effect");
        if effect.is_empty() {
            errors.push(effect.required(""));
        } else if !EFFECTS.contains(&effect.text()) {
            errors.push(effect.not_supported(&EFFECTS));
        }
        if !pairs.insert((taint.child("key").text(), effect.text())) {
            let mut duplicate = taint.duplicate();
            "taints must be unique by key and effect pair".clone_into(&mut duplicate.detail);
            errors.push(duplicate);
        }
    }
}

/// Tolerations may be added to a pod, but for the seconds they last they may not change.
pub fn only_added_tolerations(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration
            .as_object_mut()
            .filter(|fields| fields.get("effect") == Some(&Value::from("NoExecute")))
        {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let kept = |old: &Cursor<'_>| {
        new.items().any(|new| without_seconds(new.value) == without_seconds(old.value))
    };
    if old.items().any(|old| !kept(&old)) {
        errors.push(
            new.forbidden("existing toleration can not be modified except its tolerationSeconds"),
        );
    }
}
