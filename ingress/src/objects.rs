//! The Kubernetes objects the ingress reads, in one form: old API versions are converted on the way in.
//!
//! Where objects come from is left to `source`, what they mean to `translate`.

pub mod ingress;
pub mod names;
pub mod service;
pub mod slice;
pub mod uid;

use crate::problem::Problem;
use ingress::Ingress;
use k8s_openapi::api::core::v1::{self as api, ConfigMap, Endpoints, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use service::Service;
use slice::{SERVICE_NAME_LABEL, Slice};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// What is read of the specification of a Service.
const SERVICE_FIELDS: [&str; 5] = ["type", "clusterIP", "externalName", "externalIPs", "ports"];
/// The whole object once more, as kubectl wrote it.
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Empty for objects without a namespace.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key from its two halves.
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> ObjectKey {
        let (namespace, name) = (names::shared(namespace.as_ref()), names::shared(name.as_ref()));
        ObjectKey { namespace, name }
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
    Service(ObjectKey, Arc<Service>),
    /// An EndpointSlice.
    EndpointSlice(ObjectKey, Arc<Slice>),
    /// An Endpoints object.
    Endpoints(Arc<Endpoints>),
    /// A Secret.
    Secret(Arc<Secret>),
    /// A ConfigMap.
    ConfigMap(Arc<ConfigMap>),
}

/// An object that came, read or not: it takes much less than the value it came as.
#[derive(Debug)]
pub struct Read {
    /// What it is said to be.
    pub kind: Kind,
    /// Which one.
    pub key: ObjectKey,
    object: Result<Option<Object>, ObjectError>,
}

impl Read {
    /// Reads one.
    pub fn of(kind: Kind, value: Value) -> Read {
        Read { kind, key: key_of_value(&value), object: Object::parse(value) }
    }
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
    /// The key of a ConfigMap.
    pub fn config_map_key(&self) -> Option<ObjectKey> {
        match self {
            Object::ConfigMap(object) => Some(ObjectKey::of(&object.metadata)),
            _ => None,
        }
    }

    /// A Service in the form of the API.
    pub fn of_service(service: &api::Service) -> Object {
        Object::Service(ObjectKey::of(&service.metadata), Arc::new(Service::of(service)))
    }

    /// An EndpointSlice in the form of the API.
    pub fn of_slice(slice: &EndpointSlice) -> Object {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or("default");
        // Nothing but the slice itself has its name.
        let name = slice.metadata.name.as_deref().unwrap_or_default().into();
        let key = ObjectKey { namespace: names::shared(namespace), name };
        Object::EndpointSlice(key, Arc::new(Slice::of(slice)))
    }

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
                Object::Ingress(Arc::new(Ingress::of(&typed("Ingress", value)?)))
            }
            ("networking.k8s.io", "IngressClass") => {
                Object::IngressClass(Arc::new(typed("IngressClass", value)?))
            }
            ("", "Service") => Object::of_service(&typed("Service", value)?),
            ("discovery.k8s.io", "EndpointSlice") => {
                Object::of_slice(&typed("EndpointSlice", value)?)
            }
            ("", "Endpoints") => Object::Endpoints(Arc::new(typed("Endpoints", value)?)),
            ("", "Secret") => Object::Secret(Arc::new(typed("Secret", value)?)),
            ("", "ConfigMap") => Object::ConfigMap(Arc::new(typed("ConfigMap", value)?)),
            _ => return Ok(None),
        }))
    }
}

fn typed<K: DeserializeOwned>(kind: &'static str, mut value: Value) -> Result<K, ObjectError> {
    let key = key_of_value(&value);
    if key.name.is_empty() {
        return Err(ObjectError::Missing("metadata.name"));
    }
    drop_unread_metadata(kind, &mut value);
    serde_json::from_value(value).map_err(|source| ObjectError::Shape { kind, key, source })
}

/// Drops what every object of a real cluster carries and nothing here reads: it takes more memory than
/// the rest, and changes more often.
fn drop_unread_metadata(kind: &str, value: &mut Value) {
    let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let is_ingress = kind == "Ingress";
    meta.retain(|field, _| match field.as_str() {
        "name" | "namespace" | "annotations" => true,
        "labels" => kind == "EndpointSlice",
        // An Event on an object names it, else kubectl does not show it there.
        "uid" => kind != "EndpointSlice",
        "creationTimestamp" => is_ingress,
        _ => false,
    });
    if let Some(labels) = meta.get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|name, _| name == SERVICE_NAME_LABEL);
    }
    if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
        let read = is_ingress || kind == "IngressClass";
        annotations.retain(|name, _| read && name != LAST_APPLIED_ANNOTATION);
    }
    if let Some(spec) = value.get_mut("spec").filter(|_| kind == "Service")
        && let Some(fields) = spec.as_object_mut()
    {
        fields.retain(|field, _| SERVICE_FIELDS.contains(&field.as_str()));
    }
}

