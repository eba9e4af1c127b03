//! The phase of a pod from the states of its containers. Pure; the rules are upstream's `getPhase`.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::{PodExt, RestartPolicy, is_sidecar};

#[derive(Default)]
struct Count {
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
    unknown: usize,
}

/// The phase. `ending`: nothing of the pod will be started any more.
pub(crate) fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    ending: bool,
) -> &'static str {
    let (mut init_pending, mut init_failed) = (false, false);
    for container in pod.podspec().init_containers.iter().flatten() {
        let status = init.iter().find(|status| status.name == container.name);
        let state = status.and_then(|status| status.state.as_ref());
        if is_sidecar(container) {
            init_pending |= status.is_none_or(|status| status.started != Some(true));
            continue;
        }
        match state.and_then(|state| state.terminated.as_ref()) {
            Some(terminated) if terminated.exit_code == 0 => {}
            Some(_) => init_failed = true,
            None => {
                let last =
                    status.and_then(|status| status.last_state.as_ref()?.terminated.as_ref());
                init_failed |= last.is_some_and(|terminated| terminated.exit_code != 0)
                    && state.is_some_and(|state| state.waiting.is_some());
                init_pending = true;
            }
        }
    }
    let count = count(pod, main);
    let all_began = count.waiting == 0 && count.unknown == 0;
    let never = pod.restart_policy() == RestartPolicy::Never;
    if init_failed && (never || ending) {
        return "Failed";
    }
    if (init_pending || init_failed) && !all_began {
        return if ending { "Failed" } else { "Pending" };
    }
    if count.waiting > 0 {
        return if ending { "Failed" } else { "Pending" };
    }
    if count.running > 0 && count.unknown == 0 {
        return "Running";
    }
    if count.stopped > 0 && count.unknown == 0 {
        let all_succeeded = count.stopped == count.succeeded;
        return match pod.restart_policy() {
            _ if ending => {
                if all_succeeded {
                    "Succeeded"
                } else {
                    "Failed"
                }
            }
            RestartPolicy::Always => "Running",
            _ if all_succeeded => "Succeeded",
            RestartPolicy::Never => "Failed",
            RestartPolicy::OnFailure => "Running",
        };
    }
    "Pending"
}

fn count(pod: &Pod, main: &[ContainerStatus]) -> Count {
    let mut count = Count::default();
    for container in &pod.podspec().containers {
        let status = main.iter().find(|status| status.name == container.name);
        let Some(state) = status.and_then(|status| status.state.as_ref()) else {
            count.unknown += 1;
            continue;
        };
        if state.running.is_some() {
            count.running += 1;
        } else if let Some(terminated) = &state.terminated {
            count.stopped += 1;
            count.succeeded += usize::from(terminated.exit_code == 0);
        } else if state.waiting.is_some() {
            let last = status.and_then(|status| status.last_state.as_ref());
            if last.is_some_and(|last| last.terminated.is_some()) {
                count.stopped += 1;
            } else {
                count.waiting += 1;
            }
        } else {
            count.unknown += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn statuses(states: &[(&str, Value)]) -> Vec<ContainerStatus> {
        let status = |(name, state): &(&str, Value)| {
            let (state, last) = match state.get("last") {
                Some(last) => (json!({"waiting": {}}), json!({"terminated": {"exitCode": last}})),
                None => (state.clone(), json!({})),
            };
            serde_json::from_value(json!({"name": name, "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": state, "lastState": last}))
            .unwrap()
        };
        states.iter().map(status).collect()
    }

    #[test]
    fn phases() {
        let run = json!({"running": {}});
        let wait = json!({"waiting": {}});
        let exit = |code: i32| json!({"terminated": {"exitCode": code}});
        let crash = json!({"last": 1});
        let cases: Vec<(&str, Vec<Value>, bool, &str)> = vec![
            ("Always", vec![run.clone(), wait.clone()], false, "Pending"),
            ("Always", vec![run.clone(), run.clone()], false, "Running"),
            ("Always", vec![run.clone(), crash.clone()], false, "Running"),
            ("Always", vec![crash.clone(), crash], false, "Running"),
            ("Always", vec![exit(0), exit(0)], false, "Running"),
            ("Always", vec![exit(0), exit(0)], true, "Succeeded"),
            ("Always", vec![exit(0), exit(137)], true, "Failed"),
            ("Never", vec![exit(0), exit(0)], false, "Succeeded"),
            ("Never", vec![exit(0), exit(1)], false, "Failed"),
            ("Never", vec![exit(1), run], false, "Running"),
            ("OnFailure", vec![exit(0), exit(1)], false, "Running"),
            ("OnFailure", vec![exit(0), exit(0)], false, "Succeeded"),
            ("Always", vec![wait.clone(), wait], true, "Failed"),
        ];
        for (policy, states, ending, expected) in cases {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
                "restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}}))
            .unwrap();
            let main = statuses(&[("a", states[0].clone()), ("b", states[1].clone())]);
            assert_eq!(phase(&pod, &[], &main, ending), expected, "{policy} {states:?} {ending}");
        }
    }

    #[test]
    fn init_containers_hold_the_phase() {
        for (policy, state, expected) in [
            ("Always", json!({"running": {}}), "Pending"),
            ("Always", json!({"terminated": {"exitCode": 1}}), "Pending"),
            ("Never", json!({"terminated": {"exitCode": 1}}), "Failed"),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
                "restartPolicy": policy, "initContainers": [{"name": "i"}],
                "containers": [{"name": "a"}]}}))
            .unwrap();
            let init = statuses(&[("i", state)]);
            let main = statuses(&[("a", json!({"waiting": {}}))]);
            assert_eq!(phase(&pod, &init, &main, false), expected, "{policy}");
        }
    }
}
