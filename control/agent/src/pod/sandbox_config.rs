//! The CRI configuration of a pod's sandbox. Pure.

use std::collections::HashMap;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::observed::key;
use super::{PodExt, all_containers, host_files};
use crate::config::Config;

/// The sandbox of a pod. `host_resolv_conf`: the host's resolver configuration as text.
pub(crate) fn sandbox_config(
    config: &Config,
    pod: &Pod,
    attempt: u32,
    host_resolv_conf: &str,
) -> cri::PodSandboxConfig {
    let spec = pod.podspec();
    let (hostname, domain) = host_files::hostname_and_domain(pod, &config.cluster_domain);
    let hostname = match domain {
        Some(domain) if spec.set_hostname_as_fqdn == Some(true) => format!("{hostname}.{domain}"),
        _ => hostname,
    };
    let dns = host_files::dns(pod, &config.cluster_dns, &config.cluster_domain, host_resolv_conf);
    let log_directory = config.logs_dir().join(log_directory_name(pod));
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname: if pod.host_network() { String::new() } else { hostname },
        log_directory: log_directory.to_string_lossy().into_owned(),
        dns_config: Some(dns),
        labels: pod_labels(config, pod),
        annotations: annotations(pod),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: config.pod_cgroup(pod.uid()),
            security_context: Some(security_context(pod)),
            sysctls: sysctls(spec),
            ..cri::LinuxPodSandboxConfig::default()
        }),
        ..cri::PodSandboxConfig::default()
    }
}

/// The folder of a pod's logs, below the folder of all logs.
pub(crate) fn log_directory_name(pod: &Pod) -> String {
    format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid())
}

/// The labels by which the agent finds what is this pod's in the runtime.
pub(crate) fn pod_labels(config: &Config, pod: &Pod) -> HashMap<String, String> {
    [
        (key::POD_NAME, pod.name()),
        (key::POD_NAMESPACE, pod.namespace()),
        (key::POD_UID, pod.uid()),
        (key::NODE, &config.node_name),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn annotations(pod: &Pod) -> HashMap<String, String> {
    pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect()
}

fn sysctls(spec: &PodSpec) -> HashMap<String, String> {
    let context = spec.security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten();
    sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
}

/// Which namespaces the pod shares with the node.
pub(crate) fn namespaces(spec: &PodSpec) -> cri::NamespaceOption {
    let mode = |host: Option<bool>, otherwise: cri::NamespaceMode| {
        let mode = if host == Some(true) { cri::NamespaceMode::Node } else { otherwise };
        i32::from(mode)
    };
    let pid = match spec.share_process_namespace {
        Some(true) => cri::NamespaceMode::Pod,
        _ => cri::NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: mode(spec.host_network, cri::NamespaceMode::Pod),
        pid: mode(spec.host_pid, pid),
        ipc: mode(spec.host_ipc, cri::NamespaceMode::Pod),
        ..cri::NamespaceOption::default()
    }
}

fn security_context(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let spec = pod.podspec();
    let given = spec.security_context.as_ref();
    let int64 = |value: Option<i64>| value.map(|value| cri::Int64Value { value });
    // A privileged container needs a sandbox that is privileged as well.
    let privileged = all_containers(spec).any(|(container, _)| {
        container.security_context.as_ref().and_then(|context| context.privileged) == Some(true)
    });
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        run_as_user: int64(given.and_then(|context| context.run_as_user)),
        // CRI refuses a group without a user.
        run_as_group: int64(
            given.filter(|g| g.run_as_user.is_some()).and_then(|context| context.run_as_group),
        ),
        supplemental_groups: given
            .map(|context| {
                let groups = context.supplemental_groups.iter().flatten().copied();
                groups.chain(context.fs_group).collect()
            })
            .unwrap_or_default(),
        privileged,
        seccomp: Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
        ..cri::LinuxSandboxSecurityContext::default()
    }
}

/// The host ports a pod asks for that this node does not map, as a sentence for an event.
pub(crate) fn unmapped_host_ports(pod: &Pod) -> Option<String> {
    if pod.host_network() {
        return None;
    }
    let ports = all_containers(pod.podspec()).flat_map(|(container, _)| {
        container.ports.iter().flatten().filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port > 0)?;
            Some(format!("{host_port} (container {})", container.name))
        })
    });
    let ports: Vec<String> = ports.collect();
    (!ports.is_empty()).then(|| {
        format!(
            "hostPort {} is not mapped by this node; use a NodePort Service or hostNetwork",
            ports.join(", ")
        )
    })
}
