//! The downward API: fields of the pod and resources of its containers as text, for environment
//! variables and files.

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::resources::{limited, requested};
use super::{PodExt, all_containers};
use crate::error::Error;
use crate::quantity;

/// What of the pod is known only on its node.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFacts {
    pub(crate) node_name: String,
    pub(crate) host_ips: Vec<String>,
    pub(crate) pod_ips: Vec<String>,
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
}

/// The value of a field path.
pub(crate) fn field(pod: &Pod, facts: &NodeFacts, path: &str) -> Result<String, Error> {
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    if let Some((of, key)) = subscript(path) {
        let map = match of {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(unsupported(path)),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.podspec();
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => formatted(pod.metadata.labels.as_ref()),
        "metadata.annotations" => formatted(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> Error {
    Error::Object(format!("unsupported fieldPath: {path}"))
}

/// `metadata.labels['key']` in its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (of, rest) = path.split_once("['")?;
    Some((of, rest.strip_suffix("']")?))
}

/// Labels or annotations as upstream prints them: sorted, one a line, quoted as Go does.
fn formatted(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| {
        let quoted = serde_json::Value::from(value.as_str()).to_string();
        format!("{key}={quoted}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of a container's request or limit. A limit that is not set is the machine's capacity.
pub(crate) fn resource(
    pod: &Pod,
    facts: &NodeFacts,
    selector: &ResourceFieldSelector,
    own_container: Option<&str>,
) -> Result<String, Error> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).or(own_container);
    let (container, _) = all_containers(pod.podspec())
        .find(|(container, _)| Some(container.name.as_str()) == name)
        .ok_or_else(|| {
            Error::Object(format!("container {} not found", name.unwrap_or_default()))
        })?;
    let (kind, resource) = selector.resource.split_once('.').unwrap_or_default();
    let quantity = match kind {
        "requests" => requested(container, resource).cloned(),
        "limits" => limited(container, resource).cloned(),
        _ => {
            let what = &selector.resource;
            return Err(Error::Object(format!("unsupported container resource : {what}")));
        }
    };
    let quantity = quantity.unwrap_or_else(|| match (kind, resource) {
        ("limits", "cpu") => Quantity(facts.cpus.to_string()),
        ("limits", "memory") => Quantity(facts.memory_bytes.to_string()),
        _ => Quantity("0".to_owned()),
    });
    Ok(quantity::divided(&quantity, selector.divisor.as_ref()).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u",
                         "labels": {"b": "x \"y\"", "a/c": "1"}},
            "spec": {"containers": [{"name": "c", "resources": {
                "limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}]},
        }))
        .unwrap();
        let facts = NodeFacts {
            node_name: "n1".into(),
            pod_ips: vec!["10.0.0.2".into(), "fd::2".into()],
            memory_bytes: 1 << 30,
            ..NodeFacts::default()
        };
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.labels", "a/c=\"1\"\nb=\"x \\\"y\\\"\""),
            ("metadata.labels['a/c']", "1"),
            ("metadata.annotations['none']", ""),
            ("status.podIP", "10.0.0.2"),
            ("status.podIPs", "10.0.0.2,fd::2"),
            ("spec.nodeName", "n1"),
        ] {
            assert_eq!(field(&pod, &facts, path).unwrap(), expected, "{path}");
        }
        assert!(field(&pod, &facts, "spec.hostname").is_err());
        for (name, divisor, expected) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.memory", Some("1Mi"), "64"),
            ("limits.memory", Some("1Mi"), "1024"),
            ("requests.cpu", None, "0"),
        ] {
            let selector = ResourceFieldSelector {
                resource: name.into(),
                divisor: divisor.map(|d| Quantity(d.into())),
                container_name: None,
            };
            assert_eq!(resource(&pod, &facts, &selector, Some("c")).unwrap(), expected, "{name}");
        }
    }
}
