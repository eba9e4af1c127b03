//! Pods and pod templates: what holds for the spec as a whole. Containers, volumes and scheduling
//! have files of their own.

use std::collections::HashMap;

use serde_json::Value;

use crate::field::{Cursor, Error};

use super::{
    complain, container, format, metadata, non_negative, one_of, quantities, scheduling, security,
    volume,
};

const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const NAMESERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;
const SEARCH_LIST_LENGTH_MAX: usize = 2048;

/// What containers refer to in their pod.
pub struct PodContext<'a> {
    /// The volumes by name.
    pub volumes: HashMap<&'a str, &'a Value>,
    /// How long the pod may take to stop, in seconds.
    pub grace_period_seconds: Option<i64>,
}

/// A pod.
pub fn pod(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    pod_spec(&at.child("spec"), errors);
    container::images_of_pod(&at.child("spec"), errors);
    if at.descend(&["spec", "ephemeralContainers"]).is_empty() {
        return;
    }
    container::ephemeral_containers(&at.child("spec"), errors);
}

/// The pod template of a workload.
pub fn template(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    metadata::labels(
        &at.descend(&["metadata", "labels"]).with_path(at.path.child("labels")),
        errors,
    );
    metadata::annotations(
        &at.descend(&["metadata", "annotations"]).with_path(at.path.child("annotations")),
        errors,
    );
    pod_spec(&at.child("spec"), errors);
    let ephemeral = at.descend(&["spec", "ephemeralContainers"]);
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

fn pod_spec(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let volumes = volume::volumes(&at.child("volumes"), errors);
    let grace_period = at.child("terminationGracePeriodSeconds");
    let context = PodContext {
        volumes,
        grace_period_seconds: grace_period.int().filter(|seconds| *seconds >= 0),
    };
    container::containers(&at.child("containers"), &context, errors);
    container::init_containers(
        &at.child("initContainers"),
        &at.child("containers"),
        &context,
        errors,
    );
    one_of(&at.child("restartPolicy"), &RESTART_POLICIES, errors);
    one_of(&at.child("dnsPolicy"), &DNS_POLICIES, errors);
    metadata::labels(&at.child("nodeSelector"), errors);
    security::pod(&at.child("securityContext"), errors);
    host_namespaces(at, errors);
    image_pull_secrets(&at.child("imagePullSecrets"), errors);
    scheduling::affinity(&at.child("affinity"), errors);
    dns_config(at, errors);
    scheduling::topology_spread(&at.child("topologySpreadConstraints"), errors);
    for gate in at.child("readinessGates").items() {
        let condition = gate.child("conditionType");
        let complaints = format::label_key(condition.text());
        errors.extend(
            complaints
                .into_iter()
                .map(|complaint| Error::invalid(&condition.path, condition.text(), complaint)),
        );
    }
    scheduling::gates(at, errors);
    names(at, errors);
    scheduling::tolerations(&at.child("tolerations"), errors);
    host_aliases(&at.child("hostAliases"), errors);
    let deadline = at.child("activeDeadlineSeconds");
    if deadline.int().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        errors.push(deadline.invalid(format::between(1, i32::MAX.into())));
    }
    if grace_period.is_set() {
        non_negative(&grace_period, errors);
    }
    let overhead = at.child("overhead");
    overhead.entries().for_each(|(name, amount)| quantities::amount(name, &amount, errors));
}

fn names(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let name = at.child(field);
        if !name.is_empty() {
            complain(&name, format::dns1123_subdomain(name.text()), errors);
        }
    }
    for field in ["hostname", "subdomain"] {
        let name = at.child(field);
        if !name.is_empty() {
            complain(&name, format::dns1123_label(name.text()), errors);
        }
    }
}

fn host_namespaces(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let share = at.child("shareProcessNamespace");
    if share.flag() && at.child("hostPID").flag() {
        errors.push(share.invalid("ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    if !at.child("hostNetwork").flag() {
        return;
    }
    for list in ["containers", "initContainers"] {
        for port in at.child(list).items().flat_map(|container| container.child("ports").items()) {
            let host_port = port.child("hostPort");
            if host_port.value != port.child("containerPort").value {
                errors.push(
                    host_port.required("must match `containerPort` when `hostNetwork` is true"),
                );
            }
        }
    }
}

fn image_pull_secrets(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for secret in at.items() {
        if secret.child("name").is_empty() {
            errors.push(Error::required(&secret.child("name").path, ""));
        }
    }
}

fn dns_config(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let config = at.child("dnsConfig");
    let nameservers = config.child("nameservers");
    if at.child("dnsPolicy").text() == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if nameservers.is_empty() {
            errors.push(
                nameservers
                    .required("must provide at least one DNS nameserver when `dnsPolicy` is None"),
            );
            return;
        }
    }
    if nameservers.len() > NAMESERVERS_MAX {
        errors.push(
            nameservers.invalid(format!("must not have more than {NAMESERVERS_MAX} nameservers")),
        );
    }
    nameservers.items().for_each(|address| complain(&address, format::ip(address.text()), errors));
    let searches = config.child("searches");
    if searches.len() > SEARCH_PATHS_MAX {
        errors.push(
            searches.invalid(format!("must not have more than {SEARCH_PATHS_MAX} search paths")),
        );
    }
    let length = searches.items().map(|path| path.len() + 1).sum::<usize>().saturating_sub(1);
    if length > SEARCH_LIST_LENGTH_MAX {
        errors.push(searches.invalid(format!("must not have more than {SEARCH_LIST_LENGTH_MAX} characters (including spaces) in the search list")));
    }
    for search in searches.items() {
        let domain = search.text().strip_suffix('.').unwrap_or(search.text());
        complain(&search, format::dns1123_subdomain(domain), errors);
    }
    for option in config.child("options").items() {
        if option.child("name").is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

fn host_aliases(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for alias in at.items() {
        let ip = alias.child("ip");
        complain(&ip, format::ip(ip.text()), errors);
        let hostnames = alias.child("hostnames");
        for hostname in hostnames.items() {
            let complaints = format::dns1123_subdomain(hostname.text());
            errors.extend(
                complaints
                    .into_iter()
                    .map(|complaint| Error::invalid(&hostnames.path, hostname.text(), complaint)),
            );
        }
    }
}
