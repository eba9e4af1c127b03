//! The Kubernetes objects the ingress reads, in one form: old API versions are converted on the way in.
//!
//! Where objects come from is left to `source`, what they mean to `translate`.

use crate::problem::Problem;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Empty for objects without a namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectKey {
    /// A key from its two halves.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> ObjectKey {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object; a missing namespace is `default`, as for kubectl.
    pub fn of(meta: &ObjectMeta) -> ObjectKey {
        ObjectKey::new(
            meta.namespace.as_deref().unwrap_or("default"),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The kinds the ingress watches, and the files it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// networking.k8s.io Ingress.
    Ingress,
    /// networking.k8s.io IngressClass.
    IngressClass,
    /// core Service.
    Service,
    /// discovery.k8s.io EndpointSlice.
    EndpointSlice,
    /// core Secret, only those named by an Ingress or a flag.
    Secret,
    /// core ConfigMap, likewise.
    ConfigMap,
    /// A manifest file.
    File,
}

impl Kind {
    /// The name as in `kind:`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Ingress => "Ingress",
            Kind::IngressClass => "IngressClass",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Secret => "Secret",
            Kind::ConfigMap => "ConfigMap",
            Kind::File => "File",
        }
    }
}

/// One object of a kind the ingress reads.
#[derive(Clone, Debug)]
pub enum Object {
    /// An Ingress, of any API version.
    Ingress(Arc<Ingress>),
    /// An IngressClass.
    IngressClass(Arc<IngressClass>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// An Endpoints object.
    Endpoints(Arc<Endpoints>),
    /// A Secret.
    Secret(Arc<Secret>),
    /// A ConfigMap.
    ConfigMap(Arc<ConfigMap>),
}

/// Why a value is not an object.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// Something every object has is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The object does not have the shape of its kind.
    #[error("{kind} {key}: {source}")]
    Shape {
        /// Its kind.
        kind: &'static str,
        /// Which object.
        key: ObjectKey,
        /// What does not fit.
        source: serde_json::Error,
    },
}

impl Object {
    /// Reads an object of any API version; `None` for kinds the ingress has no use for.
    pub fn parse(mut value: Value) -> Result<Option<Object>, ObjectError> {
        let text =
            |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if kind.is_empty() {
            return Err(ObjectError::Missing("kind"));
        }
        if api_version.is_empty() {
            return Err(ObjectError::Missing("apiVersion"));
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Ok(Some(match (group, kind.as_str()) {
            ("networking.k8s.io" | "extensions", "Ingress") => {
                if api_version != "networking.k8s.io/v1" {
                    convert_old_ingress(&mut value);
                }
                Object::Ingress(typed("Ingress", value)?)
            }
            ("networking.k8s.io", "IngressClass") => {
                Object::IngressClass(typed("IngressClass", value)?)
            }
            ("", "Service") => Object::Service(typed("Service", value)?),
            ("discovery.k8s.io", "EndpointSlice") => {
                Object::EndpointSlice(typed("EndpointSlice", value)?)
            }
            ("", "Endpoints") => Object::Endpoints(typed("Endpoints", value)?),
            ("", "Secret") => Object::Secret(typed("Secret", value)?),
            ("", "ConfigMap") => Object::ConfigMap(typed("ConfigMap", value)?),
            _ => return Ok(None),
        }))
    }
}

fn typed<K: DeserializeOwned>(kind: &'static str, mut value: Value) -> Result<Arc<K>, ObjectError> {
    let key = key_of_value(&value);
    if key.name.is_empty() {
        return Err(ObjectError::Missing("metadata.name"));
    }
    if let Some(fields) = value.as_object_mut() {
        // Every object of a real cluster carries it, nothing here reads it.
        fields
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
            .map(|meta| meta.remove("managedFields"));
    }
    serde_json::from_value(value).map(Arc::new).map_err(|source| ObjectError::Shape {
        kind,
        key,
        source,
    })
}

/// The key of an object not yet read.
pub fn key_of_value(value: &Value) -> ObjectKey {
    let text = |pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string()
    };
    let namespace = text("/metadata/namespace");
    ObjectKey::new(
        if namespace.is_empty() { "default".into() } else { namespace },
        text("/metadata/name"),
    )
}

/// Rewrites `extensions/v1beta1` and `networking.k8s.io/v1beta1` to the v1 shape, in place.
fn convert_old_ingress(ingress: &mut Value) {
    ingress["apiVersion"] = json!("networking.k8s.io/v1");
    let Some(spec) = ingress.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(mut backend) = spec.remove("backend") {
        convert_old_backend(&mut backend);
        spec.insert("defaultBackend".into(), backend);
    }
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten();
    let paths = rules.filter_map(|rule| rule.pointer_mut("/http/paths")?.as_array_mut()).flatten();
    for path in paths.filter_map(Value::as_object_mut) {
        if path.get("pathType").is_none_or(Value::is_null) {
            path.insert("pathType".into(), json!("ImplementationSpecific"));
        }
        if let Some(backend) = path.get_mut("backend") {
            convert_old_backend(backend);
        }
    }
}

fn convert_old_backend(backend: &mut Value) {
    let Some(fields) = backend.as_object_mut() else {
        return;
    };
    let Some(name) = fields.remove("serviceName") else {
        return;
    };
    let mut service = Map::from_iter([("name".to_string(), name)]);
    if let Some(port) = fields.remove("servicePort") {
        let by = if port.is_number() { "number" } else { "name" };
        service.insert("port".into(), json!({ by: port }));
    }
    fields.insert("service".into(), Value::Object(service));
}

