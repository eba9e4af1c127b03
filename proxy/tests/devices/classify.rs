//! Which devices get programs, and as what.

use std::collections::BTreeSet;

use clap::Parser;
use expect_test::{Expect, expect};
use podium_proxy::devices::{Device, DeviceOptions, Role, classify};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    devices: DeviceOptions,
}

/// One device a line: `name[/kind][@master][>lower] [addresses …] [default]`.
fn devices(table: &str) -> Vec<Device> {
    let mut found: Vec<Device> = Vec::new();
    for (line, index) in table.trim().lines().zip(1..) {
        let mut words = line.split_whitespace();
        let head = words.next().unwrap();
        let (head, lower) = head.split_once('>').unwrap_or((head, ""));
        let (head, master) = head.split_once('@').unwrap_or((head, ""));
        let (name, kind) = head.split_once('/').unwrap_or((head, ""));
        let index_of = |name: &str| found.iter().find(|one| one.name == name).map(|one| one.index);
        let mut device = Device {
            index,
            name: name.to_owned(),
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            link_type: match name {
                "lo" => 772,
                _ if kind == "wireguard" => 65534,
                _ => 1,
            },
            master: index_of(master),
            link: index_of(lower),
            ..Device::default()
        };
        for word in words {
            match word {
                "default" => device.has_default_route = true,
                address => {
                    device.has_global_address |= !address.starts_with("fe80");
                    device.addresses.insert(address.parse().unwrap());
                }
            }
        }
        found.push(device);
    }
    found
}

