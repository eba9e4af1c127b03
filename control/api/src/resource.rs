//! The kinds that are served: their names, versions, scopes and subresources, one descriptor each.
//! What the fields of a kind mean is in the modules named after that question.

/// A kind of object and how it is served.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// The version objects are stored in, and defaulted and validated in.
    pub storage_version: &'static str,
    /// The versions served, preferred first.
    pub versions: &'static [&'static str],
    /// As in `kind:`.
    pub kind: &'static str,
    /// As in paths.
    pub plural: &'static str,
    /// As kubectl prints it.
    pub singular: &'static str,
    /// What kubectl accepts instead, such as `deploy`.
    pub short_names: &'static [&'static str],
    /// Groups of kinds such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects lie in a namespace.
    pub namespaced: bool,
    /// The subresources served.
    pub subresources: &'static [Subresource],
}

/// A part of an object, or an action on it, with a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// `status`: what controllers report; its own write scope.
    Status,
    /// `scale`: replicas as an `autoscaling/v1` Scale.
    Scale,
    /// `binding`: a Pod is given its node.
    Binding,
    /// `eviction`: a Pod is asked to leave.
    Eviction,
    /// `log`: the output of a container.
    Log,
    /// `token`: a token of a ServiceAccount.
    Token,
    /// `finalize`: the finalizers in a Namespace's spec.
    Finalize,
}

impl Subresource {
    /// As in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Token => "token",
            Self::Finalize => "finalize",
        }
    }

    /// The kind its bodies have, as `(group, version, kind)`; `None`: the kind of the object itself.
    pub fn kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Status | Self::Finalize | Self::Log => None,
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
        }
    }

    /// The verbs it accepts, as discovery lists them.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale => &["get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Log => &["get"],
            Self::Finalize => &["update"],
        }
    }
}

/// The verbs every resource accepts, as discovery lists them.
pub const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Resource {
    /// `v1`, `apps/v1`, …: what objects of this kind carry as `apiVersion` in that version.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// `pods`, `deployments.apps`, …: how messages name the resource.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The kind of a list of these.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// The resource whose objects these are: itself, but for events, which are one set of objects
    /// under two groups.
    pub fn stored_as(&'static self) -> &'static Resource {
        let stored = (self.group == "events.k8s.io").then(|| find_kind("", "Event")).flatten();
        stored.unwrap_or(self)
    }

    /// Whether this subresource is served.
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The subresource of this name, if it is served.
    pub fn subresource(&self, name: &str) -> Option<Subresource> {
        self.subresources.iter().copied().find(|subresource| subresource.name() == name)
    }
}

/// Every kind, in the order discovery lists them.
pub fn all() -> &'static [Resource] {
    RESOURCES
}

/// The resource at a path, if that version of it is served.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|resource| {
        resource.group == group && resource.plural == plural && resource.versions.contains(&version)
    })
}

/// The resource of a kind, in whatever version.
pub fn find_kind(group: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|resource| resource.group == group && resource.kind == kind)
}

use Subresource::{Binding, Eviction, Finalize, Log, Scale, Status, Token};

const V1: &[&str] = &["v1"];

/// What most kinds are: namespaced, served and stored as `v1`, with no other names.
const NAMESPACED: Resource = Resource {
    group: "",
    storage_version: "v1",
    versions: V1,
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
};

const CLUSTER: Resource = Resource { namespaced: false, ..NAMESPACED };

const RESOURCES: &[Resource] = &[
    Resource {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        ..NAMESPACED
    },
    Resource {
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        ..NAMESPACED
    },
    Resource {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        ..NAMESPACED
    },
    Resource {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        subresources: &[Finalize, Status],
        ..CLUSTER
    },
    Resource {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        subresources: &[Status],
        ..CLUSTER
    },
    Resource {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &[Binding, Eviction, Log, Status],
        ..NAMESPACED
    },
    Resource { kind: "Secret", plural: "secrets", singular: "secret", ..NAMESPACED },
    Resource {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        subresources: &[Token],
        ..NAMESPACED
    },
    Resource {
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[Status],
        ..NAMESPACED
    },
    Resource {
        group: "apps",
        versions: &["v1", "v1beta1"],
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[Scale, Status],
        ..NAMESPACED
    },
    Resource {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[Scale, Status],
        ..NAMESPACED
    },
    Resource {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        categories: &["all"],
        subresources: &[Status],
        ..NAMESPACED
    },
    Resource {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        ..NAMESPACED
    },
    Resource {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        ..NAMESPACED
    },
    // The same objects as core events, seen through the newer kind; kept once, as core/v1.
    Resource {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        ..NAMESPACED
    },
    Resource {
        group: "networking.k8s.io",
        versions: &["v1", "v1beta1"],
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short_names: &["ing"],
        subresources: &[Status],
        ..NAMESPACED
    },
    Resource {
        group: "networking.k8s.io",
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        ..CLUSTER
    },
    Resource {
        group: "networking.k8s.io",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        singular: "servicecidr",
        subresources: &[Status],
        ..CLUSTER
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_leads_to_one_resource() {
        let mut seen = HashSet::new();
        for resource in all() {
            assert!(resource.versions.contains(&resource.storage_version), "{}", resource.kind);
            for version in resource.versions {
                assert!(seen.insert((resource.group, *version, resource.plural)));
                assert_eq!(find(resource.group, version, resource.plural), Some(resource));
            }
            assert_eq!(find_kind(resource.group, resource.kind), Some(resource));
        }
        assert_eq!(find("apps", "v2", "deployments"), None);
    }

    #[test]
    fn names_are_as_messages_have_them() {
        let deployment = find("apps", "v1beta1", "deployments").unwrap();
        assert_eq!(deployment.group_resource(), "deployments.apps");
        assert_eq!(deployment.api_version("v1"), "apps/v1");
        assert_eq!(find_kind("", "Pod").unwrap().api_version("v1"), "v1");
        assert_eq!(deployment.subresource("scale"), Some(Subresource::Scale));
        assert_eq!(deployment.subresource("log"), None);
        let event = find_kind("events.k8s.io", "Event").unwrap();
        assert_eq!(event.stored_as().group, "");
        assert_eq!(deployment.stored_as(), deployment);
    }
}