/// The key of an object not yet read.
pub fn key_of_value(value: &Value) -> ObjectKey {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let namespace = text("/metadata/namespace");
    ObjectKey::new(if namespace.is_empty() { "default" } else { namespace }, text("/metadata/name"))
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

/// What is different in a [`World`] since that was last asked.
#[derive(Debug, Default)]
pub struct Touched {
    /// Ingresses.
    pub ingresses: BTreeSet<ObjectKey>,
    /// Some IngressClass.
    pub classes: bool,
    /// Services: themselves or their endpoints.
    pub services: BTreeSet<ObjectKey>,
    /// Secrets.
    pub secrets: BTreeSet<ObjectKey>,
    /// ConfigMaps.
    pub config_maps: BTreeSet<ObjectKey>,
    /// Objects that cannot be read.
    pub unreadable: bool,
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
    pub slices: BTreeMap<ObjectKey, Arc<Slice>>,
    /// Endpoints by the key of their Service; only files have them, an API mirrors them to slices.
    pub endpoints: BTreeMap<ObjectKey, Arc<Endpoints>>,
    /// Secrets.
    pub secrets: BTreeMap<ObjectKey, Arc<Secret>>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<ObjectKey, Arc<ConfigMap>>,
    /// Objects and files that could not be read.
    pub unreadable: BTreeMap<(Kind, ObjectKey), Problem>,
    /// Services and the names of their slices.
    slices_by_service: BTreeSet<(ObjectKey, Arc<str>)>,
    touched: Touched,
}

/// Adds or replaces an object; whether that makes a difference.
fn put<K: Ord, T: PartialEq>(objects: &mut BTreeMap<K, Arc<T>>, key: K, object: Arc<T>) -> bool {
    if objects.get(&key).is_some_and(|old| Arc::ptr_eq(old, &object) || **old == *object) {
        return false;
    }
    objects.insert(key, object);
    true
}

impl World {
    /// Adds or replaces an object.
    pub fn apply(&mut self, object: Object) {
        let touched = &mut self.touched;
        match object {
            Object::Ingress(o) => {
                let key = o.key.clone();
                if put(&mut self.ingresses, key.clone(), o) {
                    touched.ingresses.insert(key);
                }
            }
            Object::IngressClass(o) => {
                let name = o.metadata.name.clone().unwrap_or_default();
                touched.classes |= put(&mut self.classes, name, o);
            }
            Object::Service(key, o) => {
                if put(&mut self.services, key.clone(), o) {
                    touched.services.insert(key);
                }
            }
            Object::EndpointSlice(key, slice) => self.apply_slice(key, slice),
            Object::Endpoints(o) => {
                let key = ObjectKey::of(&o.metadata);
                if put(&mut self.endpoints, key.clone(), o) {
                    touched.services.insert(key);
                }
            }
            Object::Secret(o) => {
                let key = ObjectKey::of(&o.metadata);
                if put(&mut self.secrets, key.clone(), o) {
                    touched.secrets.insert(key);
                }
            }
            Object::ConfigMap(o) => {
                let key = ObjectKey::of(&o.metadata);
                if put(&mut self.config_maps, key.clone(), o) {
                    touched.config_maps.insert(key);
                }
            }
        }
    }

    fn apply_slice(&mut self, key: ObjectKey, slice: Arc<Slice>) {
        let service = slice.service.clone();
        if self.slices.get(&key).is_some_and(|old| old.service != service) {
            self.remove_slice(&key);
        }
        if put(&mut self.slices, key.clone(), slice)
            && let Some(service) = service
        {
            self.slices_by_service.insert((service.clone(), key.name));
            self.touched.services.insert(service);
        }
    }

    fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(service) = self.slices.remove(key).and_then(|old| old.service.clone()) else {
            return;
        };
        let entry = (service, key.name.clone());
        self.slices_by_service.remove(&entry);
        self.touched.services.insert(entry.0);
    }

    /// Takes an object as it came: one that cannot be read replaces its old form by a problem.
    pub fn apply_read(&mut self, Read { kind, key, object }: Read) {
        match object {
            Ok(Some(object)) => {
                self.apply(object);
                self.touched.unreadable |= self.unreadable.remove(&(kind, key)).is_some();
            }
            Ok(None) => self.remove(kind, &key),
            Err(error) => {
                self.remove(kind, &key);
                let problem = Problem::error(kind, &key, "", format!("cannot be read: {error}"));
                self.unreadable.insert((kind, key), problem);
                self.touched.unreadable = true;
            }
        }
    }

    /// Replaces everything.
    pub fn replace_all(&mut self, objects: Vec<Object>, problems: Vec<Problem>) {
        let mut old = std::mem::take(self);
        self.touched = std::mem::take(&mut old.touched);
        for object in objects {
            self.keep_old(&mut old, &object);
            self.apply(object);
        }
        for kind in ALL_KINDS {
            for key in old.keys(kind) {
                old.remove(kind, &key);
            }
        }
        let gone = old.take_touched();
        self.touched.ingresses.extend(gone.ingresses);
        self.touched.services.extend(gone.services);
        self.touched.services.extend(old.endpoints.into_keys());
        self.touched.secrets.extend(gone.secrets);
        self.touched.config_maps.extend(gone.config_maps);
        self.touched.classes |= gone.classes;
        self.touched.unreadable = true;
        for problem in problems {
            self.unreadable.insert((problem.kind, problem.object.clone()), problem);
        }
    }

    /// Moves what an object was before from the old world to this one, untouched.
    fn keep_old(&mut self, old: &mut World, object: &Object) {
        match object {
            Object::Ingress(o) => {
                take(&mut self.ingresses, &mut old.ingresses, o.key.clone());
            }
            Object::IngressClass(o) => {
                let name = o.metadata.name.clone().unwrap_or_default();
                take(&mut self.classes, &mut old.classes, name);
            }
            Object::Service(key, _) => {
                take(&mut self.services, &mut old.services, key.clone());
            }
            Object::EndpointSlice(key, _) => {
                let service = old.slices.get(key).and_then(|slice| slice.service.clone());
                if let Some(service) = service {
                    self.slices_by_service.insert((service, key.name.clone()));
                }
                take(&mut self.slices, &mut old.slices, key.clone());
            }
            Object::Endpoints(o) => {
                take(&mut self.endpoints, &mut old.endpoints, ObjectKey::of(&o.metadata))
            }
            Object::Secret(o) => {
                take(&mut self.secrets, &mut old.secrets, ObjectKey::of(&o.metadata))
            }
            Object::ConfigMap(o) => {
                take(&mut self.config_maps, &mut old.config_maps, ObjectKey::of(&o.metadata));
            }
        }
    }

    /// Packs the tables after many objects came at once: those that come in order leave every node of a
    /// tree half empty.
    pub fn pack(&mut self) {
        pack(&mut self.ingresses);
        pack(&mut self.services);
        pack(&mut self.slices);
        self.slices_by_service = std::mem::take(&mut self.slices_by_service).into_iter().collect();
    }

    /// Forgets an object.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        let touched = &mut self.touched;
        let removed = match kind {
            Kind::Ingress => self.ingresses.remove(key).map(|_| &mut touched.ingresses),
            Kind::IngressClass => {
                touched.classes |= self.classes.remove(&*key.name).is_some();
                None
            }
            Kind::Service => self.services.remove(key).map(|_| &mut touched.services),
            Kind::EndpointSlice => {
                self.remove_slice(key);
                None
            }
            Kind::Secret => self.secrets.remove(key).map(|_| &mut touched.secrets),
            Kind::ConfigMap => self.config_maps.remove(key).map(|_| &mut touched.config_maps),
            Kind::File => None,
        };
        if let Some(touched) = removed {
            touched.insert(key.clone());
        }
        self.touched.unreadable |= self.unreadable.remove(&(kind, key.clone())).is_some();
    }

    /// The endpoint slices of a Service, by name.
    pub fn slices_of<'a>(&'a self, service: &'a ObjectKey) -> impl Iterator<Item = &'a Arc<Slice>> {
        let first = (service.clone(), names::shared(""));
        let entries = self.slices_by_service.range(first..);
        let own = entries.take_while(move |(of, _)| of == service);
        own.filter_map(|(of, name)| {
            let key = ObjectKey { namespace: of.namespace.clone(), name: name.clone() };
            self.slices.get(&key)
        })
    }

    /// What is different since this was last asked.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
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

