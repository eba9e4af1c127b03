//! Ending containers: preStop hook, grace period, kill; and the last words of a container that ended.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::observed::{Life, Observed, PodRuntime};
use super::{PodExt, all_containers, hook, is_sidecar};
use crate::error::Error;
use crate::event::pod_reference;
use crate::host::Host;
use crate::probe::attempt::Target;

/// A hook may use up the grace period; the container still gets this much to end by itself.
const GRACE_AFTER_HOOK_MIN: Duration = Duration::from_secs(2);
/// Limits of a termination message, as upstream keeps them.
const MESSAGE_BYTES_MAX: u64 = 4096;
const LOG_TAIL_BYTES_MAX: u64 = 2048;
const LOG_TAIL_LINES_MAX: usize = 80;

/// Ends one container within its grace period. `why` is the text of the event.
pub(crate) async fn stop_container(
    host: &Host,
    pod: &Pod,
    observed: &Observed,
    pod_ip: Option<&str>,
    grace: Duration,
    why: &str,
) -> Result<(), Error> {
    let spec = all_containers(pod.podspec()).find(|(spec, _)| spec.name == observed.name);
    let init = spec.is_some_and(|(_, init)| init);
    let object = || pod_reference(pod, Some((&observed.name, init)));
    host.recorder.normal(object(), "Killing", why);
    let mut left = grace;
    let handler =
        spec.and_then(|(spec, _)| Some((spec, spec.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    if let Some((spec, handler)) =
        handler.filter(|_| observed.life == Life::Running && !grace.is_zero())
    {
        let begin = Instant::now();
        let target = Target {
            container_id: observed.id.clone(),
            pod_ip: pod_ip.and_then(|ip| ip.parse().ok()),
        };
        if let Err(error) = hook::run(&host.runtime, spec, handler, &target, grace).await {
            host.recorder.warning(
                object(),
                "FailedPreStopHook",
                format!("PreStopHook failed: {error}"),
            );
        }
        left = grace.saturating_sub(begin.elapsed()).max(GRACE_AFTER_HOOK_MIN);
    }
    host.runtime.stop_container(&observed.id, left).await
}

/// Ends all containers of a pod: main ones together, then sidecars last to first; then its sandboxes.
pub(crate) async fn stop_all(
    host: &Host,
    pod: &Pod,
    runtime: &PodRuntime,
    grace: Option<Duration>,
) -> Result<(), Error> {
    let deadline = grace.map(|grace| Instant::now() + grace);
    let pod_ip = runtime.sandboxes.first().and_then(|sandbox| sandbox.ips.first());
    let sidecars: Vec<&Container> =
        pod.podspec().init_containers.iter().flatten().filter(|c| is_sidecar(c)).collect();
    let is_sidecar_name = |name: &str| sidecars.iter().any(|sidecar| sidecar.name == name);
    let grace_of = |observed: &Observed| match deadline {
        Some(deadline) => deadline.saturating_duration_since(Instant::now()),
        None => grace_period(pod, observed),
    };
    let stop = |observed: &Observed| {
        let (observed, grace) = (observed.clone(), grace_of(observed));
        let why = format!("Stopping container {}", observed.name);
        async move {
            stop_container(host, pod, &observed, pod_ip.map(String::as_str), grace, &why).await
        }
    };
    let main = runtime.alive().filter(|observed| !is_sidecar_name(&observed.name));
    for result in join_all(main.map(stop)).await {
        result?;
    }
    for sidecar in sidecars.iter().rev() {
        for observed in runtime.alive().filter(|observed| observed.name == sidecar.name) {
            stop(observed).await?;
        }
    }
    for sandbox in runtime.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        host.runtime.stop_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// The grace period where no deletion gives one: the pod's, or what the container was made with.
pub(crate) fn grace_period(pod: &Pod, observed: &Observed) -> Duration {
    let asked = pod.podspec().termination_grace_period_seconds;
    let asked = asked.and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(asked.or(observed.grace_s).unwrap_or(30))
}

/// The last words of a container: its termination message file, or, where its policy says so and it
/// failed, the end of its log.
pub(crate) fn message(file: &Path, log: &Path, fall_back_to_log: bool, exit_code: i32) -> String {
    let words = beginning(file, MESSAGE_BYTES_MAX);
    if !words.is_empty() || !fall_back_to_log || exit_code == 0 {
        return words;
    }
    let lines = tail(log, LOG_TAIL_BYTES_MAX * 4);
    let text: Vec<String> = lines
        .lines()
        .filter_map(|line| crate::logs::line::parse(line.as_bytes()))
        .map(|line| String::from_utf8_lossy(line.content).into_owned())
        .collect();
    let begin = text.len().saturating_sub(LOG_TAIL_LINES_MAX);
    let text: String = text[begin..].iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    let limit = usize::try_from(LOG_TAIL_BYTES_MAX).unwrap_or(usize::MAX);
    let mut cut = text.len().saturating_sub(limit);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    text[cut..].to_owned()
}

fn beginning(path: &Path, bytes_max: u64) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

fn tail(path: &Path, bytes_max: u64) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}
