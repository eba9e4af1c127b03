//! Containers of all three kinds: names, images, ports, environment, mounts.

use std::collections::HashSet;

use crate::field::{Cursor, Error, Path};

use super::pod::PodContext;
use super::{complain, format, one_of, probe, quantities, security};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["File", "FallbackToLogsOnError"];
const RESTART_ACTIONS: [&str; 2] = ["Restart", "RestartAllContainers"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const EPHEMERAL_FORBIDDEN: [&str; 6] =
    ["lifecycle", "livenessProbe", "ports", "readinessProbe", "resources", "startupProbe"];
const INIT_FORBIDDEN: [&str; 4] = ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"];
const ENV_FIELD_PATHS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The regular containers: at least one, with names of their own.
pub fn containers(at: &Cursor<'_>, pod: &PodContext<'_>, errors: &mut Vec<Error>) {
    if at.is_empty() {
        errors.push(Error::required(&at.path, ""));
        return;
    }
    let mut names = HashSet::new();
    let mut host_ports = HashSet::new();
    for container in at.items() {
        common(&container, pod, errors);
        unique_name(&container, &mut names, errors);
        probe::probes(&container, pod, errors);
        restart_policy(&container, errors);
    }
    for container in at.items() {
        unique_host_ports(&container.child("ports"), &mut host_ports, errors);
    }
}

/// The init containers: run one by one, unless `restartPolicy: Always` makes them sidecars.
pub fn init_containers(
    at: &Cursor<'_>,
    regular: &Cursor<'_>,
    pod: &PodContext<'_>,
    errors: &mut Vec<Error>,
) {
    let mut names: HashSet<String> =
        regular.items().map(|container| container.child("name").text().to_owned()).collect();
    for container in at.items() {
        common(&container, pod, errors);
        restart_policy(&container, errors);
        unique_name(&container, &mut names, errors);
        unique_host_ports(&container.child("ports"), &mut HashSet::new(), errors);
        if container.child("restartPolicy").text() == "Always" {
            probe::probes(&container, pod, errors);
            continue;
        }
        let set = INIT_FORBIDDEN.iter().map(|field| container.child(field)).filter(Cursor::is_set);
        errors.extend(set.map(|field| {
            field.forbidden("may not be set for init containers without restartPolicy=Always")
        }));
    }
}

/// The ephemeral containers of a pod, which only debug it.
pub fn ephemeral_containers(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let named = |list: &str| {
        spec.child(list)
            .items()
            .map(|container| container.child("name").text().to_owned())
            .collect::<Vec<_>>()
    };
    let others: HashSet<String> =
        named("containers").into_iter().chain(named("initContainers")).collect();
    let mut names = others.clone();
    for container in spec.child("ephemeralContainers").items() {
        unique_name(&container, &mut names, errors);
        let target = container.child("targetContainerName");
        if !target.is_empty() && !others.contains(target.text()) {
            errors.push(target.not_found());
        }
        let set = EPHEMERAL_FORBIDDEN
            .iter()
            .map(|field| container.child(field))
            .filter(|field| !field.is_empty());
        errors.extend(set.map(|field| field.forbidden("cannot be set for an Ephemeral Container")));
    }
}

/// What holds for the containers of pods, but for historical reasons not for those of templates.
pub fn images_of_pod(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    for container in lists.iter().flat_map(|list| spec.child(list).items()) {
        let image = container.child("image");
        if image.text() != image.text().trim() {
            errors.push(image.invalid("must not have leading or trailing whitespace"));
        }
    }
}

fn common(at: &Cursor<'_>, pod: &PodContext<'_>, errors: &mut Vec<Error>) {
    let name = at.child("name");
    match name.is_empty() {
        true => errors.push(name.required("")),
        false => complain(&name, format::dns1123_label(name.text()), errors),
    }
    let image = at.child("image");
    if image.is_empty() {
        errors.push(image.required(""));
    }
    one_of(&at.child("terminationMessagePolicy"), &MESSAGE_POLICIES, errors);
    ports(&at.child("ports"), errors);
    environment(at, errors);
    mounts(&at.child("volumeMounts"), pod, errors);
    one_of(&at.child("imagePullPolicy"), &PULL_POLICIES, errors);
    quantities::requirements(&at.child("resources"), errors);
    security::container(&at.child("securityContext"), errors);
}

/// The container's own restart policy, of Kubernetes 1.35 and later (KEP-5307).
fn restart_policy(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let policy = at.child("restartPolicy");
    if policy.is_set() && !RESTART_POLICIES.contains(&policy.text()) {
        errors.push(policy.not_supported(&RESTART_POLICIES));
    }
    let rules = at.child("restartPolicyRules");
    if !rules.is_empty() && !policy.is_set() {
        errors.push(policy.required("must specify restartPolicy when restart rules are used"));
    }
    for rule in rules.items() {
        one_of_shown(&rule.child("action"), &RESTART_ACTIONS, errors);
        one_of_shown(&rule.descend(&["exitCodes", "operator"]), &["In", "NotIn"], errors);
    }
}

/// A string must be one of the supported ones; an empty one is shown as such.
fn one_of_shown(at: &Cursor<'_>, supported: &[&str], errors: &mut Vec<Error>) {
    if !supported.contains(&at.text()) {
        errors.push(Error::not_supported(&at.path, at.text(), supported));
    }
}

fn unique_name(container: &Cursor<'_>, names: &mut HashSet<String>, errors: &mut Vec<Error>) {
    let name = container.child("name");
    if !name.is_empty() && !names.insert(name.text().to_owned()) {
        errors.push(name.duplicate());
    }
}

fn unique_host_ports(ports: &Cursor<'_>, taken: &mut HashSet<String>, errors: &mut Vec<Error>) {
    for port in ports.items() {
        let host_port = port.child("hostPort");
        if host_port.int_or_zero() == 0 {
            continue;
        }
        let (protocol, address) = (port.child("protocol").text(), port.child("hostIP").text());
        let key = format!("{protocol}/{address}/{}", host_port.int_or_zero());
        if !taken.insert(key.clone()) {
            errors.push(Error::duplicate(&host_port.path, key));
        }
    }
}

fn ports(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let mut names = HashSet::new();
    for port in at.items() {
        let name = port.child("name");
        if !name.is_empty() {
            let complaints = format::port_name(name.text());
            if complaints.is_empty() && !names.insert(name.text()) {
                errors.push(name.duplicate());
            }
            complain(&name, complaints, errors);
        }
        let number = port.child("containerPort");
        match number.int_or_zero() {
            0 => errors.push(number.required("")),
            value => complain(&number, format::port_number(value), errors),
        }
        let host_port = port.child("hostPort");
        if host_port.int_or_zero() != 0 {
            complain(&host_port, format::port_number(host_port.int_or_zero()), errors);
        }
        one_of(&port.child("protocol"), &PROTOCOLS, errors);
    }
}

fn environment(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for variable in at.child("env").items() {
        let name = variable.child("name");
        match name.is_empty() {
            true => errors.push(name.required("")),
            false => complain(&name, format::variable_name(name.text()), errors),
        }
        let source = variable.child("valueFrom");
        if source.is_set() {
            value_from(&source, !variable.child("value").is_empty(), errors);
        }
    }
    let env_from = at.child("envFrom");
    for source in env_from.items() {
        let prefix = source.child("prefix");
        if !prefix.is_empty() {
            complain(&prefix, format::variable_name(prefix.text()), errors);
        }
        let sources: Vec<Cursor<'_>> = ["configMapRef", "secretRef"]
            .iter()
            .map(|name| source.child(name))
            .filter(Cursor::is_set)
            .collect();
        for reference in &sources {
            reference_name(reference, errors);
        }
        match sources.len() {
            0 => errors.push(Error::invalid(
                &env_from.path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => errors.push(Error::invalid(
                &env_from.path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
}

fn value_from(at: &Cursor<'_>, has_value: bool, errors: &mut Vec<Error>) {
    let (field, resource) = (at.child("fieldRef"), at.child("resourceFieldRef"));
    if field.is_set() {
        field_ref(&field, &ENV_FIELD_PATHS, errors);
    }
    if resource.is_set() {
        quantities::resource_field(&resource, false, errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let reference = at.child(name);
        if reference.is_set() {
            let name = reference.child("name");
            let complaints = format::dns1123_subdomain(name.text());
            errors.extend(
                complaints
                    .into_iter()
                    .map(|complaint| Error::invalid(&name.path, name.text(), complaint)),
            );
            config_key(&reference.child("key"), errors);
        }
    }
    let known = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let count = known.iter().filter(|name| at.child(name).is_set()).count();
    let detail = match count {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(&at.path, "", detail));
}

/// A path to a field of the pod, as the downward API takes it.
pub fn field_ref(at: &Cursor<'_>, supported: &[&str], errors: &mut Vec<Error>) {
    for name in ["apiVersion", "fieldPath"] {
        if at.child(name).is_empty() {
            errors.push(at.child(name).required(""));
            return;
        }
    }
    let path = at.child("fieldPath");
    let subscripted = path.text().strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let invalid = |value: &str, complaints: Vec<String>| {
        complaints
            .into_iter()
            .map(|complaint| Error::invalid(&at.path, value, complaint))
            .collect::<Vec<_>>()
    };
    match subscripted {
        Some(("metadata.labels", key)) => errors.extend(invalid(key, format::label_key(key))),
        Some(("metadata.annotations", key)) => {
            errors.extend(invalid(key, format::label_key(&key.to_lowercase())))
        }
        Some((path, _)) => {
            errors.push(Error::invalid(&at.path, path, "does not support subscript"))
        }
        None if supported.contains(&path.text()) => {}
        None if ENV_FIELD_PATHS.contains(&path.text())
            || ["metadata.labels", "metadata.annotations"].contains(&path.text()) =>
        {
            errors.push(path.not_supported(supported));
        }
        None => errors.push(path.invalid(format!(
            "error converting fieldPath: field label not supported: {}",
            path.text()
        ))),
    }
}

/// The key a reference to a ConfigMap or Secret names.
pub fn config_key(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    match at.is_empty() {
        true => errors.push(at.required("")),
        false => complain(at, format::config_key(at.text()), errors),
    }
}

fn reference_name(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let name = at.child("name");
    match name.is_empty() {
        true => errors.push(name.required("")),
        false => complain(&name, format::dns1123_subdomain(name.text()), errors),
    }
}

fn mounts(at: &Cursor<'_>, pod: &PodContext<'_>, errors: &mut Vec<Error>) {
    let mut paths = HashSet::new();
    for mount in at.items() {
        let name = mount.child("name");
        if name.is_empty() {
            errors.push(name.required(""));
        }
        if !pod.volumes.contains_key(name.text()) {
            errors.push(Error::not_found(&name.path, name.text()));
        }
        let path = mount.child("mountPath");
        if path.is_empty() {
            errors.push(path.required(""));
        }
        if !paths.insert(path.text()) {
            errors.push(Error::invalid(&path.path, path.text(), "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            let sub_path = mount.child(field).text();
            if !sub_path.is_empty() {
                // Upstream leaves the index out of this path.
                descending_path(sub_path, &at.path.child(field), errors);
            }
        }
        if !mount.child("subPath").is_empty() && !mount.child("subPathExpr").is_empty() {
            errors.push(
                mount
                    .child("subPathExpr")
                    .invalid("subPathExpr and subPath are mutually exclusive"),
            );
        }
        let propagation = mount.child("mountPropagation");
        let supported = ["Bidirectional", "HostToContainer", "None"];
        if propagation.is_set() && !supported.contains(&propagation.text()) {
            errors.push(Error::not_supported(
                &at.path.child("mountPropagation"),
                propagation.text(),
                &supported,
            ));
        }
    }
}

/// A path that stays below where it starts.
pub fn descending_path(path: &str, at: &Path, errors: &mut Vec<Error>) {
    if path.starts_with('/') {
        errors.push(Error::invalid(at, path, "must be a relative path"));
    }
    if path.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(at, path, "must not contain '..'"));
    }
}
