//! The handlers about pods: their list, and the logs of a container.

use axum::body::Body;
use axum::extract::{Path, Query, State as Extracted};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::json;
use tokio::sync::mpsc;

use super::State;
use crate::logs::read::{self, Options};
use crate::pod::container_config::log_path;
use crate::pod::sandbox_config::log_directory_name;
use crate::pod::{PodExt, all_containers};

/// Pieces of log on their way to a slow client.
const QUEUE_LENGTH: usize = 8;

/// `GET /pods`: the pods of this node with their latest status.
pub(super) async fn pods(Extracted(state): Extracted<State>) -> Response {
    let items: Vec<Pod> = state
        .registry
        .list()
        .into_iter()
        .map(|entry| {
            let status = entry.shared.status().or_else(|| entry.pod.status.clone());
            Pod { status, ..Pod::clone(&entry.pod) }
        })
        .collect();
    axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
        .into_response()
}

/// `GET /containerLogs/{namespace}/{pod}/{container}`.
pub(super) async fn logs(
    Extracted(state): Extracted<State>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(options): Query<Options>,
) -> Response {
    let Some(entry) = state.registry.find(&namespace, &pod) else {
        return refusal(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist"));
    };
    let status = entry.shared.status().unwrap_or_default();
    let restart_count = match choose(&entry.pod, &status, &container, options.previous) {
        Ok(restart_count) => restart_count,
        Err((code, why)) => return refusal(code, why),
    };
    let dir = state.host.config.logs_dir().join(log_directory_name(&entry.pod));
    let path = dir.join(log_path(&container, restart_count));
    if !path.is_file() {
        let why = format!("the log of container {container:?} in pod {pod:?} is not there");
        return refusal(StatusCode::NOT_FOUND, why);
    }
    let (to, from) = mpsc::channel(QUEUE_LENGTH);
    let is_running = move || {
        let status = entry.shared.status().unwrap_or_default();
        status_of(&status, &container).is_some_and(|status| {
            status.restart_count == i32::try_from(restart_count).unwrap_or(i32::MAX)
                && status.state.as_ref().is_some_and(|state| state.running.is_some())
        })
    };
    tokio::spawn(read::send(path, options, is_running, to));
    let parts =
        stream::unfold(from, |mut from| async { from.recv().await.map(|part| (part, from)) });
    ([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(parts)).into_response()
}

fn refusal(code: StatusCode, why: String) -> Response {
    (code, format!("{why}\n")).into_response()
}

fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container)
}

/// Which run of a container is meant, with upstream's messages where there is none.
fn choose(
    pod: &Pod,
    status: &PodStatus,
    container: &str,
    previous: bool,
) -> Result<u32, (StatusCode, String)> {
    let refuse = |why: String| Err((StatusCode::BAD_REQUEST, why));
    let name = pod.name();
    if !all_containers(pod.podspec()).any(|(spec, _)| spec.name == container) {
        return refuse(format!("container {container:?} in pod {name:?} is not available"));
    }
    let Some(status) = status_of(status, container) else {
        return refuse(format!("container {container:?} in pod {name:?} is not available"));
    };
    let latest = u32::try_from(status.restart_count).unwrap_or(0);
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    if previous {
        // While the next run waits, the latest one is the previous one.
        return match (last, state.waiting.is_some()) {
            (None, _) => refuse(format!(
                "previous terminated container {container:?} in pod {name:?} not found"
            )),
            (Some(_), true) => Ok(latest),
            (Some(_), false) => Ok(latest.saturating_sub(1)),
        };
    }
    match state.waiting {
        Some(waiting) if last.is_none() => {
            let reason = waiting.reason.unwrap_or_default();
            let why = if ["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()) {
                "trying and failing to pull image".to_owned()
            } else {
                reason
            };
            refuse(format!("container {container:?} in pod {name:?} is waiting to start: {why}"))
        }
        _ => Ok(latest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_chosen_as_upstream_does() {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}),
        )
        .unwrap();
        let run = json!({"running": {}});
        let creating = json!({"waiting": {"reason": "ContainerCreating"}});
        let crash = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let ended = json!({"terminated": {"exitCode": 1}});
        for (state, last, count, previous, expected) in [
            (&run, json!({}), 0, false, "0"),
            (&run, ended.clone(), 2, false, "2"),
            (&run, ended.clone(), 2, true, "1"),
            (&crash, ended, 2, true, "2"),
            (&crash, json!({"terminated": {"exitCode": 1}}), 2, false, "2"),
            (
                &run,
                json!({}),
                0,
                true,
                "previous terminated container \"c\" in pod \"p\" not found",
            ),
            (
                &creating,
                json!({}),
                0,
                false,
                "container \"c\" in pod \"p\" is waiting to start: ContainerCreating",
            ),
        ] {
            let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": count,
                "state": state, "lastState": last}]}))
            .unwrap();
            let got = match choose(&pod, &status, "c", previous) {
                Ok(count) => count.to_string(),
                Err((_, why)) => why,
            };
            assert_eq!(got, expected);
        }
    }
}
