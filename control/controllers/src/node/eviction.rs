//! When a pod has to leave a node because of NoExecute taints: pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

/// The time at which the taints of its node send a pod away; none when it may stay.
pub(super) fn evict_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let spec = pod.spec.as_ref();
    let tolerations = spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut at: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let Some(toleration) = tolerations.iter().find(|known| tolerates(known, taint)) else {
            return Some(now);
        };
        let Some(seconds) = toleration.toleration_seconds else { continue };
        let added = taint.time_added.as_ref().map_or(now, |added| added.0);
        let tolerated = SignedDuration::from_secs(seconds.max(0));
        let end = added.checked_add(tolerated).unwrap_or(Timestamp::MAX);
        at = Some(at.map_or(end, |at| at.min(end)));
    }
    at
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let (key, effect) = (toleration.key.as_deref(), toleration.effect.as_deref());
    let any = |text: Option<&str>| text.unwrap_or_default().is_empty();
    if !any(effect) && effect != Some(&taint.effect) {
        return false;
    }
    if !any(key) && key != Some(&taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            let value = |text: &Option<String>| text.clone().unwrap_or_default();
            !any(key) && value(&toleration.value) == value(&taint.value)
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_shortest_toleration_counts() {
        let taint = |key: &str, added_s: i64| Taint {
            key: key.to_owned(),
            effect: "NoExecute".to_owned(),
            value: None,
            time_added: Some(Time(Timestamp::from_second(added_s).unwrap())),
        };
        let for_a = |seconds: Value| json!({ "key": "a", "operator": "Exists", "tolerationSeconds": seconds });
        let for_b = json!({ "key": "b", "operator": "Equal", "tolerationSeconds": 5 });
        for (tolerations, taints, want) in [
            (vec![], vec![], None),
            (vec![], vec![taint("a", 100)], Some(1000)),
            (vec![for_a(json!(300))], vec![taint("a", 100)], Some(400)),
            (vec![for_a(Value::Null)], vec![taint("a", 100)], None),
            (
                vec![for_a(json!(300)), for_b.clone()],
                vec![taint("a", 100), taint("b", 200)],
                Some(205),
            ),
            (vec![for_a(json!(-1))], vec![taint("a", 100)], Some(100)),
            (vec![for_b], vec![taint("a", 100)], Some(1000)),
            (vec![json!({ "operator": "Exists" })], vec![taint("a", 100)], None),
            (
                vec![json!({ "operator": "Exists", "effect": "NoSchedule" })],
                vec![taint("a", 1)],
                Some(1000),
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": "p" },
                "spec": { "containers": [], "tolerations": tolerations },
            }))
            .unwrap();
            let now = Timestamp::from_second(1000).unwrap();
            let found = evict_at(&pod, &taints, now).map(Timestamp::as_second);
            assert_eq!(found, want, "{tolerations:?}");
        }
    }
}
