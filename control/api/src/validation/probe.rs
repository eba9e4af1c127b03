//! Probes and lifecycle hooks.

use crate::field::{Cursor, Error};

use super::pod::PodContext;
use super::{format, non_negative, one_of, port_number_or_name};

const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];
const COUNTS: [&str; 5] = [
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
];

/// The probes and hooks of a container.
pub fn probes(container: &Cursor<'_>, pod: &PodContext<'_>, errors: &mut Vec<Error>) {
    for hook in ["postStart", "preStop"] {
        let hook = container.descend(&["lifecycle", hook]);
        if hook.is_set() {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], pod, errors);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let at = container.child(name);
        if !at.is_set() {
            continue;
        }
        probe(&at, pod, errors);
        if name == "readinessProbe" {
            let grace_period = at.child("terminationGracePeriodSeconds");
            if grace_period.is_set() {
                errors.push(grace_period.invalid("must not be set for readinessProbes"));
            }
        } else if at.child("successThreshold").int() != Some(1) {
            errors.push(at.child("successThreshold").invalid("must be 1"));
        }
    }
}

fn probe(at: &Cursor<'_>, pod: &PodContext<'_>, errors: &mut Vec<Error>) {
    handler(at, &["exec", "httpGet", "tcpSocket", "grpc"], pod, errors);
    COUNTS.iter().for_each(|name| non_negative(&at.child(name), errors));
    let grace_period = at.child("terminationGracePeriodSeconds");
    if grace_period.int().is_some_and(|seconds| seconds <= 0) {
        errors.push(grace_period.invalid("must be greater than 0"));
    }
}

fn handler(at: &Cursor<'_>, kinds: &[&str], pod: &PodContext<'_>, errors: &mut Vec<Error>) {
    let set: Vec<(&str, Cursor<'_>)> = kinds
        .iter()
        .map(|kind| (*kind, at.child(kind)))
        .filter(|(_, action)| action.is_set())
        .collect();
    let Some(((kind, action), others)) = set.split_first() else {
        errors.push(at.required("must specify a handler type"));
        return;
    };
    match *kind {
        "exec" if action.child("command").is_empty() => {
            errors.push(action.child("command").required(""))
        }
        "httpGet" => http_get(action, errors),
        "tcpSocket" | "grpc" => port_number_or_name(&action.child("port"), errors),
        "sleep" => sleep(action, pod, errors),
        _ => {}
    }
    errors.extend(
        others.iter().map(|(_, other)| other.forbidden("may not specify more than 1 handler type")),
    );
}

fn http_get(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if at.child("path").is_empty() {
        errors.push(at.child("path").required(""));
    }
    port_number_or_name(&at.child("port"), errors);
    one_of(&at.child("scheme"), &SCHEMES, errors);
    let headers = at.child("httpHeaders");
    for header in headers.items() {
        let name = header.child("name").text();
        let complaints = format::http_header(name);
        errors.extend(
            complaints.into_iter().map(|complaint| Error::invalid(&headers.path, name, complaint)),
        );
    }
}

fn sleep(at: &Cursor<'_>, pod: &PodContext<'_>, errors: &mut Vec<Error>) {
    let seconds = at.child("seconds").int_or_zero();
    if let Some(grace_period) =
        pod.grace_period_seconds.filter(|limit| !(0..=*limit).contains(&seconds))
    {
        errors.push(Error::invalid(
            &at.path,
            seconds,
            format!(
                "must be non-negative and less than terminationGracePeriodSeconds ({grace_period})"
            ),
        ));
    }
}
