//! What a failed pod means for its Job: `spec.podFailurePolicy` (KEP-3329).

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

/// The verdict on one failed pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts towards the back-off limit.
    Count,
    /// It does not count, and is replaced.
    Ignore,
    /// Its index is not tried again.
    FailIndex,
    /// The Job fails at once, with this message.
    FailJob(String),
}

/// The first rule that takes the pod decides; without one the pod counts.
pub(super) fn judge(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (position, rule) in rules.enumerate() {
        let Some(why) = taken_by(rule, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "Count" => return Verdict::Count,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => return Verdict::FailIndex,
            "FailJob" => {
                let message = format!("{why} matching FailJob rule at index {position}");
                return Verdict::FailJob(message);
            }
            // An action of a later release: upstream looks at the next rule.
            _ => {}
        }
    }
    Verdict::Count
}

/// Why the rule takes the pod, in the words of the Job's condition.
fn taken_by(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(requirement) = &rule.on_exit_codes {
        let (container, code) = exit_code(requirement, pod)?;
        return Some(format!("Container {container} for pod {name} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let kind = condition(patterns, pod)?;
    Some(format!("Pod {name} has condition {kind}"))
}

fn exit_code<'a>(
    requirement: &PodFailurePolicyOnExitCodesRequirement,
    pod: &'a Pod,
) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let statuses = status.container_statuses.iter().flatten();
    let all = statuses.chain(status.init_container_statuses.iter().flatten());
    let named = |container: &&ContainerStatus| {
        requirement.container_name.as_ref().is_none_or(|name| *name == container.name)
    };
    all.filter(named).find_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let listed = requirement.values.contains(&code);
        let taken = match requirement.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        // A container that succeeded never makes a pod fail.
        (code != 0 && taken).then_some((container.name.as_str(), code))
    })
}

fn condition<'a>(
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
    pod: &'a Pod,
) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let found = conditions.into_iter().find(|condition| {
        patterns.iter().any(|pattern| {
            pattern.type_ == condition.type_
                && pattern.status.as_deref().unwrap_or("True") == condition.status
        })
    });
    found.map(|condition| condition.type_.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules() {
        let spec: JobSpec = serde_json::from_value(json!({
            "template": {},
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
                {"action": "Ignore", "onExitCodes":
                    {"containerName": "side", "operator": "NotIn", "values": [1]}},
                {"action": "Count", "onExitCodes": {"operator": "In", "values": [7]}},
                {"action": "FailJob", "onPodConditions": [{"type": "Broken", "status": "True"}]},
            ]},
        }))
        .unwrap();
        let fail = |text: &str| Verdict::FailJob(text.to_owned());
        let cases = [
            ("main", 1, "Ready", Verdict::Count),
            ("main", 7, "Broken", Verdict::Count),
            ("main", 42, "DisruptionTarget", Verdict::Ignore),
            ("side", 2, "Ready", Verdict::Ignore),
            ("side", 0, "Ready", Verdict::Count),
            (
                "main",
                42,
                "Ready",
                fail(
                    "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1",
                ),
            ),
            (
                "main",
                1,
                "Broken",
                fail("Pod ns/p has condition Broken matching FailJob rule at index 4"),
            ),
        ];
        for (container, code, kind, verdict) in cases {
            let pod = json!({
                "metadata": {"namespace": "ns", "name": "p"},
                "status": {
                    "conditions": [{"type": kind, "status": "True"}],
                    "containerStatuses": [{
                        "name": container, "image": "", "imageID": "", "ready": false,
                        "restartCount": 0, "state": {"terminated": {"exitCode": code}},
                    }],
                },
            });
            let pod = serde_json::from_value(pod).unwrap();
            assert_eq!(judge(&spec, &pod), verdict, "{container} {code} {kind}");
        }
    }
}
