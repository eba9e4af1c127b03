//! Defaults of pods and of the pod templates in workloads: containers, probes, volumes.

use serde_json::{Value, json};

use super::{ensure, items_mut, set, set_if_absent, set_if_empty};

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// 0644: what the files of secret, configMap, downwardAPI and projected volumes get.
const VOLUME_FILE_MODE: i32 = 0o644;

/// A pod: its spec's defaults, and those that only pods get, not templates.
pub fn pod(object: &mut Value) {
    let spec = ensure(object, "spec");
    pod_spec(spec);
    set_if_absent(spec, "enableServiceLinks", true);
    let host_network = spec["hostNetwork"].as_bool() == Some(true);
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            requests_from_limits(container);
            if host_network {
                host_ports_from_container_ports(container);
            }
        }
    }
    set_if_empty(ensure(object, "status"), "phase", "Pending");
}

/// The spec of a pod or of a pod template.
pub fn pod_spec(spec: &mut Value) {
    set_if_empty(spec, "dnsPolicy", "ClusterFirst");
    set_if_empty(spec, "restartPolicy", "Always");
    set_if_absent(spec, "securityContext", json!({}));
    set_if_absent(spec, "terminationGracePeriodSeconds", 30);
    set_if_empty(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    for list in CONTAINER_LISTS {
        items_mut(spec, list).for_each(container);
    }
    items_mut(spec, "volumes").for_each(volume);
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        set_if_empty(constraint, "whenUnsatisfiable", "DoNotSchedule");
    }
}

/// `serviceAccount` is the deprecated twin of `serviceAccountName`; upstream serves both.
fn service_account(spec: &mut Value) {
    let field = |name: &str| spec[name].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(name) = field("serviceAccountName").or_else(|| field("serviceAccount")) {
        set(spec, "serviceAccount", name.as_str());
        set(spec, "serviceAccountName", name);
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(container["image"].as_str().unwrap_or_default());
    set_if_empty(container, "imagePullPolicy", policy);
    set_if_empty(container, "terminationMessagePath", "/dev/termination-log");
    set_if_empty(container, "terminationMessagePolicy", "File");
    set_if_absent(container, "resources", json!({}));
    for port in items_mut(container, "ports") {
        set_if_empty(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "env") {
        if let Some(source) = variable.get_mut("valueFrom") {
            field_ref(source);
        }
    }
    for probe in PROBES {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            set_if_empty(probe, "timeoutSeconds", 1);
            set_if_empty(probe, "periodSeconds", 10);
            set_if_empty(probe, "successThreshold", 1);
            set_if_empty(probe, "failureThreshold", 3);
            handler(probe);
        }
    }
    for hook in ["/lifecycle/postStart", "/lifecycle/preStop"] {
        if let Some(hook) = container.pointer_mut(hook) {
            handler(hook);
        }
    }
}

fn handler(handler: &mut Value) {
    if let Some(http) = handler.get_mut("httpGet") {
        set_if_empty(http, "path", "/");
        set_if_empty(http, "scheme", "HTTP");
    }
    if let Some(grpc) = handler.get_mut("grpc") {
        set_if_absent(grpc, "service", "");
    }
}

fn field_ref(source: &mut Value) {
    if let Some(field) = source.get_mut("fieldRef") {
        set_if_empty(field, "apiVersion", "v1");
    }
}

/// `Always` for the tag `latest`, written or implied; a digest or another tag need not be pulled again.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let last = name.rsplit('/').next().unwrap_or_default();
    let latest = match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_empty() && !last.is_empty(),
    };
    if latest { "Always" } else { "IfNotPresent" }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container.pointer("/resources/limits").and_then(Value::as_object).cloned()
    else {
        return;
    };
    let requests = ensure(ensure(container, "resources"), "requests");
    for (resource, limit) in limits {
        set_if_absent(requests, &resource, limit);
    }
}

fn host_ports_from_container_ports(container: &mut Value) {
    for port in items_mut(container, "ports") {
        let container_port = port["containerPort"].clone();
        set_if_empty(port, "hostPort", container_port);
    }
}

fn volume(volume: &mut Value) {
    let Some(fields) = volume.as_object_mut() else {
        return;
    };
    if fields.iter().all(|(name, source)| name == "name" || source.is_null()) {
        fields.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).filter(|source| source.is_object()) {
            set_if_absent(source, "defaultMode", VOLUME_FILE_MODE);
        }
    }
    if let Some(host_path) = volume.get_mut("hostPath") {
        set_if_absent(host_path, "type", "");
    }
    if let Some(image) = volume.get_mut("image") {
        let policy = pull_policy(image["reference"].as_str().unwrap_or_default());
        set_if_empty(image, "pullPolicy", policy);
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        set_if_absent(claim, "volumeMode", "Filesystem");
    }
    if let Some(downward) = volume.get_mut("downwardAPI") {
        items_mut(downward, "items").for_each(field_ref);
    }
    if let Some(projected) = volume.get_mut("projected") {
        items_mut(projected, "sources").for_each(projection);
    }
}

fn projection(source: &mut Value) {
    if let Some(token) = source.get_mut("serviceAccountToken") {
        set_if_absent(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = source.get_mut("downwardAPI") {
        items_mut(downward, "items").for_each(field_ref);
    }
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn only_latest_is_pulled_always() {
        let cases = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/team/nginx:2", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
            ("", "IfNotPresent"),
        ];
        for (image, policy) in cases {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
