//! A container's environment: `env`, `envFrom`, `$(VAR)` expansion and the service variables.
//! Pure: ConfigMaps, Secrets and Services come in as data.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Service};

use super::PodExt;
use super::fields::{self, NodeFacts};
use crate::error::Error;

/// Objects of a pod's namespace, by name; `None` where the API does not have one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Referenced {
    /// Values are text; `binaryData` is kept apart.
    pub(crate) config_maps: HashMap<String, Option<Data>>,
    pub(crate) secrets: HashMap<String, Option<Data>>,
}

/// The content of a ConfigMap or Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) entries: BTreeMap<String, Vec<u8>>,
}

/// The environment of a container in the order it is given to the runtime.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
    referenced: &Referenced,
    services: &[&Service],
) -> Result<Vec<(String, String)>, Error> {
    let links = pod.podspec().enable_service_links != Some(false);
    let service_variables = service_variables(pod.namespace(), links, services);
    let mut result = Ordered::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (kind, name, optional, map) = if let Some(reference) = &source.config_map_ref {
            ("configmap", &reference.name, reference.optional, &referenced.config_maps)
        } else if let Some(reference) = &source.secret_ref {
            ("secret", &reference.name, reference.optional, &referenced.secrets)
        } else {
            continue;
        };
        let Some(data) = map.get(name).and_then(Option::as_ref) else {
            if optional == Some(true) {
                continue;
            }
            return Err(Error::Object(format!("{kind} {name:?} not found")));
        };
        for (key, value) in &data.entries {
            result.set(format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
        }
    }
    // A reference sees service variables, envFrom and what stands above it.
    let mut visible: HashMap<String, String> = service_variables.iter().cloned().collect();
    visible.extend(result.pairs.iter().cloned());
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &visible)),
            Some(_) => from_source(pod, container, facts, referenced, variable)?,
        };
        if let Some(value) = value {
            visible.insert(variable.name.clone(), value.clone());
            result.set(variable.name.clone(), value);
        }
    }
    for (name, value) in service_variables {
        if !result.positions.contains_key(&name) {
            result.set(name, value);
        }
    }
    Ok(result.pairs)
}

fn from_source(
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
    referenced: &Referenced,
    variable: &EnvVar,
) -> Result<Option<String>, Error> {
    let Some(source) = &variable.value_from else { return Ok(None) };
    if let Some(selector) = &source.field_ref {
        return fields::field(pod, facts, &selector.field_path).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields::resource(pod, facts, selector, Some(&container.name)).map(Some);
    }
    let (kind, name, key, optional, map) = if let Some(key) = &source.config_map_key_ref {
        ("configmap", &key.name, &key.key, key.optional, &referenced.config_maps)
    } else if let Some(key) = &source.secret_key_ref {
        ("secret", &key.name, &key.key, key.optional, &referenced.secrets)
    } else {
        let name = &variable.name;
        return Err(Error::Object(format!("env {name}: this source is not supported")));
    };
    let Some(data) = map.get(name).and_then(Option::as_ref) else {
        if optional == Some(true) {
            return Ok(None);
        }
        return Err(Error::Object(format!("{kind} {name:?} not found")));
    };
    match data.entries.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => {
            let (kind, namespace) =
                (if kind == "secret" { "Secret" } else { "ConfigMap" }, pod.namespace());
            Err(Error::Object(format!("couldn't find key {key} in {kind} {namespace}/{name}")))
        }
    }
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar sign; an unknown name stays as it stands.
pub(crate) fn expand(text: &str, variables: &HashMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match variables.get(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

/// `{NAME}_SERVICE_HOST` and its kin, for the Services of the namespace and for `kubernetes`.
fn service_variables(namespace: &str, links: bool, services: &[&Service]) -> Vec<(String, String)> {
    let mut by_name: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let home = service.metadata.namespace.as_deref().unwrap_or_default();
        if home == "default" && name == "kubernetes" {
            by_name.entry(name).or_insert(service);
        } else if home == namespace && links {
            by_name.insert(name, service);
        }
    }
    by_name.iter().flat_map(|(name, service)| variables_of(name, service)).collect()
}

fn variables_of(name: &str, service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let Some(ports) = spec.ports.as_deref().filter(|ports| !ports.is_empty()) else {
        return Vec::new();
    };
    if ip.is_empty() || ip == "None" {
        return Vec::new();
    }
    let upper = |text: &str| text.to_uppercase().replace(['-', '.'], "_");
    let prefix = upper(name);
    let mut variables = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), ports[0].port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let key = format!("{prefix}_SERVICE_PORT_{}", upper(port_name));
            variables.push((key, port.port.to_string()));
        }
    }
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{host}:{}", port.port);
        if index == 0 {
            variables.push((format!("{prefix}_PORT"), url.clone()));
        }
        let stem = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.push((stem.clone(), url));
        variables.push((format!("{stem}_PROTO"), lower));
        variables.push((format!("{stem}_PORT"), port.port.to_string()));
        variables.push((format!("{stem}_ADDR"), ip.to_owned()));
    }
    variables
}

/// Pairs in order of first appearance; a later value of the same name replaces the earlier.
#[derive(Default)]
struct Ordered {
    pairs: Vec<(String, String)>,
    positions: HashMap<String, usize>,
}

impl Ordered {
    fn set(&mut self, name: String, value: String) {
        match self.positions.get(&name) {
            Some(position) => self.pairs[*position].1 = value,
            None => {
                self.positions.insert(name.clone(), self.pairs.len());
                self.pairs.push((name, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expansion() {
        let variables = HashMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    fn data(pairs: &[(&str, &str)]) -> Option<Data> {
        let entries =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        Some(Data { entries: entries.collect() })
    }

    #[test]
    fn sources_in_order_and_service_variables() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [{"name": "c",
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
                "env": [
                    {"name": "A", "value": "$(P_K)-$(WEB_SERVICE_HOST)"},
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    {"name": "O", "valueFrom": {"configMapKeyRef":
                        {"name": "none", "key": "k", "optional": true}}},
                    {"name": "A", "value": "[$(A)]"}]}]},
        }))
        .unwrap();
        let web: Service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}}))
        .unwrap();
        let mut referenced = Referenced::default();
        referenced.config_maps.insert("cm".into(), data(&[("K", "v")]));
        referenced.config_maps.insert("none".into(), None);
        referenced.secrets.insert("s".into(), data(&[("k", "hush")]));
        let container = &pod.podspec().containers[0];
        let facts = NodeFacts::default();
        let env = environment(&pod, container, &facts, &referenced, &[&web]).unwrap();
        let text: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        expect_test::expect![[r#"
            P_K=v
            A=[v-10.96.0.9]
            NAME=p
            S=hush
            WEB_SERVICE_HOST=10.96.0.9
            WEB_SERVICE_PORT=80
            WEB_SERVICE_PORT_HTTP=80
            WEB_PORT=tcp://10.96.0.9:80
            WEB_PORT_80_TCP=tcp://10.96.0.9:80
            WEB_PORT_80_TCP_PROTO=tcp
            WEB_PORT_80_TCP_PORT=80
            WEB_PORT_80_TCP_ADDR=10.96.0.9"#]]
        .assert_eq(&text.join("\n"));
        referenced.secrets.insert("s".into(), data(&[]));
        let error = environment(&pod, container, &facts, &referenced, &[]).unwrap_err();
        assert_eq!(error.to_string(), "couldn't find key k in Secret ns/s");
    }
}
