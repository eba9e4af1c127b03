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

/// One device a line: `name[/kind][@master][>lower] [addresses …] [default] [route] [down]`.
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
                _ if kind == "ipip" => 768,
                _ => 1,
            },
            master: index_of(master),
            link: index_of(lower),
            is_up: true,
            ..Device::default()
        };
        for word in words {
            match word {
                "default" => device.has_default_route = true,
                "route" => device.has_route = true,
                "down" => device.is_up = false,
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
    for (what, role) in [("overlays", Role::Overlay), ("others", Role::Other)] {
        let names = of(role);
        if !names.is_empty() {
            shown += &format!("{what}: {names}\n");
        }
    }
    for (name, skipped) in &plan.skipped {
        let not = if skipped.matters { "not" } else { "of course not" };
        shown += &format!("{not} {name}: {}\n", skipped.reason);
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
            overlays: flannel0
            others: eth1
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
            overlays: flannel0
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
            overlays: flannel0
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
            others: eth0 flannel0
        "#]],
    );
    check(
        NODE,
        "--uplinks eth+,veth2,nic9",
        &[],
        expect![[r#"
            uplinks: eth0 eth1 veth2
            pods: cni0 veth1 tap1
            others: flannel0
            not nic9: there is no such device
        "#]],
    );
    check(
        NODE,
        "--uplinks + --pod-devices none",
        &[],
        expect![[r#"
            uplinks: eth0 eth1 cni0 veth1 veth2 tap1 dummy0
            pods: 
            overlays: flannel0
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
            overlays: flannel0
            others: eth1
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
            overlays: vxlan0
            others: eth1
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
            not wg0: it has no Ethernet header, and a default route leads to it
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

/// Answers leave by whatever device the routes say.
#[test]
fn every_other_device_that_is_up_puts_sources_right() {
    let table = "
        lo 127.0.0.1
        eth0 192.0.2.1 default
        eth1 198.51.100.1
        eth2 down
        vlan7/vlan>eth1 203.0.113.1
        mac0/macvlan
        ifb0/ifb
        dummy0/dummy 169.254.20.10
        gretap0/gretap down
        vrf0/vrf
        eth3@vrf0
        netkit1/netkit";
    check(
        table,
        "",
        &[],
        expect![[r#"
        uplinks: eth0
        pods: netkit1
        others: eth1 vlan7 mac0 vrf0 eth3
    "#]],
    );
}

#[test]
fn what_is_part_of_a_served_device_is_left_to_it() {
    let table = "
        lo
        bond0/bond 192.0.2.1 default
        eth0@bond0
        bond1/bond 198.51.100.1
        eth1@bond1
        br0/bridge
        bond2/bond@br0
        eth2@bond2
        eth3@br0
        ovs-system/openvswitch down
        eth4@ovs-system
        br-int/openvswitch 10.244.1.1";
    check(
        table,
        "",
        &[],
        expect![[r#"
        uplinks: bond0
        pods: br0
        others: bond1 eth4 br-int
    "#]],
    );
    let below = "
        lo
        eth0
        vlan10/vlan>eth0 192.0.2.1 default
        eth1 198.51.100.1
        vlan11/vlan>eth1 192.0.2.2 default";
    check(
        below,
        "",
        &[],
        expect![[r#"
        uplinks: vlan10 vlan11
        pods: 
        others: eth1
    "#]],
    );
}

/// A source rewritten on the way to a pod needs a program at ingress for the answer.
#[test]
fn devices_towards_pods_that_are_left_alone_get_nothing() {
    let table = "
        lo
        eth0 192.0.2.1 default
        eth1 198.51.100.1
        cni0/bridge
        eth2@cni0
        veth1/veth
        tap1/tun
        gw0/openvswitch";
    check(
        table,
        "--pod-devices none",
        &[],
        expect![[r#"
        uplinks: eth0
        pods: 
        others: eth1 eth2
    "#]],
    );
}

#[test]
fn overlays_with_addresses_or_routes_are_uplinks_without_xdp() {
    let table = "
        lo
        br0/bridge 192.0.2.1 default
        flannel.1/vxlan>br0 10.244.1.0
        genev0/geneve fe80::1 route
        cilium_vxlan/vxlan fe80::2
        ovs-system/openvswitch down
        genev_sys_6081/geneve@ovs-system fe80::3 route
        br1/bridge
        vx1/vxlan@br1 fe80::4 route
        veth1/veth@br1";
    check(
        table,
        "",
        &["192.0.2.1"],
        expect![[r#"
        uplinks: br0
        pods: br1 veth1
        overlays: flannel.1 genev0
        others: cilium_vxlan genev_sys_6081
    "#]],
    );
    check(
        table,
        "--uplinks br0",
        &[],
        expect![[r#"
        uplinks: br0
        pods: br1 veth1
        others: flannel.1 genev0 cilium_vxlan genev_sys_6081
    "#]],
    );
    check(
        table,
        "--uplinks br0,genev0",
        &[],
        expect![[r#"
        uplinks: br0
        pods: br1 veth1
        overlays: genev0
        others: flannel.1 cilium_vxlan genev_sys_6081
    "#]],
    );
}

/// Nothing is known of the node, and an overlay alone would be taken for all of it.
#[test]
fn overlays_do_not_keep_from_looking_for_uplinks() {
    check(
        "eth0 192.0.2.1\nvx0/vxlan 10.244.1.0",
        "",
        &[],
        expect![[r#"
        uplinks: eth0
        pods: 
        overlays: vx0
    "#]],
    );
    check(
        "eth0 192.0.2.1\nvx0/vxlan 10.244.1.0",
        "",
        &["192.0.2.1"],
        expect![[r#"
        uplinks: eth0
        pods: 
        overlays: vx0
    "#]],
    );
}

#[test]
fn devices_without_ethernet_header_are_said_loudly_if_they_matter() {
    let table = "
        lo
        eth0 192.0.2.1 default
        tunl0/ipip 10.244.1.0 route
        wg0/wireguard 10.9.0.1
        wg1/wireguard 192.0.2.7
        wg2/wireguard default route
        sit0/ipip down";
    check(
        table,
        "",
        &["192.0.2.1", "192.0.2.7"],
        expect![[r#"
        uplinks: eth0
        pods: 
        not tunl0: it has no Ethernet header, and routes lead to it
        of course not wg0: it has no Ethernet header
        not wg1: it has no Ethernet header, and an address of the node is on it
        not wg2: it has no Ethernet header, and a default route leads to it
    "#]],
    );
    check(
        table,
        "--uplinks eth0,wg0,lo,tun+",
        &[],
        expect![[r#"
        uplinks: eth0
        pods: 
        not lo: it is the loopback
        not tunl0: it has no Ethernet header, and routes lead to it
        not wg0: it has no Ethernet header, and is named as an uplink
        of course not wg1: it has no Ethernet header
        not wg2: it has no Ethernet header, and a default route leads to it
    "#]],
    );
}
