//! What the demo tells about itself while it stays up, and the ways in from the host.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, ensure};
use podium_tests::fabric::CONTROL_ADDRESS;

use crate::demo::{Demo, forward, https};

const API_PORT: u16 = 6443;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Opens the ways in and prints how to use them.
pub fn offer(demo: &Demo) -> anyhow::Result<()> {
    let control = &demo.cluster.control;
    let api = SocketAddr::from((CONTROL_ADDRESS, API_PORT));
    let api_here = forward::start(control.netns.open()?, api)?;
    let node = &demo.cluster.nodes[0];
    let way_in = |port| forward::start(node.netns.open()?, SocketAddr::from((node.address, port)));
    let (web, secure) = (way_in(HTTP_PORT)?, way_in(HTTPS_PORT)?);
    let kubeconfig = demo.cluster.workdir().path().join("kubeconfig");
    let text = fs::read_to_string(control.admin_kubeconfig()).context("read admin.kubeconfig")?;
    let here = text.replace(&api.to_string(), &api_here.to_string());
    ensure!(here != text, "admin.kubeconfig does not name the API server's address {api}");
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut file =
        options.open(&kubeconfig).with_context(|| format!("write {}", kubeconfig.display()))?;
    file.write_all(here.as_bytes()).context("write the kubeconfig for the host")?;
    let kubectl = demo.kubectl.binary().display();
    println!("\nThe cluster stays up until Ctrl-C. In another terminal:\n");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  {kubectl} get pods,services,ingresses -o wide");
    println!("  {kubectl} scale deployment ml-model-serving --replicas=20");
    println!("  {kubectl} logs job/model-train-job");
    println!("  curl http://{web}/app");
    let certificate = https::certificate(demo);
    let (host, certificate) = (https::HOST, certificate.display());
    println!("  curl --cacert {certificate} --connect-to {host}:443:{secure} https://{host}/app");
    let netns = node.netns.name();
    println!("  nsenter --net=/run/netns/{netns} ip route    # the first node's own view");
    println!("\nLogs of every program: {}/*.log\n", demo.cluster.workdir().path().display());
    Ok(())
}
