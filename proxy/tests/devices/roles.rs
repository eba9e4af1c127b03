//! Devices that are neither hardware nor pods': overlays, others, and those that can get nothing.

use podium_proxy::{
    datapath::links::DeviceHook::{TcxEgress, TcxIngress},
    devices,
};

use crate::namespace::{Namespace, eventually, ip, run};

/// An uplink, an overlay on it that has no address, and a device of the kind no pod has.
fn node() {
    ip("link add eth0 type veth peer name wire");
    ip("addr add 192.0.2.1/24 dev eth0");
    ip("link set eth0 up");
    ip("link set wire up");
    ip("route add default via 192.0.2.254 dev eth0");
    ip("link add vx0 type vxlan id 7 dstport 4789 remote 192.0.2.9 dev eth0");
    ip("link set vx0 up");
    ip("link add link wire name mac0 type macvlan");
    ip("link set mac0 up");
}

#[test]
fn kernel_overlay_becomes_an_uplink_with_its_first_route() {
    let namespace = Namespace::new("overlay");
    node();
    let handle = namespace.start("--pod-devices none --xdp native");
    let uplink = "eth0:tcx_ingress eth0:tcx_egress eth0:xdp_native";
    let others = format!("{uplink} vx0:tcx_egress mac0:tcx_egress");
    assert_eq!(namespace.shown(), others);
    assert_eq!(namespace.program(TcxEgress, "vx0"), "egress");
    let before = namespace.link(TcxEgress, "vx0").unwrap();
    ip("route add 10.244.2.0/24 dev vx0");
    eventually("it runs the program of uplinks", || {
        namespace.program(TcxIngress, "vx0") == "uplink_ingress"
    });
    assert_eq!(
        namespace.shown(),
        format!("{uplink} vx0:tcx_ingress vx0:tcx_egress mac0:tcx_egress"),
        "and none of XDP, which it does not have"
    );
    assert_eq!(namespace.link(TcxEgress, "vx0").unwrap().link_id, before.link_id);
    assert_eq!(handle.problems(), [].into());
    ip("link set mac0 down");
    eventually("what is down is let go", || !namespace.shown().contains("mac0"));
    ip("link set mac0 up");
    eventually("what is up again is not", || namespace.shown().contains("mac0:tcx_egress"));
    drop(handle);
    let _handle = namespace.start("--pod-devices none --uplinks eth0 --xdp native");
    assert_eq!(namespace.shown(), others, "with uplinks named it is none of them");
    assert_eq!(namespace.link(TcxEgress, "vx0").unwrap().link_id, before.link_id);
}

#[test]
fn kernel_overlay_and_others_by_clsact() {
    let namespace = Namespace::new("overlay_clsact");
    node();
    ip("addr add 10.244.1.0/32 dev vx0");
    let shown = || {
        let shown = devices::attached(&namespace.links()).unwrap();
        let shown = shown.iter().map(|one| format!("{} {}", one.device, one.hook));
        shown.collect::<Vec<_>>().join(", ")
    };
    let uplink = "eth0 clsact_ingress, eth0 clsact_egress, mac0 clsact_egress";
    drop(namespace.start("--tc-attach clsact --pod-devices none"));
    assert_eq!(shown(), format!("{uplink}, vx0 clsact_ingress, vx0 clsact_egress"));
    assert!(run("tc", "filter show dev vx0 ingress").contains("podium_uplink_ingress"));
    drop(namespace.start("--tc-attach clsact --pod-devices none --uplinks eth0"));
    assert_eq!(shown(), format!("{uplink}, vx0 clsact_egress"));
    drop(namespace.start("--pod-devices none --uplinks eth0"));
    assert_eq!(shown().matches("clsact").count(), 0);
    assert_eq!(
        namespace.shown(),
        "eth0:tcx_ingress eth0:tcx_egress vx0:tcx_egress mac0:tcx_egress"
    );
}

#[test]
fn kernel_devices_without_ethernet_header_are_a_problem_with_their_first_route() {
    let namespace = Namespace::new("tunnel");
    node();
    ip("tuntap add tun0 mode tun");
    let handle = namespace.start("");
    let shown = || {
        let shown = devices::skipped().unwrap().into_iter();
        shown.map(|(name, skipped)| format!("{name}: {}", skipped.reason)).collect::<Vec<_>>()
    };
    let problems = || handle.problems().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(), [""; 0], "it is down");
    ip("link set tun0 up");
    ip("addr add 10.9.0.1/24 dev tun0");
    assert_eq!(shown(), ["tun0: it has no Ethernet header"]);
    assert_eq!(problems(), [""; 0]);
    ip("route add 10.244.2.0/24 dev tun0");
    let routes = "it has no Ethernet header, and routes lead to it";
    eventually("it is a problem", || !problems().is_empty());
    assert_eq!(problems(), [format!("device tun0: gets no programs: {routes}")]);
    assert_eq!(shown(), [format!("tun0: {routes}")]);
    ip("route add default dev tun0 metric 9");
    eventually("it is another", || problems()[0].ends_with("and a default route leads to it"));
    ip("link del tun0");
    eventually("it is none", || problems().is_empty());
    assert_eq!(namespace.link(TcxIngress, "vx0"), None, "of no address and no route");
}
