//! The pod network of the node: the CNI configuration (bridge and host-local) from the node's pod
//! CIDRs, forwarding in the node's network namespace, and a route to every other node's pods.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::command;
use crate::config::Config;
use crate::error::Error;

/// The bridge the pods of a node hang on. One a network namespace, so one name does for all nodes.
pub(crate) const BRIDGE: &str = "podium0";
/// The protocol number that marks our routes, so that only those are ever removed.
const ROUTE_PROTOCOL: &str = "112";

/// The CNI configuration list for these pod CIDRs. No masquerading: pod addresses are routed.
fn cni_conflist(config: &Config, pod_cidrs: &[IpNet]) -> serde_json::Value {
    let ranges: Vec<_> =
        pod_cidrs.iter().map(|cidr| json!([{"subnet": cidr.to_string()}])).collect();
    let routes: Vec<_> = pod_cidrs
        .iter()
        .map(|cidr| json!({"dst": if cidr.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" }}))
        .collect();
    json!({
        "cniVersion": "0.4.0",
        "name": "podium",
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": config.cni_state_dir(),
                "ranges": ranges,
                "routes": routes,
            },
        }],
    })
}

/// The pod CIDRs the controllers gave a node, first family first.
pub(crate) fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let several = spec.pod_cidrs.iter().flatten();
    let mut cidrs: Vec<IpNet> = several.filter_map(|cidr| cidr.parse().ok()).collect();
    if cidrs.is_empty() {
        cidrs.extend(spec.pod_cidr.as_ref().and_then(|cidr| cidr.parse::<IpNet>().ok()));
    }
    cidrs
}

/// Writes the CNI configuration (atomically, only when it differs) and switches forwarding on.
pub(crate) fn configure(config: &Config, pod_cidrs: &[IpNet]) -> Result<(), Error> {
    let dir = config.cni_conf_dir();
    fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
    let path = dir.join("10-podium.conflist");
    let text = format!("{:#}\n", cni_conflist(config, pod_cidrs));
    if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
        // The runtime watches the folder; it must never see half a file.
        let partial = dir.join(".10-podium.partial");
        fs::write(&partial, text).map_err(|e| Error::io("write", &partial, e))?;
        fs::rename(&partial, &path).map_err(|e| Error::io("rename to", &path, e))?;
        tracing::info!(?pod_cidrs, "pod network configured");
    }
    for (family, sysctl) in
        [(true, "/proc/sys/net/ipv4/ip_forward"), (false, "/proc/sys/net/ipv6/conf/all/forwarding")]
    {
        if pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv4() == family) {
            enable(Path::new(sysctl))?;
        }
    }
    Ok(())
}

fn enable(sysctl: &Path) -> Result<(), Error> {
    let now = fs::read_to_string(sysctl).map_err(|e| Error::io("read", sysctl, e))?;
    if now.trim() == "1" {
        return Ok(());
    }
    fs::write(sysctl, "1").map_err(|e| Error::io("switch on", sysctl, e))
}

/// The routes this node needs: each other node's pod CIDRs through its address of that family.
pub(crate) fn wanted_routes<'a>(
    own_name: &str,
    nodes: impl IntoIterator<Item = &'a Node>,
) -> BTreeMap<IpNet, IpAddr> {
    let mut routes = BTreeMap::new();
    for node in nodes {
        if node.metadata.name.as_deref() == Some(own_name) {
            continue;
        }
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let addresses: Vec<IpAddr> = addresses
            .filter(|address| address.type_ == "InternalIP")
            .filter_map(|address| address.address.parse().ok())
            .collect();
        for cidr in pod_cidrs(node) {
            let via = addresses.iter().find(|ip| ip.is_ipv4() == cidr.addr().is_ipv4());
            if let Some(via) = via {
                routes.insert(cidr.trunc(), *via);
            }
        }
    }
    routes
}

/// Makes the kernel's routes of ours be exactly the wanted ones. One that cannot be set is reported
/// and does not keep the others from being set.
pub(crate) async fn sync_routes(wanted: &BTreeMap<IpNet, IpAddr>) -> Vec<Error> {
    let mut problems = Vec::new();
    let mut present = BTreeMap::new();
    for family in ["-4", "-6"] {
        match command::ip(&[family, "-json", "route", "show", "proto", ROUTE_PROTOCOL]).await {
            Ok(text) => present.extend(parse_routes(&text)),
            // A kernel without IPv6 has no such routes.
            Err(_) if family == "-6" => {}
            Err(error) => problems.push(error),
        }
    }
    for (cidr, via) in wanted {
        if present.get(cidr) != Some(via) {
            let (cidr, via) = (cidr.to_string(), via.to_string());
            let args = ["route", "replace", &cidr, "via", &via, "proto", ROUTE_PROTOCOL];
            problems.extend(command::ip(&args).await.err());
        }
    }
    for cidr in present.keys().filter(|cidr| !wanted.contains_key(cidr)) {
        let cidr = cidr.to_string();
        let args = ["route", "del", &cidr, "proto", ROUTE_PROTOCOL];
        problems.extend(command::ip(&args).await.err());
    }
    problems
}

fn parse_routes(text: &str) -> BTreeMap<IpNet, IpAddr> {
    let list: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    list.iter()
        .filter_map(|route| {
            let destination = route.get("dst")?.as_str()?;
            let cidr: IpNet = destination
                .parse()
                .or_else(|_| destination.parse::<IpAddr>().map(IpNet::from))
                .ok()?;
            let via: IpAddr = route.get("gateway")?.as_str()?.parse().ok()?;
            Some((cidr, via))
        })
        .collect()
}

/// Removes the bridge and the routes from the present network namespace.
pub(crate) async fn remove() -> Vec<Error> {
    let mut problems = sync_routes(&BTreeMap::new()).await;
    if Path::new("/sys/class/net").join(BRIDGE).exists()
        || command::ip(&["link", "show", BRIDGE]).await.is_ok()
    {
        problems.extend(command::ip(&["link", "del", BRIDGE]).await.err());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidrs: &[&str], ips: &[&str]) -> Node {
        let addresses: Vec<_> =
            ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
            "status": {"addresses": addresses},
        }))
        .unwrap()
    }

    #[test]
    fn routes_go_to_other_nodes_by_family() {
        let nodes = [
            node("a", &["10.244.0.0/24"], &["192.168.0.1"]),
            node("b", &["10.244.1.0/24", "fd00:1::/64"], &["192.168.0.2", "fd01::2"]),
            node("c", &[], &["192.168.0.3"]),
            node("d", &["fd00:2::/64"], &["192.168.0.4"]),
        ];
        let routes = wanted_routes("a", &nodes);
        let text: Vec<String> = routes.iter().map(|(to, via)| format!("{to} {via}")).collect();
        assert_eq!(text, ["10.244.1.0/24 192.168.0.2", "fd00:1::/64 fd01::2"]);
    }

    #[test]
    fn reads_what_ip_prints() {
        let text = r#"[{"dst":"10.244.1.0/24","gateway":"10.0.0.2","dev":"eth0"},
                       {"dst":"10.9.9.9","gateway":"10.0.0.3"},{"dst":"default","dev":"x"}]"#;
        let routes = parse_routes(text);
        assert_eq!(routes.len(), 2);
        assert!(routes.contains_key(&"10.9.9.9/32".parse().unwrap()));
    }
}
