//! The network between nodes: a bridge in a namespace of its own, without any route out of the
//! machine. A fixed address plan, so that failures read the same in every run.

use std::net::Ipv4Addr;

use crate::netns::Netns;
use crate::workdir::Workdir;

const BRIDGE: &str = "fabric";
/// Prefix length of the node network.
const PREFIX_LEN: u8 = 24;

/// The bridge that links the namespaces of a cluster.
#[derive(Debug)]
pub struct Fabric {
    netns: Netns,
}

impl Fabric {
    /// Makes the namespace and its bridge.
    ///
    /// # Errors
    /// When `ip` fails, with its words.
    pub fn create(workdir: &Workdir) -> anyhow::Result<Self> {
        let netns = Netns::create(workdir, "fabric")?;
        netns.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        netns.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self { netns })
    }

    /// Makes the namespace `<prefix>-<role>`, linked to the bridge by its `eth0`.
    ///
    /// # Errors
    /// When `ip` fails, with its words.
    pub fn join(&self, workdir: &Workdir, role: &str, address: Ipv4Addr) -> anyhow::Result<Netns> {
        let netns = Netns::create(workdir, role)?;
        // Interface names hold 15 bytes; the port is named after the last part of the address.
        let port = format!("port{}", address.octets()[3]);
        self.netns.ip(&[
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            netns.name(),
        ])?;
        self.netns.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        netns.ip(&["address", "add", &format!("{address}/{PREFIX_LEN}"), "dev", "eth0"])?;
        netns.ip(&["link", "set", "eth0", "up"])?;
        Ok(netns)
    }
}

impl Fabric {
    /// The namespace of the bridge, to be kept as long as the links are used.
    pub fn into_netns(self) -> Netns {
        self.netns
    }
}

/// Address of the control plane.
pub const CONTROL_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);

/// Address of a client that is no part of the cluster.
pub const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 100);

/// Address of the node with this number, counted from 1.
pub fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + number)
}
