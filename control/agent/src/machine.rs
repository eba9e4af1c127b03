//! What the machine is: processors, memory, storage and the identities that Node.status carries.

use std::fs;

use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

use crate::config::Config;
use crate::cri::Runtime;
use crate::error::Error;

/// The version of Kubernetes whose kubelet the agent behaves like, with our own as the suffix.
const KUBELET_VERSION: &str = concat!("v1.36.0+podium-", env!("CARGO_PKG_VERSION"));

/// Facts about the machine, read once.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) storage_bytes: u64,
    pub(crate) architecture: &'static str,
    runtime_version: String,
}

impl Machine {
    pub(crate) async fn read(config: &Config, runtime: &Runtime) -> Result<Self, Error> {
        let version = runtime.version().await?;
        let dir = &config.data_dir;
        let storage = statvfs(dir).map_err(|e| Error::io("measure", dir, e.into()))?;
        let memory_bytes = memory_bytes(&read("/proc/meminfo"));
        Ok(Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes,
            storage_bytes: storage.blocks() * storage.fragment_size(),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
        })
    }

    /// `Node.status.nodeInfo`.
    pub(crate) fn node_info(&self) -> Value {
        let release = read("/etc/os-release");
        let os_image = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .map_or("Linux", |name| name.trim_matches('"'));
        json!({
            "architecture": self.architecture,
            "bootID": read("/proc/sys/kernel/random/boot_id").trim(),
            "containerRuntimeVersion": self.runtime_version,
            "kernelVersion": read("/proc/sys/kernel/osrelease").trim(),
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": read("/etc/machine-id").trim(),
            "operatingSystem": "linux",
            "osImage": os_image,
            "systemUUID": read("/sys/class/dmi/id/product_uuid").trim(),
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_total_memory() {
        assert_eq!(memory_bytes("MemTotal:       24576 kB\nMemFree: 1 kB\n"), 24_576 * 1024);
        assert_eq!(memory_bytes("nonsense"), 0);
    }
}
