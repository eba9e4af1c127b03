//! What the operator decides about one node, and the paths that follow from it. Parsing of flags is
//! left to the `podium` binary.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Taint;

use crate::error::Error;

/// The longest path a Unix socket may have is 108 bytes with its terminating zero.
const UNIX_SOCKET_PATH_BYTES_MAX: usize = 107;

/// Configuration of one node agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses of the node, the primary one first; at most one of each family.
    pub node_ips: Vec<IpAddr>,
    /// Everything the agent writes lies below this folder.
    pub data_dir: PathBuf,
    /// Parent cgroup of every pod of this node, as an absolute path in each hierarchy.
    pub cgroup_root: String,
    /// Socket of a running CRI runtime; `None` runs a private containerd.
    pub container_runtime_endpoint: Option<PathBuf>,
    /// The containerd program; its `ctr` is expected beside it or in `PATH`.
    pub containerd_binary: PathBuf,
    /// Folder of the CNI plugins.
    pub cni_bin_dir: PathBuf,
    /// Image of the pod sandbox; has to be in an archive or in a registry.
    pub sandbox_image: String,
    /// Folder of OCI image archives (`*.tar`), imported at start and as they appear.
    pub image_archive_dir: Option<PathBuf>,
    /// Addresses written to the pods' resolv.conf; empty means the host's own resolvers.
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Address the HTTPS server listens on.
    pub kubelet_address: IpAddr,
    /// Port the HTTPS server listens on.
    pub kubelet_port: u16,
    /// Certificate authority of the clients of the HTTPS server, PEM; `None` turns the server off.
    pub client_ca_pem: Option<String>,
    /// How many pods the node accepts.
    pub max_pods: u32,
    /// Labels added to the Node when it is registered.
    pub labels: BTreeMap<String, String>,
    /// Taints the Node is created with.
    pub taints: Vec<Taint>,
}

impl Config {
    /// Defaults for a node of this name and address.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr) -> Self {
        let node_name = node_name.into();
        Self {
            cgroup_root: format!("/podium/{node_name}"),
            node_name,
            node_ips: vec![node_ip],
            data_dir: PathBuf::from("/var/lib/podium/agent"),
            container_runtime_endpoint: None,
            containerd_binary: PathBuf::from("containerd"),
            cni_bin_dir: PathBuf::from("/usr/lib/cni"),
            sandbox_image: "podium.local/pause:1".to_owned(),
            image_archive_dir: None,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            kubelet_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            kubelet_port: 10250,
            client_ca_pem: None,
            max_pods: 110,
            labels: BTreeMap::new(),
            taints: Vec::new(),
        }
    }

    /// Checks what can be checked without touching the machine.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |field: &str, why: String| Err(Error::config(field, why));
        if self.node_name.is_empty() {
            return refuse("node-name", "must not be empty".to_owned());
        }
        if self.node_ips.is_empty() {
            return refuse("node-ip", "at least one address is needed".to_owned());
        }
        if !self.data_dir.is_absolute() {
            return refuse("data-dir", format!("{} is not absolute", self.data_dir.display()));
        }
        // Attaching programs or limits at the root of a hierarchy would hit the whole machine.
        let depth = self.cgroup_root.split('/').filter(|part| !part.is_empty()).count();
        if !self.cgroup_root.starts_with('/') || depth == 0 || self.cgroup_root.contains("..") {
            return refuse(
                "cgroup-root",
                format!("{:?} is not an absolute path below the root cgroup", self.cgroup_root),
            );
        }
        let socket_bytes = self.runtime_socket().as_os_str().len();
        if socket_bytes > UNIX_SOCKET_PATH_BYTES_MAX {
            return refuse(
                "data-dir",
                format!("too long: the socket path below it would have {socket_bytes} bytes"),
            );
        }
        Ok(())
    }

    pub(crate) fn containerd_dir(&self) -> PathBuf {
        self.data_dir.join("containerd")
    }

    pub(crate) fn runtime_socket(&self) -> PathBuf {
        match &self.container_runtime_endpoint {
            Some(path) => path.clone(),
            None => self.containerd_dir().join("containerd.sock"),
        }
    }

    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.data_dir.join("pods")
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }

    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    pub(crate) fn cni_conf_dir(&self) -> PathBuf {
        self.data_dir.join("cni/conf")
    }

    pub(crate) fn cni_state_dir(&self) -> PathBuf {
        self.data_dir.join("cni/state")
    }

    pub(crate) fn pod_cgroup(&self, uid: &str) -> String {
        format!("{}/pod{uid}", self.cgroup_root.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_would_hurt_the_machine() {
        let good = Config::new("n1", IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(good.validate().is_ok());
        for (root, data_dir) in
            [("/", "/var/lib/p"), ("podium", "/var/lib/p"), ("/a/../b", "/p"), ("/podium", "p")]
        {
            let mut config = good.clone();
            config.cgroup_root = root.to_owned();
            config.data_dir = PathBuf::from(data_dir);
            assert!(config.validate().is_err(), "{root} {data_dir}");
        }
        let mut long = good;
        long.data_dir = PathBuf::from(format!("/{}", "x".repeat(100)));
        assert!(long.validate().is_err());
    }
}
