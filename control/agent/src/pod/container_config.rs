//! The CRI configuration of a container. Pure: environment, mounts and image come in resolved.

use std::collections::HashMap;
use std::path::Path;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use super::actions::container_hash;
use super::observed::key;
use super::{PodExt, env, resources, sandbox_config};
use crate::config::Config;
use crate::cri::image_spec;
use crate::error::Error;

/// Where a container's last words are read from by default.
const TERMINATION_PATH: &str = "/dev/termination-log";
/// What of /proc and /sys containers do not see, and what they may not write: `procMount: Default`.
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What was found out before a container can be described.
pub(crate) struct Resolved<'a> {
    pub(crate) config: &'a Config,
    pub(crate) machine_memory_bytes: u64,
    pub(crate) pod: &'a Pod,
    pub(crate) spec: &'a Container,
    pub(crate) restart_count: u32,
    pub(crate) image: &'a cri::Image,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) mounts: Vec<cri::Mount>,
}

/// The path of a container's last words inside it.
pub(crate) fn termination_path(spec: &Container) -> &str {
    spec.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or(TERMINATION_PATH)
}

/// Where a container's log lies below its pod's log folder.
pub(crate) fn log_path(container: &str, restart_count: u32) -> String {
    format!("{container}/{restart_count}.log")
}

/// The container as CRI wants it.
pub(crate) fn container_config(resolved: Resolved<'_>) -> Result<cri::ContainerConfig, Error> {
    let Resolved { config, pod, spec, restart_count, .. } = resolved;
    check_non_root(pod, spec, resolved.image)?;
    let variables: HashMap<String, String> = resolved.environment.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| env::expand(word, &variables)).collect()
    };
    let mut labels = sandbox_config::pod_labels(config, pod);
    labels.insert(key::CONTAINER_NAME.to_owned(), spec.name.clone());
    let linux = cri::LinuxContainerConfig {
        resources: Some(resources::of_container(pod, spec, resolved.machine_memory_bytes)),
        security_context: Some(security_context(pod, spec)),
    };
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: spec.name.clone(), attempt: restart_count }),
        image: Some(cri::ImageSpec {
            user_specified_image: spec.image.clone().unwrap_or_default(),
            ..image_spec(&resolved.image.id)
        }),
        command: expanded(&spec.command),
        args: expanded(&spec.args),
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        envs: resolved
            .environment
            .into_iter()
            .map(|(key, value)| cri::KeyValue { key, value })
            .collect(),
        mounts: resolved.mounts,
        labels,
        annotations: annotations(pod, spec, restart_count),
        log_path: log_path(&spec.name, restart_count),
        stdin: spec.stdin == Some(true),
        stdin_once: spec.stdin_once == Some(true),
        tty: spec.tty == Some(true),
        linux: Some(linux),
        ..cri::ContainerConfig::default()
    })
}

fn annotations(pod: &Pod, spec: &Container, restart_count: u32) -> HashMap<String, String> {
    let policy = spec.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned());
    let grace = pod.podspec().termination_grace_period_seconds.unwrap_or(30);
    [
        (key::CONTAINER_HASH, container_hash(spec)),
        (key::RESTART_COUNT, restart_count.to_string()),
        (key::TERMINATION_PATH, termination_path(spec).to_owned()),
        (key::TERMINATION_POLICY, policy),
        (key::GRACE_PERIOD, grace.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// `runAsNonRoot`, with upstream's messages.
fn check_non_root(pod: &Pod, spec: &Container, image: &cri::Image) -> Result<(), Error> {
    let of_pod = pod.podspec().security_context.as_ref();
    let own = spec.security_context.as_ref();
    let asked = own.and_then(|c| c.run_as_non_root).or(of_pod.and_then(|c| c.run_as_non_root));
    if asked != Some(true) {
        return Ok(());
    }
    let user = own.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user));
    let why = match (user, image.uid.as_ref(), image.username.as_str()) {
        (Some(0), _, _) => "container's runAsUser breaks non-root policy".to_owned(),
        (Some(_), _, _) => return Ok(()),
        (None, Some(uid), _) if uid.value != 0 => return Ok(()),
        (None, None, name) if !name.is_empty() => format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        ),
        _ => "container has runAsNonRoot and image will run as root".to_owned(),
    };
    Err(Error::Object(format!("{why} (pod: {:?}, container: {})", pod.display(), spec.name)))
}

fn security_context(pod: &Pod, spec: &Container) -> cri::LinuxContainerSecurityContext {
    let of_pod = pod.podspec().security_context.clone().unwrap_or_default();
    let own = spec.security_context.clone().unwrap_or_default();
    let int64 = |value: Option<i64>| value.map(|value| cri::Int64Value { value });
    let privileged = own.privileged == Some(true);
    let capabilities = own.capabilities.unwrap_or_default();
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| -> Vec<String> {
        if unmasked { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() }
    };
    let user = own.run_as_user.or(of_pod.run_as_user);
    let supplemental = of_pod.supplemental_groups.iter().flatten().copied();
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(sandbox_config::namespaces(pod.podspec())),
        run_as_user: int64(user),
        run_as_group: int64(own.run_as_group.or(of_pod.run_as_group)),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: supplemental.chain(of_pod.fs_group).collect(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(own.seccomp_profile.or(of_pod.seccomp_profile).as_ref())),
        ..cri::LinuxContainerSecurityContext::default()
    }
}

fn seccomp(profile: Option<&SeccompProfile>) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let kind = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        Some("Localhost") => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let file = profile.and_then(|profile| profile.localhost_profile.clone());
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: file.unwrap_or_default() }
}

/// A bind mount of a host path.
pub(crate) fn bind(container_path: &str, host_path: &Path, readonly: bool) -> cri::Mount {
    cri::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        readonly,
        ..cri::Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn non_root_policy() {
        let image = |uid: Option<i64>, username: &str| cri::Image {
            uid: uid.map(|value| cri::Int64Value { value }),
            username: username.to_owned(),
            ..cri::Image::default()
        };
        for (context, image, expected) in [
            (json!({}), image(None, ""), Ok(())),
            (json!({"runAsNonRoot": true, "runAsUser": 5}), image(None, ""), Ok(())),
            (json!({"runAsNonRoot": true}), image(Some(7), ""), Ok(())),
            (json!({"runAsNonRoot": true}), image(None, ""), Err("image will run as root")),
            (json!({"runAsNonRoot": true}), image(None, "web"), Err("non-numeric user (web)")),
            (
                json!({"runAsNonRoot": true, "runAsUser": 0}),
                image(None, ""),
                Err("runAsUser breaks"),
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec":
                {"containers": [{"name": "c", "securityContext": context}]}}))
            .unwrap();
            let result = check_non_root(&pod, &pod.podspec().containers[0], &image);
            match expected {
                Ok(()) => assert!(result.is_ok(), "{context}"),
                Err(part) => assert!(result.unwrap_err().to_string().contains(part), "{context}"),
            }
        }
    }
}
