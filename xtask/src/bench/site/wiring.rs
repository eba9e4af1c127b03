//! Namespaces, links, addresses and routes of a site.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context, ensure};
use podium_tests::netns::Netns;
use podium_tests::workdir::Workdir;

use crate::bench::site::{ENDPOINTS, driver};

/// The node that clients ask.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The node with the endpoints for clients outside.
pub const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Client outside.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// Client inside.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 3, 2);

/// An endpoint's address, counted from 1.
pub fn endpoint(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 1, 10 + number)
}

/// The same of the endpoints for clients outside.
pub fn endpoint_elsewhere(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 2, 10 + number)
}

/// The namespaces of a site.
pub struct Network {
    /// The node that clients ask.
    pub node: Netns,
    /// The node with the endpoints for clients outside.
    other: Netns,
    /// A pod that is a client, on the node.
    pub pod: Netns,
    /// Endpoints on the node.
    pub endpoints: Netns,
    /// Endpoints on the other node.
    pub endpoints_elsewhere: Netns,
    /// A client beyond the nodes.
    pub client: Netns,
    segment: Netns,
    /// Programs on the ports of the segment.
    programs: Vec<OwnedFd>,
}

impl Network {
    /// Makes and links them.
    pub fn create(workdir: &Workdir, name: &str) -> anyhow::Result<Network> {
        let netns = |role: &str| Netns::create(workdir, &format!("{name}-{role}"));
        let mut network = Network {
            node: netns("node")?,
            other: netns("other")?,
            pod: netns("pod")?,
            endpoints: netns("ends")?,
            endpoints_elsewhere: netns("others")?,
            client: netns("client")?,
            segment: netns("segment")?,
            programs: Vec::new(),
        };
        network.wire_segment()?;
        network.wire_pods()?;
        let via = |network: &str, gateway: Ipv4Addr| {
            let words = ["route", "add", network, "via", &gateway.to_string()];
            words.map(str::to_owned)
        };
        for (netns, route) in [
            (&network.node, via("10.244.2.0/24", OTHER_NODE)),
            (&network.other, via("10.244.1.0/24", NODE)),
            (&network.other, via("10.244.3.0/24", NODE)),
            (&network.client, via("10.244.1.0/24", NODE)),
            (&network.client, via("10.244.2.0/24", OTHER_NODE)),
        ] {
            netns.ip(&route.each_ref().map(|word| &**word))?;
        }
        Ok(network)
    }

    /// The nodes and their addresses.
    pub fn nodes(&self) -> [(&Netns, Ipv4Addr); 2] {
        [(&self.node, NODE), (&self.other, OTHER_NODE)]
    }

    /// A switch, and devices that behave like those of machines: their checksums are complete on the
    /// wire, which a veth leaves out, and what XDP sends arrives.
    fn wire_segment(&mut self) -> anyhow::Result<()> {
        let segment = &self.segment;
        segment.ip(&["link", "add", "segment", "type", "bridge"])?;
        segment.ip(&["link", "set", "segment", "up"])?;
        let members = [(&self.node, NODE), (&self.other, OTHER_NODE), (&self.client, CLIENT)];
        for (number, (netns, address)) in members.into_iter().enumerate() {
            let port = format!("port{number}");
            link(segment, &port, netns)?;
            ethtool(netns, "eth0", &["tx", "off"])?;
            segment.ip(&["link", "set", &port, "master", "segment", "up"])?;
            up(netns, "eth0", address)?;
            self.programs.push(driver::pass_all(segment, &port)?);
        }
        Ok(())
    }

    fn wire_pods(&self) -> anyhow::Result<()> {
        for (node, pods, device, subnet, hosts) in [
            (&self.node, &self.endpoints, "ends0", 1, 11..=10 + ENDPOINTS),
            (&self.other, &self.endpoints_elsewhere, "ends0", 2, 11..=10 + ENDPOINTS),
            (&self.node, &self.pod, "pod0", 3, 2..=2),
        ] {
            let gateway = Ipv4Addr::new(10, 244, subnet, 1);
            link(node, device, pods)?;
            ethtool(pods, "eth0", &["tx", "off"])?;
            up(node, device, gateway)?;
            for host in hosts {
                up(pods, "eth0", Ipv4Addr::new(10, 244, subnet, host))?;
            }
            pods.ip(&["route", "add", "default", "via", &gateway.to_string()])?;
        }
        for (node, _) in self.nodes() {
            // Answers and endpoints are on one segment here: the kernel would tell clients so.
            let settings = [("ip_forward", "1"), ("conf/all/send_redirects", "0")];
            let set = |(name, value)| std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
            node.run(|| settings.into_iter().try_for_each(set))?.context("let a node forward")?;
            let eth0 = "/proc/sys/net/ipv4/conf/eth0/send_redirects";
            node.run(|| std::fs::write(eth0, "0"))?.context("send no redirects")?;
        }
        Ok(())
    }
}

/// A veth pair between two namespaces; the far end is always `eth0`.
fn link(near: &Netns, device: &str, far: &Netns) -> anyhow::Result<()> {
    let peer = ["type", "veth", "peer", "name", "eth0", "netns", far.name()];
    near.ip(&[&["link", "add", device][..], &peer].concat()).map(drop)
}

fn up(netns: &Netns, device: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    netns.ip(&["address", "add", &format!("{address}/24"), "dev", device])?;
    netns.ip(&["link", "set", device, "up"]).map(drop)
}

fn ethtool(netns: &Netns, device: &str, features: &[&str]) -> anyhow::Result<()> {
    let run = || Command::new("ethtool").args(["-K", device]).args(features).output();
    let output = netns.run(run)?.context("run ethtool")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "ethtool -K {device}: {}", said.trim());
    Ok(())
}
