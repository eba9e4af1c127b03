//! How far a rollout may stray from the number of replicas asked for.

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Replicas asked for, and how many more or fewer there may be for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) desired: i32,
    /// Pods above `desired`.
    pub(super) surge: i32,
    /// Pods of `desired` that need not be available.
    pub(super) unavailable: i32,
    /// No new pod before the last old one is gone.
    pub(super) recreate: bool,
}

impl Limits {
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let desired = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("Recreate") {
            return Self { desired, surge: 0, unavailable: 0, recreate: true };
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let surge = resolve(rolling.max_surge.as_ref(), desired, true);
        let mut unavailable = resolve(rolling.max_unavailable.as_ref(), desired, false);
        // Validation refuses two zeros, but small numbers of percent round to them.
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self { desired, surge, unavailable: unavailable.min(desired), recreate: false }
    }
}

fn resolve(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(count)) => return *count,
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(0),
        None => 25,
    };
    let product = i64::from(total) * percent;
    let count = if up { (product + 99) / 100 } else { product / 100 };
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits() {
        for (replicas, rolling, surge, unavailable) in [
            (10, json!({}), 3, 2),
            (10, json!({"maxSurge": 4, "maxUnavailable": 0}), 4, 0),
            (10, json!({"maxSurge": "15%", "maxUnavailable": "19%"}), 2, 1),
            (1, json!({}), 1, 0),
            (3, json!({"maxSurge": 0, "maxUnavailable": "10%"}), 0, 1),
            (2, json!({"maxSurge": 0, "maxUnavailable": 5}), 0, 2),
            (0, json!({}), 0, 0),
        ] {
            let spec = json!({"replicas": replicas, "selector": {}, "template": {},
                "strategy": {"rollingUpdate": rolling}});
            let spec = serde_json::from_value(spec).unwrap();
            let limits = Limits { desired: replicas, surge, unavailable, recreate: false };
            assert_eq!(Limits::of(&spec), limits, "{rolling}");
        }
    }
}
