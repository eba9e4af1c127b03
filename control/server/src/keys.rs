//! Where objects lie in the store: `/registry/<group>/<plural>/[<namespace>/]<name>`.

/// The key of one object; the namespace is empty for cluster-scoped ones.
pub(crate) fn object(group: &str, plural: &str, namespace: &str, name: &str) -> String {
    format!("{}{name}", collection(group, plural, namespace))
}

/// The prefix of all objects of a kind, in one namespace or (empty) in all.
pub(crate) fn collection(group: &str, plural: &str, namespace: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    if namespace.is_empty() {
        format!("/registry/{group}/{plural}/")
    } else {
        format!("/registry/{group}/{plural}/{namespace}/")
    }
}
