//! `events.k8s.io/v1` Event: the same object as a core Event, under other names.

use serde_json::Value;

use super::{Direction, rename};

/// The name in core/v1, which is stored, and the name in events.k8s.io/v1.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

pub(super) fn v1(event: &mut Value, direction: Direction) {
    if let Some(event) = event.as_object_mut() {
        for (core, newer) in NAMES {
            rename(event, core, newer, direction);
        }
    }
}
