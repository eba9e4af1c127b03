//! When that happened which slices and Endpoints are written for: the annotation from which proxies
//! measure how long a change takes to reach the kernel. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

/// Annotation: the time of the earliest change that led to this write.
pub(super) const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What was known of a Service and its pods when their endpoints were last written.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    created: Option<Timestamp>,
    /// When each pod last became ready or ceased to be.
    pods: HashMap<String, Timestamp>,
}

/// The earliest change since `seen`, and what is to be remembered of this look. Of a Service not
/// seen before it is the Service's creation. None if nothing that has a time changed.
pub(super) fn trigger<'a>(
    seen: Option<&Seen>,
    service: &Service,
    pods: impl Iterator<Item = &'a Arc<Pod>>,
) -> (Option<Timestamp>, Seen) {
    let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let transitions = pods.filter_map(|pod| Some((pod.name_any(), transition(pod)?)));
    let now = Seen { created, pods: transitions.collect() };
    let Some(seen) = seen else { return (created, now) };
    let later = |time: &Timestamp, before: Option<&Timestamp>| before.is_none_or(|old| time > old);
    let pods = now.pods.iter().filter(|(name, time)| later(time, seen.pods.get(*name)));
    let service = created.iter().filter(|time| later(time, seen.created.as_ref()));
    let first = pods.map(|(_, time)| time).chain(service).min().copied();
    (first, now)
}

fn transition(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Notes the time on an object that is about to be written; what an earlier write noted goes.
pub(super) fn annotate(metadata: &mut ObjectMeta, trigger: Option<Timestamp>) {
    if let Some(time) = trigger {
        let annotations = metadata.annotations.get_or_insert_with(BTreeMap::new);
        annotations.insert(ANNOTATION.to_owned(), time.to_string());
    } else if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(ANNOTATION);
        if annotations.is_empty() {
            metadata.annotations = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A Service of age `created` and its pods, as (name, second of the last change of readiness).
    fn look(
        seen: Option<&Seen>,
        created: u8,
        pods: &[(&str, Option<u8>)],
    ) -> (Option<String>, Seen) {
        let at = |second: u8| format!("2026-01-01T00:00:{second:02}Z");
        let service = json!({"metadata": {"name": "web", "creationTimestamp": at(created)}});
        let pod = |(name, second): &(&str, Option<u8>)| {
            let mut pod = json!({"metadata": {"name": name}});
            if let Some(second) = second {
                let ready =
                    json!({"type": "Ready", "status": "True", "lastTransitionTime": at(*second)});
                pod["status"]["conditions"] = json!([ready]);
            }
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let pods: Vec<Arc<Pod>> = pods.iter().map(pod).collect();
        let service = serde_json::from_value(service).unwrap();
        let (first, now) = trigger(seen, &service, pods.iter());
        (first.map(|time| time.to_string()), now)
    }

    #[test]
    fn the_earliest_change_since_the_last_look() {
        let first = [("a", Some(10)), ("b", Some(12)), ("c", None)];
        let (time, seen) = look(None, 5, &first);
        assert_eq!(time.as_deref(), Some("2026-01-01T00:00:05Z"), "a new Service: its creation");
        for (what, created, pods, expected) in [
            ("nothing", 5, &first[..], None),
            ("a pod less", 5, &first[..1], None),
            ("readiness", 5, &[("a", Some(20)), ("b", Some(12))], Some("20")),
            ("two of them", 5, &[("a", Some(21)), ("b", Some(20)), ("c", None)], Some("20")),
            ("a pod more", 5, &[("a", Some(10)), ("d", Some(30))], Some("30")),
            ("made anew", 40, &[("a", Some(50))], Some("40")),
        ] {
            let (time, _) = look(Some(&seen), created, pods);
            let expected = expected.map(|second| format!("2026-01-01T00:00:{second}Z"));
            assert_eq!(time, expected, "{what}");
        }
    }

    #[test]
    fn the_annotation_is_of_this_write() {
        let mut metadata = ObjectMeta::default();
        annotate(&mut metadata, "2026-01-01T00:00:05.25Z".parse().ok());
        assert_eq!(metadata.annotations.as_ref().unwrap()[ANNOTATION], "2026-01-01T00:00:05.25Z");
        annotate(&mut metadata, None);
        assert_eq!(metadata, ObjectMeta::default());
    }
}