const ALL_KINDS: [Kind; 7] = [
    Kind::Ingress,
    Kind::IngressClass,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Secret,
    Kind::ConfigMap,
    Kind::File,
];

/// Makes a tree of full nodes.
pub fn pack<K: Ord, T>(objects: &mut BTreeMap<K, T>) {
    *objects = std::mem::take(objects).into_iter().collect();
}

fn take<K: Ord, T>(to: &mut BTreeMap<K, T>, from: &mut BTreeMap<K, T>, key: K) {
    if let Some(object) = from.remove(&key) {
        to.insert(key, object);
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
            let spec = json!({
                "defaultBackend": {"service": {"name": "fallback", "port": {"name": "web"}}},
                "rules": [{"http": {"paths": [{
                    "path": "/app", "pathType": "ImplementationSpecific",
                    "backend": {"service": {"name": "user-interface-svc", "port": {"number": 80}}},
                }]}}],
            });
            let now = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {"name": "ml-product-ingress"}, "spec": spec});
            assert_eq!(*read, *ingress(&now.to_string()));
        }
    }

    #[test]
    fn what_cannot_be_read_names_itself() {
        let value = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "bad", "namespace": "shop"}, "spec": {"rules": "none"}});
        let mut world = World::default();
        world.apply_read(Read::of(Kind::Ingress, value));
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
