//! From resource requests and limits to what the kernel is told: quality of service class, OOM
//! score, CPU shares and quota, memory limit. The formulas are upstream's.

use std::collections::BTreeMap;

use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{PodExt, all_containers, is_sidecar};
use crate::cgroup::{CPU_PERIOD_US, PodLimits};
use crate::quantity;

const SHARES_PER_CPU: i64 = 1024;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const QUOTA_US_MIN: i64 = 1000;

/// Quality of service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut any = false;
        let mut guaranteed = true;
        for (container, _) in all_containers(pod.podspec()) {
            for resource in ["cpu", "memory"] {
                let request = requested(container, resource).filter(|q| quantity::milli(q) > 0);
                let limit = limited(container, resource).filter(|q| quantity::milli(q) > 0);
                any |= request.is_some() || limit.is_some();
                let equal = match (request, limit) {
                    (Some(request), Some(limit)) => {
                        quantity::milli(request) == quantity::milli(limit)
                    }
                    // The API defaults a request that is not given to the limit.
                    (None, Some(_)) => true,
                    _ => false,
                };
                guaranteed &= equal;
            }
        }
        match (any, guaranteed) {
            (false, _) => Self::BestEffort,
            (true, true) => Self::Guaranteed,
            (true, false) => Self::Burstable,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

fn entry<'a>(map: Option<&'a BTreeMap<String, Quantity>>, key: &str) -> Option<&'a Quantity> {
    map.and_then(|map| map.get(key))
}

pub(crate) fn requested<'a>(container: &'a Container, resource: &str) -> Option<&'a Quantity> {
    entry(container.resources.as_ref()?.requests.as_ref(), resource)
}

pub(crate) fn limited<'a>(container: &'a Container, resource: &str) -> Option<&'a Quantity> {
    entry(container.resources.as_ref()?.limits.as_ref(), resource)
}

/// CPU shares for so many thousandths of a CPU.
fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu * SHARES_PER_CPU / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// CPU time a period for so many thousandths of a CPU; `None`: as much as there is.
fn quota_us(milli_cpu: i64) -> Option<i64> {
    (milli_cpu > 0).then(|| (milli_cpu * CPU_PERIOD_US / 1000).max(QUOTA_US_MIN))
}

/// What the kernel's OOM killer adds to the container's badness.
fn oom_score_adj(pod: &Pod, container: &Container, machine_memory_bytes: u64) -> i64 {
    match Qos::of(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = requested(container, "memory").map_or(0, quantity::value);
            let memory = i64::try_from(machine_memory_bytes).unwrap_or(i64::MAX).max(1);
            let share = i64::try_from(i128::from(request) * 1000 / i128::from(memory));
            (1000 - share.unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// The resources of one container as CRI wants them.
pub(crate) fn of_container(
    pod: &Pod,
    container: &Container,
    machine_memory_bytes: u64,
) -> LinuxContainerResources {
    let cpu_limit = limited(container, "cpu").map_or(0, quantity::milli);
    let cpu_request = requested(container, "cpu").map_or(cpu_limit, quantity::milli);
    LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: quota_us(cpu_limit).unwrap_or(0),
        cpu_shares: shares(cpu_request),
        memory_limit_in_bytes: limited(container, "memory").map_or(0, quantity::value),
        oom_score_adj: oom_score_adj(pod, container, machine_memory_bytes),
        ..LinuxContainerResources::default()
    }
}

/// The limits of the pod's own cgroup: sums over its containers, a limit only where all have one.
pub(crate) fn of_pod(pod: &Pod) -> PodLimits {
    let cpu_request = effective(pod, |container| {
        let limit = limited(container, "cpu").map(quantity::milli);
        Some(requested(container, "cpu").map(quantity::milli).or(limit).unwrap_or(0))
    });
    let cpu_limit = effective(pod, |container| limited(container, "cpu").map(quantity::milli));
    let memory = effective(pod, |container| limited(container, "memory").map(quantity::value));
    PodLimits {
        cpu_shares: u64::try_from(shares(cpu_request.unwrap_or(0))).unwrap_or(2),
        cpu_quota_us: cpu_limit.and_then(quota_us),
        memory_bytes: memory.filter(|bytes| *bytes > 0),
    }
}

/// What a pod needs at most at one time: init containers run alone but beside earlier sidecars.
fn effective(pod: &Pod, of: impl Fn(&Container) -> Option<i64>) -> Option<i64> {
    let spec = pod.podspec();
    let mut sidecars = 0;
    let mut init_peak = 0;
    for container in spec.init_containers.iter().flatten() {
        let amount = of(container)?;
        if is_sidecar(container) {
            sidecars += amount;
            init_peak = init_peak.max(sidecars);
        } else {
            init_peak = init_peak.max(sidecars + amount);
        }
    }
    let main = spec.containers.iter().map(of).sum::<Option<i64>>()?;
    Some((main + sidecars).max(init_peak))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn classes_and_scores() {
        let none = pod(json!([{"name": "a"}]));
        let full = pod(json!([{"name": "a", "resources": {
            "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}}]));
        let some = pod(json!([{"name": "a", "resources": {"requests": {"memory": "256Mi"}}},
                              {"name": "b"}]));
        let gib4 = 4 << 30;
        for (pod, qos, score) in
            [(&none, "BestEffort", 1000), (&full, "Guaranteed", -997), (&some, "Burstable", 938)]
        {
            assert_eq!(Qos::of(pod).name(), qos);
            let container = &pod.podspec().containers[0];
            assert_eq!(of_container(pod, container, gib4).oom_score_adj, score);
        }
    }

    #[test]
    fn kernel_limits() {
        let two = pod(json!([
            {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}},
            {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}]));
        let limits = of_pod(&two);
        assert_eq!(limits.cpu_shares, 1536);
        assert_eq!(limits.cpu_quota_us, Some(150_000));
        assert_eq!(limits.memory_bytes, Some(128 << 20));
        let open = pod(json!([{"name": "a", "resources": {"limits": {"cpu": "500m"}}},
                              {"name": "b"}]));
        assert_eq!(of_pod(&open).cpu_quota_us, None, "one container has no limit");
        let a = of_container(&two, &two.podspec().containers[0], 1 << 30);
        assert_eq!((a.cpu_shares, a.cpu_quota), (512, 50_000));
    }
}