/// All objects known at one moment.
#[derive(Debug, Default)]
pub struct World {
    /// Ingresses of every class.
    pub ingresses: BTreeMap<ObjectKey, Arc<Ingress>>,
    /// Ingress classes by name.
    pub classes: BTreeMap<String, Arc<IngressClass>>,
    /// Services.
    pub services: BTreeMap<ObjectKey, Arc<Service>>,
    /// Endpoint slices by their own key.
    pub slices: BTreeMap<ObjectKey, Arc<EndpointSlice>>,
    /// Endpoints by the key of their Service; only files have them, an API mirrors them to slices.
    pub endpoints: BTreeMap<ObjectKey, Arc<Endpoints>>,
    /// Secrets.
    pub secrets: BTreeMap<ObjectKey, Arc<Secret>>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<ObjectKey, Arc<ConfigMap>>,
    /// Objects and files that could not be read.
    pub unreadable: BTreeMap<(Kind, ObjectKey), Problem>,
}

impl World {
    /// Adds or replaces an object.
    pub fn apply(&mut self, object: Object) {
        match object {
            Object::Ingress(o) => drop(self.ingresses.insert(ObjectKey::of(&o.metadata), o)),
            Object::IngressClass(o) => {
                drop(self.classes.insert(ObjectKey::of(&o.metadata).name, o))
            }
            Object::Service(o) => drop(self.services.insert(ObjectKey::of(&o.metadata), o)),
            Object::EndpointSlice(o) => drop(self.slices.insert(ObjectKey::of(&o.metadata), o)),
            Object::Endpoints(o) => drop(self.endpoints.insert(ObjectKey::of(&o.metadata), o)),
            Object::Secret(o) => drop(self.secrets.insert(ObjectKey::of(&o.metadata), o)),
            Object::ConfigMap(o) => drop(self.config_maps.insert(ObjectKey::of(&o.metadata), o)),
        }
    }

    /// Takes an object as it came: one that cannot be read replaces its old form by a problem.
    pub fn apply_value(&mut self, kind: Kind, value: Value) {
        let key = key_of_value(&value);
        self.remove(kind, &key);
        match Object::parse(value) {
            Ok(Some(object)) => self.apply(object),
            Ok(None) => {}
            Err(error) => {
                let problem = Problem::error(kind, &key, "", format!("cannot be read: {error}"));
                self.unreadable.insert((kind, key), problem);
            }
        }
    }

    /// Forgets an object.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        match kind {
            Kind::Ingress => drop(self.ingresses.remove(key)),
            Kind::IngressClass => drop(self.classes.remove(&key.name)),
            Kind::Service => drop(self.services.remove(key)),
            Kind::EndpointSlice => drop(self.slices.remove(key)),
            Kind::Secret => drop(self.secrets.remove(key)),
            Kind::ConfigMap => drop(self.config_maps.remove(key)),
            Kind::File => {}
        }
        self.unreadable.remove(&(kind, key.clone()));
    }

    /// The keys of all objects of a kind, readable or not.
    pub fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        let broken = self.unreadable.keys().filter(|(k, _)| *k == kind).map(|(_, key)| key.clone());
        let mut keys: Vec<ObjectKey> = match kind {
            Kind::Ingress => self.ingresses.keys().cloned().collect(),
            Kind::IngressClass => {
                self.classes.keys().map(|name| ObjectKey::new("default", name)).collect()
            }
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.keys().cloned().collect(),
            Kind::Secret => self.secrets.keys().cloned().collect(),
            Kind::ConfigMap => self.config_maps.keys().cloned().collect(),
            Kind::File => Vec::new(),
        };
        keys.extend(broken);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingress(yaml: &str) -> Arc<Ingress> {
        match Object::parse(serde_saphyr::from_str(yaml).unwrap()).unwrap() {
            Some(Object::Ingress(ingress)) => ingress,
            other => panic!("not an Ingress: {other:?}"),
        }
    }

    /// The Ingress of the users' own picture, as it stands there.
    #[test]
    fn the_old_forms_become_v1() {
        for version in ["networking.k8s.io/v1beta1", "extensions/v1beta1"] {
            let read = ingress(&format!(
                "apiVersion: {version}\nkind: Ingress\nmetadata:\n  name: ml-product-ingress\nspec:\n  \
                 backend: {{serviceName: fallback, servicePort: web}}\n  rules:\n  - http:\n      paths:\n      \
                 - path: /app\n        backend:\n          serviceName: user-interface-svc\n          servicePort: 80\n"
            ));
            let spec = serde_json::to_value(read.spec.as_ref().unwrap()).unwrap();
            assert_eq!(
                spec,
                json!({
                    "defaultBackend": {"service": {"name": "fallback", "port": {"name": "web"}}},
                    "rules": [{"http": {"paths": [{
                        "path": "/app", "pathType": "ImplementationSpecific",
                        "backend": {"service": {"name": "user-interface-svc", "port": {"number": 80}}},
                    }]}}],
                })
            );
        }
    }

    #[test]
    fn what_cannot_be_read_names_itself() {
        let value = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "bad", "namespace": "shop"}, "spec": {"rules": "none"}});
        let mut world = World::default();
        world.apply_value(Kind::Ingress, value);
        assert!(world.ingresses.is_empty());
        let problem = world.unreadable.values().next().unwrap().to_string();
        assert!(
            problem.starts_with("Ingress shop/bad: cannot be read: Ingress shop/bad:"),
            "{problem}"
        );
    }

    #[test]
    fn other_kinds_are_none_of_ours() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
        assert!(Object::parse(pod).unwrap().is_none());
        assert!(Object::parse(json!({"apiVersion": "v1"})).is_err());
    }
}
