//! What is read of an Ingress. There are thousands of them in memory: in the form of the API each would
//! take some kilobytes.

use super::uid::Uid;
use super::{ObjectKey, names};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1 as api;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// An Ingress.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ingress {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Option<Uid>,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// `metadata.annotations`.
    pub annotations: Annotations,
    /// `spec.ingressClassName`.
    pub class_name: Option<Arc<str>>,
    /// `spec.defaultBackend`.
    pub default_backend: Option<Box<IngressBackend>>,
    /// `spec.rules`.
    pub rules: Box<[Rule]>,
    /// `spec.tls`.
    pub tls: Box<[TlsSection]>,
    /// `status.loadBalancer.ingress`.
    pub addresses: Box<[StatusAddress]>,
}

/// The rules of a host.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The host in lower case; empty for none.
    pub host: Arc<str>,
    /// Its paths.
    pub paths: Box<[Path]>,
}

/// A path of a rule.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// As it is written; empty for none.
    pub text: Arc<str>,
    /// As it is written.
    pub path_type: Arc<str>,
    /// Where its requests go.
    pub backend: IngressBackend,
}

/// A Service and one of its ports.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct IngressBackend {
    /// The name of the Service; `None` for another resource.
    pub service: Option<Arc<str>>,
    /// Which of its ports.
    pub port: BackendPort,
}

/// A port as an Ingress names it.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub enum BackendPort {
    /// Not at all: the first one.
    #[default]
    First,
    /// By its number.
    Number(i32),
    /// By its name.
    Name(Arc<str>),
}

/// A section of `spec.tls`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TlsSection {
    /// The hosts it is for.
    pub hosts: Box<[Arc<str>]>,
    /// The name of the Secret, unless empty.
    pub secret: Option<Arc<str>>,
}

/// An address in the status.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum StatusAddress {
    /// An address of IP.
    Ip(Arc<str>),
    /// A name, or neither.
    Hostname(Option<Arc<str>>),
}

impl Ingress {
    /// Takes what is read of one.
    pub fn of(ingress: &api::Ingress) -> Ingress {
        let meta = &ingress.metadata;
        let spec = ingress.spec.as_ref();
        let rules = spec.into_iter().flat_map(|spec| spec.rules.iter().flatten());
        let tls = spec.into_iter().flat_map(|spec| spec.tls.iter().flatten());
        let default_backend = spec.and_then(|spec| spec.default_backend.as_ref());
        let class_name = spec.and_then(|spec| spec.ingress_class_name.as_deref());
        let status = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let addresses = status.into_iter().flat_map(|status| status.ingress.iter().flatten());
        Ingress {
            key: ObjectKey::of(meta),
            uid: meta.uid.as_deref().map(Uid::of),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            annotations: Annotations::of(meta.annotations.as_ref()),
            class_name: class_name.map(names::shared),
            default_backend: default_backend.map(|backend| Box::new(IngressBackend::of(backend))),
            rules: rules.map(Rule::of).collect(),
            tls: tls.map(TlsSection::of).collect(),
            addresses: addresses.map(StatusAddress::of).collect(),
        }
    }

    /// The same for all that asks for the same, whatever its status.
    pub fn request_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.uid, &self.annotations, &self.class_name).hash(&mut hasher);
        (&self.default_backend, &self.rules, &self.tls).hash(&mut hasher);
        hasher.finish()
    }
}

impl Rule {
    fn of(rule: &api::IngressRule) -> Rule {
        let host = rule.host.as_deref().unwrap_or_default();
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        Rule {
            host: names::shared(&host.to_ascii_lowercase()),
            paths: paths.map(Path::of).collect(),
        }
    }
}

impl Path {
    fn of(path: &api::HTTPIngressPath) -> Path {
        Path {
            text: names::shared(path.path.as_deref().unwrap_or_default()),
            path_type: names::shared(&path.path_type),
            backend: IngressBackend::of(&path.backend),
        }
    }
}

impl IngressBackend {
    fn of(backend: &api::IngressBackend) -> IngressBackend {
        let Some(service) = &backend.service else {
            return IngressBackend::default();
        };
        let port = service.port.as_ref();
        let port = match port.map(|port| (port.number, port.name.as_deref())) {
            Some((Some(number), _)) => BackendPort::Number(number),
            Some((None, Some(name))) => BackendPort::Name(names::shared(name)),
            _ => BackendPort::First,
        };
        IngressBackend { service: Some(names::shared(&service.name)), port }
    }
}

impl BackendPort {
    /// Number or name; empty for the first port.
    pub fn text(&self) -> Arc<str> {
        match self {
            BackendPort::First => names::shared(""),
            BackendPort::Number(number) => names::shared(&number.to_string()),
            BackendPort::Name(name) => name.clone(),
        }
    }

    /// Whether that is its text.
    pub fn is(&self, text: &str) -> bool {
        match self {
            BackendPort::First => text.is_empty(),
            BackendPort::Number(number) => text.parse() == Ok(*number),
            BackendPort::Name(name) => **name == *text,
        }
    }
}

impl TlsSection {
    fn of(section: &api::IngressTLS) -> TlsSection {
        let secret = section.secret_name.as_deref().filter(|name| !name.is_empty());
        TlsSection {
            hosts: section.hosts.iter().flatten().map(|host| names::shared(host)).collect(),
            secret: secret.map(names::shared),
        }
    }
}

impl StatusAddress {
    fn of(address: &api::IngressLoadBalancerIngress) -> StatusAddress {
        match (&address.ip, &address.hostname) {
            (Some(ip), _) => StatusAddress::Ip(names::shared(ip)),
            (None, name) => StatusAddress::Hostname(name.as_deref().map(names::shared)),
        }
    }
}

/// Annotations, sorted by name.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Annotations(Box<[(Arc<str>, Arc<str>)]>);

impl Annotations {
    fn of(written: Option<&BTreeMap<String, String>>) -> Annotations {
        let written = written.into_iter().flatten();
        Annotations(written.map(|(n, value)| (names::shared(n), names::shared(value))).collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&Arc<str>> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }
}

impl FromIterator<(String, String)> for Annotations {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(written: T) -> Annotations {
        Annotations::of(Some(&written.into_iter().collect()))
    }
}