fn check(table: &str, flags: &str, node_ips: &[&str], expect: Expect) {
    let arguments = ["test"].into_iter().chain(flags.split_whitespace());
    let options = Flags::parse_from(arguments).devices;
    let node_ips: BTreeSet<_> = node_ips.iter().map(|ip| ip.parse().unwrap()).collect();
    let plan = classify(&devices(table), &options, &node_ips);
    let of = |role| {
        let names = plan.places.iter().filter(|place| place.role == role);
        names.map(|place| place.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let mut shown = format!("uplinks: {}\npods: {}\n", of(Role::Uplink), of(Role::Pod));
    for (name, why) in &plan.skipped {
        shown += &format!("not {name}: {why}\n");
    }
    expect.assert_eq(&shown);
}

const NODE: &str = "
lo 127.0.0.1
eth0 192.0.2.1 default
eth1 198.51.100.1
cni0/bridge 10.244.1.1
veth1/veth@cni0
veth2/veth fe80::1
tap1/tun
flannel0/vxlan 10.244.1.0
dummy0/dummy 169.254.20.10
";

#[test]
fn default_route_makes_an_uplink() {
    check(
        NODE,
        "",
        &[],
        expect![[r#"
        uplinks: eth0
        pods: cni0 veth1 veth2 tap1
    "#]],
    );
}

#[test]
fn addresses_of_the_node_make_uplinks_beside_the_default_route() {
    check(
        NODE,
        "",
        &["198.51.100.1"],
        expect![[r#"
        uplinks: eth0 eth1
        pods: cni0 veth1 veth2 tap1
    "#]],
    );
}

#[test]
fn a_wide_choice_of_node_addresses_makes_no_uplink_of_the_pods_bridge() {
    let all = ["127.0.0.1", "192.0.2.1", "198.51.100.1", "10.244.1.1"];
    check(
        NODE,
        "",
        &all,
        expect![[r#"
        uplinks: eth0 eth1
        pods: cni0 veth1 veth2 tap1
    "#]],
    );
}

#[test]
fn named_uplinks_only() {
    check(
        NODE,
        "--uplinks eth1",
        &["192.0.2.1"],
        expect![[r#"
        uplinks: eth1
        pods: cni0 veth1 veth2 tap1
    "#]],
    );
    check(
        NODE,
        "--uplinks eth+,veth2,nic9",
        &[],
        expect![[r#"
        uplinks: eth0 eth1 veth2
        pods: cni0 veth1 tap1
        not nic9: there is no such device
    "#]],
    );
    check(
        NODE,
        "--uplinks + --pod-devices none",
        &[],
        expect![[r#"
        uplinks: eth0 eth1 cni0 veth1 veth2 tap1 flannel0 dummy0
        pods: 
    "#]],
    );
}

#[test]
fn no_pod_devices() {
    check(
        NODE,
        "--pod-devices none",
        &[],
        expect![[r#"
        uplinks: eth0
        pods: 
    "#]],
    );
}

#[test]
fn bridge_as_uplink_speaks_for_its_ports() {
    let table = "
        lo
        br0/bridge 192.0.2.1 default
        eth0@br0
        tap1/tun@br0
        veth1/veth";
    check(
        table,
        "",
        &["192.0.2.1"],
        expect![[r#"
        uplinks: br0
        pods: veth1
    "#]],
    );
}

#[test]
fn bond_speaks_for_its_members() {
    let table = "
        lo
        bond0/bond 192.0.2.1 default
        eth0@bond0
        eth1@bond0";
    check(
        table,
        "",
        &[],
        expect![[r#"
        uplinks: bond0
        pods: 
    "#]],
    );
}

#[test]
fn vlan_speaks_for_what_it_lies_on() {
    let table = "
        lo
        eth0
        vlan10/vlan>eth0 192.0.2.1 default
        br1/bridge
        vlan11/vlan>br1 198.51.100.1";
    check(
        table,
        "",
        &["198.51.100.1"],
        expect![[r#"
        uplinks: vlan10 vlan11
        pods: 
    "#]],
    );
    let both = "
        lo
        eth0 192.0.2.1 default
        vlan10/vlan>eth0 198.51.100.1";
    check(
        both,
        "",
        &["198.51.100.1"],
        expect![[r#"
        uplinks: eth0 vlan10
        pods: 
    "#]],
    );
}

#[test]
fn node_in_a_container_has_a_veth_for_uplink() {
    let table = "
        lo
        eth0/veth 172.18.0.2 default
        veth1/veth>eth0";
    check(
        table,
        "",
        &["172.18.0.2"],
        expect![[r#"
        uplinks: eth0
        pods: veth1
    "#]],
    );
    let no_default = "
        lo
        eth0/veth 172.18.0.2
        veth1/veth";
    check(
        no_default,
        "",
        &["172.18.0.2"],
        expect![[r#"
        uplinks: eth0
        pods: veth1
    "#]],
    );
}

#[test]
fn without_default_route_and_node_address_every_global_address_counts() {
    let table = "
        lo
        eth0 192.0.2.1
        eth1 fe80::1
        eth2/veth 2001:db8::1
        cni0/bridge 10.244.1.1
        veth1/veth@cni0 10.244.1.9
        vxlan0/vxlan 10.244.1.0";
    check(
        table,
        "",
        &[],
        expect![[r#"
        uplinks: eth0 eth2
        pods: cni0 veth1
    "#]],
    );
}

#[test]
fn only_ethernet() {
    let table = "
        lo default
        wg0/wireguard 192.0.2.1 default
        eth0 198.51.100.1";
    check(
        table,
        "",
        &[],
        expect![[r#"
        uplinks: eth0
        pods: 
        not wg0: is not an Ethernet device
    "#]],
    );
    check(
        "lo 127.0.0.1",
        "",
        &["127.0.0.1"],
        expect![[r#"
        uplinks: 
        pods: 
    "#]],
    );
    check(
        "",
        "",
        &[],
        expect![[r#"
        uplinks: 
        pods: 
    "#]],
    );
}

#[test]
fn names_are_checked() {
    for wrong in ["a/b", "a b", "", "sixteen-letters-"] {
        let flags = Flags::try_parse_from(["test", "--uplinks", wrong]);
        assert!(flags.is_err(), "{wrong:?}");
    }
}
