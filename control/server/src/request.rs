//! What a request asks for, read from its path and query alone.

use std::collections::BTreeMap;

use http::Method;
use podium_api::resource::{self, Resource};

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A path outside the API groups, such as `/healthz` or `/openapi/v3`.
    Other,
    /// `/api`, `/apis`, `/api/v1`, `/apis/apps`, `/apis/apps/v1`: what there is.
    Discovery(DiscoveryPath),
    /// Objects.
    Objects(ObjectsPath),
    /// Something like objects, of a kind or group that is not served.
    Unknown,
}

/// Which discovery document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DiscoveryPath {
    /// `/api`
    Core,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/v1` or `/apis/<group>/<version>`
    Version(String, String),
}

/// Which objects.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct ObjectsPath {
    pub(crate) resource: &'static Resource,
    pub(crate) version: &'static str,
    /// Empty for cluster-scoped objects and for all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// Reviews, which are posted and answered but never stored.
const REVIEWS: &[(&str, &str)] = &[
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// Whether a path is that of a review, and of which.
pub(crate) fn review(path: &str) -> Option<&'static str> {
    let mut segments = path.trim_start_matches('/').split('/');
    let (Some("apis"), Some(group), Some("v1"), Some(plural), None) =
        (segments.next(), segments.next(), segments.next(), segments.next(), segments.next())
    else {
        return None;
    };
    REVIEWS.iter().find(|review| **review == (group, plural)).map(|(_, plural)| *plural)
}

/// Reads a path. Segments are percent-decoded.
pub(crate) fn target(path: &str) -> Target {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty()).map(decode);
    let (group, version) = match segments.next().as_deref() {
        Some("api") => match segments.next() {
            None => return Target::Discovery(DiscoveryPath::Core),
            Some(version) => (String::new(), version),
        },
        Some("apis") => match (segments.next(), segments.next()) {
            (None, _) => return Target::Discovery(DiscoveryPath::Groups),
            (Some(group), None) => return Target::Discovery(DiscoveryPath::Group(group)),
            (Some(group), Some(version)) => (group, version),
        },
        _ => return Target::Other,
    };
    let rest: Vec<String> = segments.collect();
    if rest.is_empty() {
        return Target::Discovery(DiscoveryPath::Version(group, version));
    }
    objects(&group, &version, &rest).map_or(Target::Unknown, Target::Objects)
}

fn objects(group: &str, version: &str, rest: &[String]) -> Option<ObjectsPath> {
    // `namespaces/x` and its own subresources are about the Namespace; anything longer, or another
    // word after it, is about what lies in it.
    let (namespace, rest) = match rest {
        [first, namespace, kind, ..]
            if first == "namespaces" && !(group.is_empty() && of_namespace(kind)) =>
        {
            (namespace.as_str(), &rest[2..])
        }
        _ => ("", rest),
    };
    let (plural, rest) = rest.split_first()?;
    let resource = resource::find(group, version, plural)?;
    let version = resource.versions.iter().find(|served| **served == version)?;
    let (name, subresource) = match rest {
        [] => (None, None),
        [name] => (Some(name.clone()), None),
        [name, subresource] => (Some(name.clone()), Some(subresource.clone())),
        _ => return None,
    };
    // A namespaced object has a namespace, and a cluster-scoped one has none.
    let fits = if resource.namespaced {
        name.is_none() || !namespace.is_empty()
    } else {
        namespace.is_empty()
    };
    fits.then(|| ObjectsPath {
        resource,
        version,
        namespace: namespace.to_owned(),
        name,
        subresource,
    })
}

fn of_namespace(word: &str) -> bool {
    matches!(word, "status" | "finalize")
}

fn decode(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    // The query decoder takes `+` for a space, which a path does not.
    let protected = format!("x={}", segment.replace('+', "%2B"));
    form_urlencoded::parse(protected.as_bytes())
        .next()
        .map_or_else(|| segment.to_owned(), |(_, value)| value.into_owned())
}

/// The query parameters of a request.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    /// A parameter that is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a parameter is there, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A boolean the way Go's clients write and its servers read it.
    pub(crate) fn flag(&self, name: &str) -> bool {
        match self.0.get(name).map(String::as_str) {
            None | Some("0" | "false" | "False" | "FALSE") => false,
            Some(_) => true,
        }
    }

    /// A whole number, or what is wrong with it.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, String> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    format!("strconv.ParseInt: parsing \"{text}\": invalid syntax ({name})")
                })
            })
            .transpose()
    }
}

/// The verb of a request, as metrics and authorization name it.
pub(crate) fn verb(method: &Method, path: &ObjectsPath, query: &Query) -> &'static str {
    match (method.as_str(), path.name.is_some()) {
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) if query.flag("watch") => "watch",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<String> {
        match target(text) {
            Target::Objects(path) => Some(format!(
                "{} {} ns={} name={} sub={}",
                path.resource.plural,
                path.version,
                path.namespace,
                path.name.unwrap_or_default(),
                path.subresource.unwrap_or_default()
            )),
            _ => None,
        }
    }

    #[test]
    fn object_paths() {
        for (text, want) in [
            ("/api/v1/pods", Some("pods v1 ns= name= sub=")),
            ("/api/v1/namespaces", Some("namespaces v1 ns= name= sub=")),
            ("/api/v1/namespaces/a", Some("namespaces v1 ns= name=a sub=")),
            ("/api/v1/namespaces/a/finalize", Some("namespaces v1 ns= name=a sub=finalize")),
            ("/api/v1/namespaces/a/pods", Some("pods v1 ns=a name= sub=")),
            ("/api/v1/namespaces/a/pods/b/log", Some("pods v1 ns=a name=b sub=log")),
            ("/api/v1/namespaces/a/events/b%2Bc", Some("events v1 ns=a name=b+c sub=")),
            (
                "/apis/apps/v1beta1/namespaces/a/deployments/d/scale",
                Some("deployments v1beta1 ns=a name=d sub=scale"),
            ),
            ("/api/v1/pods/b", None),
            ("/api/v1/namespaces/a/nodes/b", None),
            ("/apis/apps/v1/widgets", None),
            ("/api/v1/namespaces/a/pods/b/log/c", None),
        ] {
            assert_eq!(path(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn other_paths() {
        assert_eq!(target("/healthz"), Target::Other);
        assert_eq!(target("/api"), Target::Discovery(DiscoveryPath::Core));
        assert_eq!(target("/apis/"), Target::Discovery(DiscoveryPath::Groups));
        let version = DiscoveryPath::Version("apps".to_owned(), "v1".to_owned());
        assert_eq!(target("/apis/apps/v1"), Target::Discovery(version));
        assert_eq!(target("/apis/apps/v1/widgets"), Target::Unknown);
    }
}
