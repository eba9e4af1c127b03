//! A client outside of the nodes: a namespace on the fabric with no program of ours in it, which
//! reaches nodes by their addresses and the cluster's other addresses by routes alone.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::fabric::{CLIENT_ADDRESS, Fabric};
use crate::netns::Netns;
use crate::process::Launch;
use crate::workdir::Workdir;

/// A machine beside the cluster.
#[derive(Debug)]
pub struct OutsideClient {
    /// Its address on the fabric.
    pub address: Ipv4Addr,
    netns: Netns,
}

impl OutsideClient {
    pub(super) fn join(workdir: &Workdir, fabric: &Fabric) -> anyhow::Result<Self> {
        let netns = fabric.join(workdir, "client", CLIENT_ADDRESS)?;
        Ok(Self { address: CLIENT_ADDRESS, netns })
    }

    /// Reaches an address by way of a node, as the router of a network with load balancer
    /// addresses would.
    ///
    /// # Errors
    /// When `ip` fails, with its words.
    pub fn route(&self, address: &str, via: Ipv4Addr) -> anyhow::Result<()> {
        let via = via.to_string();
        self.netns.ip(&["route", "replace", address, "via", &via]).map(drop)
    }

    /// A program of the client's.
    ///
    /// # Errors
    /// When the namespace cannot be opened.
    pub fn launch(&self, program: &Path) -> anyhow::Result<Launch> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Launch::new(&name, program).inside(Some(self.netns.name()), None)
    }

    /// Sends requests one after the other, each on a connection of its own, and gives what
    /// `testserver load` tells of them.
    ///
    /// # Errors
    /// When the program fails; failed requests are in the report.
    pub fn requests(&self, testserver: &Path, url: &str, count: u64) -> anyhow::Result<Value> {
        let count = count.to_string();
        let load = self.launch(testserver)?.args(["load", "--url", url, "--count", &count]);
        let text = load.args(["--seconds", "60"]).output()?;
        serde_json::from_str(&text).with_context(|| format!("read the report of {url}"))
    }
}
