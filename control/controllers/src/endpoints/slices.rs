//! Lays endpoints into EndpointSlices with as few changes as possible: endpoints stay in the slice
//! they are in, new ones fill slices that change anyway, then the fullest slice with room, then new
//! slices. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::trigger_time;

/// Label: the Service of a slice.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label: who writes the slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of slices and Endpoints of Services without a cluster address.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Labels that are never copied to slices.
pub(super) fn is_reserved(label: &str) -> bool {
    matches!(label, SERVICE_NAME | MANAGED_BY | HEADLESS)
}

/// Whether a controller made this slice for a Service.
pub(super) fn is_of(slice: &EndpointSlice, service: &str, controller: &str) -> bool {
    let label = |name| slice.labels().get(name).map(String::as_str);
    slice.metadata.deletion_timestamp.is_none()
        && label(SERVICE_NAME) == Some(service)
        && label(MANAGED_BY) == Some(controller)
}

/// Endpoints of one family that serve the same ports.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) family: String,
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

impl Group {
    pub(super) fn new(family: &str, ports: Vec<EndpointPort>) -> Self {
        Self { family: family.to_owned(), ports, endpoints: Vec::new() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<(EndpointSlice, EndpointSlice)>,
    pub(super) delete: Vec<EndpointSlice>,
}

impl Changes {
    pub(super) fn removing(slices: Vec<EndpointSlice>) -> Self {
        Self { delete: slices, ..Self::default() }
    }

    /// Notes on whatever is written when the change happened that it is written for.
    pub(super) fn annotate(&mut self, trigger: Option<Timestamp>) {
        let updated = self.update.iter_mut().map(|(_, new)| new);
        for slice in self.create.iter_mut().chain(updated) {
            trigger_time::annotate(&mut slice.metadata, trigger);
        }
    }
}

/// `metadata` is that of new slices; the labels of known ones are brought to it too. A group without
/// endpoints keeps one empty slice.
pub(super) fn lay(
    metadata: &ObjectMeta,
    groups: Vec<Group>,
    mut slices: Vec<EndpointSlice>,
    slice_max: usize,
) -> Changes {
    let mut changes = Changes::default();
    for group in groups {
        let (kept, others) = slices.into_iter().partition(|slice| {
            slice.address_type == group.family
                && slice.ports.as_deref().unwrap_or_default() == group.ports
        });
        slices = others;
        lay_group(metadata, group, kept, slice_max, &mut changes);
    }
    changes.delete.extend(slices);
    changes
}

type Identity = (Option<String>, Vec<String>);

fn identity(endpoint: &Endpoint) -> Identity {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (uid, endpoint.addresses.clone())
}

struct Kept {
    old: EndpointSlice,
    new: EndpointSlice,
}

impl Kept {
    fn inside(&mut self) -> &mut Vec<Endpoint> {
        self.new.endpoints.get_or_insert_default()
    }

    fn room(&self, slice_max: usize) -> usize {
        slice_max.saturating_sub(self.new.endpoints.as_ref().map_or(0, Vec::len))
    }
}

fn lay_group(
    metadata: &ObjectMeta,
    group: Group,
    slices: Vec<EndpointSlice>,
    slice_max: usize,
    changes: &mut Changes,
) {
    let empty = group.endpoints.is_empty();
    let order: Vec<Identity> = group.endpoints.iter().map(identity).collect();
    let mut left: HashMap<Identity, Endpoint> =
        order.iter().cloned().zip(group.endpoints).collect();
    let mut kept: Vec<Kept> = slices
        .into_iter()
        .map(|old| {
            let mut new = old.clone();
            let known = new.endpoints.iter().flatten();
            let stays = known.filter_map(|known| left.remove(&identity(known))).collect();
            if new.endpoints.is_some() || !empty {
                new.endpoints = Some(stays);
            }
            new.metadata.labels.clone_from(&metadata.labels);
            Kept { old, new }
        })
        .collect();
    let mut rest: Vec<Endpoint> = order.iter().filter_map(|one| left.remove(one)).collect();
    for one in kept.iter_mut().filter(|one| one.new != one.old) {
        let room = one.room(slice_max).min(rest.len());
        one.inside().extend(rest.drain(..room));
    }
    if !rest.is_empty() && rest.len() < slice_max {
        let fitting =
            kept.iter_mut().filter(|one| one.new == one.old && one.room(slice_max) >= rest.len());
        if let Some(fullest) = fitting.min_by_key(|one| one.room(slice_max)) {
            fullest.inside().append(&mut rest);
        }
    }
    let mut placeholder = empty;
    for Kept { old, new } in kept {
        let vacant = new.endpoints.as_ref().is_none_or(Vec::is_empty);
        if vacant && !placeholder {
            changes.delete.push(old);
            continue;
        }
        placeholder &= !vacant;
        if old != new {
            changes.update.push((old, new));
        }
    }
    let chunks = rest.chunks(slice_max).map(<[Endpoint]>::to_vec);
    for endpoints in chunks.chain(placeholder.then(Vec::new)) {
        changes.create.push(EndpointSlice {
            metadata: metadata.clone(),
            address_type: group.family.clone(),
            endpoints: Some(endpoints),
            ports: Some(group.ports.clone()),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn endpoints(numbers: Range<u32>) -> Vec<Endpoint> {
        let one = |number: u32| Endpoint {
            addresses: vec![std::net::Ipv4Addr::from(number).to_string()],
            ..Endpoint::default()
        };
        numbers.map(one).collect()
    }

    fn slice(name: &str, numbers: Range<u32>) -> EndpointSlice {
        let endpoints = Some(endpoints(numbers));
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        EndpointSlice { metadata, address_type: "IPv4".to_owned(), endpoints, ports: None }
    }

    #[test]
    fn few_changes() {
        let size = |slice: &EndpointSlice| slice.endpoints.as_ref().map_or(0, Vec::len);
        for (what, slices, wanted, expected) in [
            ("new", vec![], 0..250, "+100 +100 +50"),
            ("same", vec![slice("a", 0..100), slice("b", 100..150)], 0..150, ""),
            ("one more", vec![slice("a", 0..90), slice("b", 90..120)], 0..121, "a=91"),
            ("one fewer", vec![slice("a", 0..100), slice("b", 100..150)], 1..150, "a=99"),
            ("one replaced", vec![slice("a", 0..100), slice("b", 100..150)], 1..151, "a=100"),
            ("too many for the gaps", vec![slice("a", 0..90)], 0..110, "+20"),
            ("slice empty", vec![slice("a", 0..100), slice("b", 100..101)], 0..100, "-b"),
            ("all gone", vec![slice("a", 0..100), slice("b", 100..101)], 0..0, "-b a=0"),
            ("placeholder", vec![], 0..0, "+0"),
            ("placeholder stays", vec![slice("a", 0..0)], 0..0, ""),
            ("placeholder filled", vec![slice("a", 0..0)], 0..1, "a=1"),
        ] {
            let mut group = Group::new("IPv4", Vec::new());
            group.endpoints = endpoints(wanted);
            let changes = lay(&ObjectMeta::default(), vec![group], slices, 100);
            let create = changes.create.iter().map(|new| format!("+{}", size(new)));
            let delete = changes.delete.iter().map(|old| format!("-{}", old.name_any()));
            let update = changes.update.iter();
            let update = update.map(|(old, new)| format!("{}={}", old.name_any(), size(new)));
            let all: Vec<String> = create.chain(delete).chain(update).collect();
            assert_eq!(all.join(" "), expected, "{what}");
        }
    }
}
