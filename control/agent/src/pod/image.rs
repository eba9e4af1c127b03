//! Making sure that a container's image is on the node, by its pull policy, with back-off between
//! pulls that fail. Reasons, messages and events are upstream's.

use jiff::Timestamp;
use k8s_cri::v1::Image;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::memory::Waiting;
use super::worker::Shared;
use crate::event::pod_reference;
use crate::host::Host;

/// The policy the API defaults to, where it was not defaulted.
fn policy(spec: &Container) -> &str {
    let image = spec.image.as_deref().unwrap_or_default();
    match spec.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if crate::archives::normalized(image).ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// The image, pulled if it has to be; otherwise why the container has to wait.
pub(crate) async fn ensure(
    host: &Host,
    shared: &Shared,
    pod: &Pod,
    spec: &Container,
    init: bool,
) -> Result<Image, Waiting> {
    let name = spec.image.as_deref().unwrap_or_default();
    let object = || pod_reference(pod, Some((&spec.name, init)));
    let present = host.runtime.image(name).await.map_err(|error| {
        let message = format!("Failed to inspect image {name:?}: {error}");
        host.recorder.warning(object(), "InspectFailed", &message);
        Waiting { reason: "ImageInspectError", message }
    })?;
    let policy = policy(spec);
    let fresh = policy != "Always" || host.archives.supply(name);
    if let Some(image) = present.filter(|_| fresh) {
        let message = format!("Container image {name:?} already present on machine");
        host.recorder.normal(object(), "Pulled", message);
        return Ok(image);
    }
    if policy == "Never" {
        let message = format!("Container image {name:?} is not present with pull policy of Never");
        host.recorder.warning(object(), "ErrImageNeverPull", &message);
        return Err(Waiting { reason: "ErrImageNeverPull", message });
    }
    pull(host, shared, pod, spec, init).await
}

async fn pull(
    host: &Host,
    shared: &Shared,
    pod: &Pod,
    spec: &Container,
    init: bool,
) -> Result<Image, Waiting> {
    let name = spec.image.as_deref().unwrap_or_default();
    let object = || pod_reference(pod, Some((&spec.name, init)));
    let key = format!("pull/{name}");
    let last = shared.memory().pull_failures.get(name).cloned();
    if let Some((at, error)) = last {
        let held = shared.memory().backoff.remaining(&key, at, Timestamp::now());
        if held.is_some() {
            let message = format!("Back-off pulling image {name:?}");
            host.recorder.normal(object(), "BackOff", &message);
            host.recorder.warning(object(), "Failed", "Error: ImagePullBackOff");
            let message = format!("{message}: ErrImagePull: {error}");
            return Err(Waiting { reason: "ImagePullBackOff", message });
        }
    }
    host.recorder.normal(object(), "Pulling", format!("Pulling image {name:?}"));
    let begin = std::time::Instant::now();
    let pulled = match host.runtime.pull_image(name).await {
        Ok(()) => host.runtime.image(name).await,
        Err(error) => Err(error),
    };
    match pulled {
        Ok(Some(image)) => {
            let took = begin.elapsed().as_millis();
            host.recorder.normal(
                object(),
                "Pulled",
                format!(
                    "Successfully pulled image {name:?} in {took}ms ({took}ms including waiting). \
                     Image size: {} bytes.",
                    image.size
                ),
            );
            let mut memory = shared.memory();
            memory.pull_failures.remove(name);
            memory.backoff.clear(&key);
            Ok(image)
        }
        failed => {
            let error = match failed {
                Err(error) => error.to_string(),
                Ok(_) => format!("image {name:?} was pulled and is not there"),
            };
            let now = Timestamp::now();
            let mut memory = shared.memory();
            memory.backoff.attempt(&key, now, now);
            memory.pull_failures.insert(name.to_owned(), (now, error.clone()));
            drop(memory);
            host.recorder.warning(
                object(),
                "Failed",
                format!("Failed to pull image {name:?}: {error}"),
            );
            host.recorder.warning(object(), "Failed", "Error: ErrImagePull");
            Err(Waiting { reason: "ErrImagePull", message: error })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_policy_follows_the_tag() {
        for (image, given, expected) in [
            ("a", None, "Always"),
            ("a:latest", None, "Always"),
            ("a:1", None, "IfNotPresent"),
            ("r:5000/a", None, "Always"),
            ("a:1", Some("Never"), "Never"),
        ] {
            let spec = Container {
                image: Some(image.to_owned()),
                image_pull_policy: given.map(str::to_owned),
                ..Container::default()
            };
            assert_eq!(policy(&spec), expected, "{image}");
        }
    }
}
