//! `podium agent`: from flags to [`podium_agent::run`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Taint;
use podium_agent::Config;
use tokio_util::sync::CancellationToken;

use crate::Unusable;

#[derive(clap::Args)]
pub struct Arguments {
    /// Kubeconfig of this node's client; only its CA is needed for `--teardown`.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Name of the Node object; the host's name by default.
    #[arg(long)]
    node_name: Option<String>,
    /// Address other nodes and the API server reach this node at; one of each family at most.
    #[arg(long, required = true, value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    /// Folder of everything the agent writes: containerd's state, volumes, logs.
    #[arg(long, default_value = "/var/lib/podium/agent")]
    data_dir: PathBuf,
    /// Parent cgroup of the node's pods, a path in every hierarchy; /podium/<node> by default.
    #[arg(long)]
    cgroup_root: Option<String>,
    /// Socket of a running CRI runtime, used instead of a private containerd.
    #[arg(long)]
    container_runtime_endpoint: Option<PathBuf>,
    /// The containerd program.
    #[arg(long, default_value = "containerd")]
    containerd: PathBuf,
    /// Folder of the CNI plugins.
    #[arg(long, default_value = "/usr/lib/cni")]
    cni_bin_dir: PathBuf,
    /// Image of the pod sandbox.
    #[arg(long, default_value = "podium.local/pause:1")]
    sandbox_image: String,
    /// Folder of OCI image archives (*.tar), imported at start and when they appear.
    #[arg(long)]
    image_archive_dir: Option<PathBuf>,
    /// Address of the cluster's DNS; without one pods get the host's resolvers.
    #[arg(long, value_delimiter = ',')]
    cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Address the log server listens on.
    #[arg(long, default_value = "0.0.0.0")]
    kubelet_address: IpAddr,
    /// Port the log server listens on.
    #[arg(long, default_value_t = 10250)]
    kubelet_port: u16,
    /// How many pods the node accepts.
    #[arg(long, default_value_t = 110)]
    max_pods: u32,
    /// Label added to the Node when it is registered, KEY=VALUE; repeatable.
    #[arg(long = "node-label", value_name = "KEY=VALUE", value_parser = parse_label)]
    node_labels: Vec<(String, String)>,
    /// Taint the Node is registered with, KEY=VALUE:EFFECT; repeatable.
    #[arg(long = "register-with-taint", value_name = "KEY=VALUE:EFFECT", value_parser = parse_taint)]
    taints: Vec<Taint>,
    /// Stop this node's pods and its containerd, and remove everything the agent made; then exit.
    #[arg(long)]
    teardown: bool,
}

pub async fn run(arguments: Arguments, shutdown: CancellationToken) -> anyhow::Result<()> {
    let teardown = arguments.teardown;
    let kubeconfig = arguments.kubeconfig.clone();
    let mut config = config(arguments)?;
    if teardown {
        return podium_agent::teardown(config).await.context("tearing the node down");
    }
    let client_config = client_config(kubeconfig).await?;
    config.client_ca_pem =
        client_config.root_cert.as_ref().map(|certificates| to_pem(certificates));
    let client = kube::Client::try_from(client_config).context("making the API client")?;
    podium_agent::run(client, config, shutdown).await.context("running the node agent")
}

fn config(arguments: Arguments) -> anyhow::Result<Config> {
    let node_name = match arguments.node_name {
        Some(name) => name,
        None => nix::unistd::gethostname()
            .context("reading the host's name for --node-name")?
            .to_string_lossy()
            .to_lowercase(),
    };
    let [node_ip, ..] = arguments.node_ip[..] else {
        return Err(Unusable("--node-ip: at least one address is needed".to_owned()).into());
    };
    let defaults = Config::new(node_name, node_ip);
    Ok(Config {
        node_ips: arguments.node_ip,
        data_dir: arguments.data_dir,
        cgroup_root: arguments.cgroup_root.unwrap_or_else(|| defaults.cgroup_root.clone()),
        container_runtime_endpoint: arguments.container_runtime_endpoint,
        containerd_binary: arguments.containerd,
        cni_bin_dir: arguments.cni_bin_dir,
        sandbox_image: arguments.sandbox_image,
        image_archive_dir: arguments.image_archive_dir,
        cluster_dns: arguments.cluster_dns,
        cluster_domain: arguments.cluster_domain,
        kubelet_address: arguments.kubelet_address,
        kubelet_port: arguments.kubelet_port,
        max_pods: arguments.max_pods,
        labels: BTreeMap::from_iter(arguments.node_labels),
        taints: arguments.taints,
        ..defaults
    })
}

async fn client_config(kubeconfig: Option<PathBuf>) -> anyhow::Result<kube::Config> {
    let Some(path) = kubeconfig else {
        return Err(
            Unusable("--kubeconfig: the agent needs the credentials of a node".to_owned()).into()
        );
    };
    let kubeconfig = kube::config::Kubeconfig::read_from(&path)
        .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
    let options = kube::config::KubeConfigOptions::default();
    kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .with_context(|| format!("using the kubeconfig {}", path.display()))
}

fn to_pem(certificates: &[Vec<u8>]) -> String {
    use base64::Engine as _;
    let mut pem = String::new();
    for certificate in certificates {
        let text = base64::prelude::BASE64_STANDARD.encode(certificate);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn parse_taint(text: &str) -> Result<Taint, String> {
    let (pair, effect) = text.rsplit_once(':').ok_or("a taint is KEY=VALUE:EFFECT")?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(format!("{effect:?} is no effect: NoSchedule, PreferNoSchedule or NoExecute"));
    }
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    Ok(Taint {
        key: key.to_owned(),
        value: (!value.is_empty()).then(|| value.to_owned()),
        effect: effect.to_owned(),
        time_added: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_and_labels_are_read_as_kubelet_reads_them() {
        assert_eq!(parse_label("a/b=c").unwrap(), ("a/b".to_owned(), "c".to_owned()));
        assert!(parse_label("a").is_err());
        let taint = parse_taint("k=v:NoExecute").unwrap();
        assert_eq!(
            (&*taint.key, taint.value.as_deref(), &*taint.effect),
            ("k", Some("v"), "NoExecute")
        );
        assert_eq!(parse_taint("k:NoSchedule").unwrap().value, None);
        assert!(parse_taint("k=v:Never").is_err());
    }
}
