//! The kernel's devices and what is on them, each test in a network namespace of its own.

use std::sync::atomic::Ordering;

use aya::programs::{SchedClassifier, TcAttachType};
use podium_proxy::{
    datapath::links::DeviceHook::{TcxEgress, TcxIngress},
    devices,
};

use crate::namespace::{Elsewhere, Namespace, eventually, index, ip, run};

/// An uplink with a default route, and a pod.
fn node() {
    ip("link add eth0 type veth peer name wire");
    ip("addr add 192.0.2.1/24 dev eth0");
    for device in ["eth0", "wire"] {
        // No addresses that come when they like.
        ip(&format!("link set {device} addrgenmode none"));
        ip(&format!("link set {device} up"));
    }
    ip("route add default via 192.0.2.254 dev eth0");
    ip("link add pod0 type veth peer name inside");
}

const WIRE_APART: &str = "--uplinks eth0";

#[test]
fn kernel_programs_are_on_the_devices() {
    let namespace = Namespace::new("places");
    node();
    let _handle = namespace.start("");
    assert_eq!(
        namespace.shown(),
        "wire:tcx_ingress wire:tcx_egress eth0:tcx_ingress eth0:tcx_egress \
         inside:tcx_ingress inside:tcx_egress pod0:tcx_ingress pod0:tcx_egress"
    );
    assert_eq!(namespace.program(TcxIngress, "eth0"), "uplink_ingress");
    assert_eq!(namespace.program(TcxEgress, "eth0"), "egress");
    assert_eq!(namespace.program(TcxIngress, "pod0"), "pod_ingress");
    assert_eq!(namespace.program(TcxEgress, "pod0"), "egress");
}

#[test]
fn kernel_taps_and_ports_of_bridges_lead_to_pods() {
    let namespace = Namespace::new("taps");
    node();
    ip("tuntap add tap0 mode tap");
    ip("tuntap add tun0 mode tun");
    ip("link add cni0 type bridge");
    ip("link set pod0 master cni0");
    ip("link add br0 type bridge");
    ip("link add eth1 type ifb");
    ip("link set inside master br0");
    let _handle = namespace.start("--uplinks eth0,br0");
    for device in ["tap0", "cni0", "pod0"] {
        assert_eq!(namespace.program(TcxIngress, device), "pod_ingress", "{device}");
    }
    assert_eq!(namespace.program(TcxIngress, "br0"), "uplink_ingress");
    for device in ["tun0", "eth1", "inside", "lo"] {
        assert_eq!(namespace.link(TcxIngress, device), None, "{device}");
    }
}

#[test]
fn kernel_programs_of_others_see_packets_as_on_the_wire() {
    let namespace = Namespace::new("order");
    node();
    let (before, after) = (namespace.foreign("before"), namespace.foreign("after"));
    before.attach("eth0");
    let _handle = namespace.start("--pod-devices none");
    after.attach("eth0");
    let order = |hook: TcAttachType| {
        let (_, programs) = SchedClassifier::query_tcx("eth0", hook).unwrap();
        let names = programs.iter().map(|one| one.name_as_str().unwrap_or_default().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(order(TcAttachType::Ingress), "before uplink_ingress after");
    assert_eq!(order(TcAttachType::Egress), "after egress before");
}

#[test]
fn kernel_next_agent_updates_in_place() {
    let namespace = Namespace::new("in_place");
    node();
    for flags in ["", "--xdp native"] {
        drop(namespace.start(flags));
        let before = namespace.attached();
        drop(namespace.start(flags));
        let after = namespace.attached();
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            assert!(after.attached, "{after:?}");
            assert_eq!((before.hook, before.link_id), (after.hook, after.link_id));
            assert_ne!(before.program_id, after.program_id, "{after:?}");
        }
    }
}

#[test]
fn kernel_new_pod_is_served() {
    let namespace = Namespace::new("new_pod");
    node();
    let _handle = namespace.start(WIRE_APART);
    let mut all = Vec::new();
    for round in 0..5 {
        let pod = format!("pod{}", round + 1);
        ip(&format!("link add {pod} type veth peer name peer{round}"));
        all.push(eventually("the pod's device is served", || {
            namespace.link(TcxEgress, &pod).is_some() && namespace.link(TcxIngress, &pod).is_some()
        }));
    }
    println!("served after the `ip` command that made it ended: {all:?}");
}

#[test]
fn kernel_links_of_devices_that_are_gone_are_unpinned() {
    let namespace = Namespace::new("gone");
    node();
    let handle = namespace.start("");
    let before = namespace.attached().len();
    ip("link del pod0");
    eventually("its links are unpinned", || namespace.attached().len() == before - 4);
    drop(handle);
    ip("link del eth0");
    assert!(namespace.attached().iter().all(|link| !link.attached));
    // While no agent runs another device takes the index.
    ip("link add eth9 index 3 type veth peer name wire9");
    ip("addr add 192.0.2.1/24 dev eth9");
    assert_eq!(namespace.shown(), "");
    let _handle = namespace.start("--uplinks eth9 --pod-devices none");
    assert_eq!(namespace.shown(), "eth9:tcx_ingress eth9:tcx_egress");
}

#[test]
fn kernel_device_that_moved_away_is_let_go() {
    let namespace = Namespace::new("moved");
    node();
    let elsewhere = Elsewhere::new();
    let handle = namespace.start("");
    let pid = elsewhere.pid();
    let inside = index("inside");
    let taken: Vec<_> = namespace.attached();
    let taken: Vec<_> = taken.into_iter().filter(|link| link.ifindex == inside).collect();
    assert_eq!(taken.len(), 2);
    ip(&format!("link set inside netns {pid}"));
    eventually("its links are unpinned", || {
        namespace.attached().iter().all(|link| link.ifindex != inside)
    });
    eventually("no program of ours goes along", || !Namespace::any_left(&taken));
    drop(handle);
    // The same, unseen, and another device has the index then.
    let pod0 = index("pod0");
    let before = namespace.link(TcxIngress, "pod0").unwrap();
    ip(&format!("link set pod0 netns {pid}"));
    ip(&format!("link add pod9 index {pod0} type veth peer name peer9"));
    let _handle = namespace.start("");
    assert_eq!(namespace.program(TcxIngress, "pod9"), "pod_ingress");
    let after = namespace.link(TcxIngress, "pod9").unwrap();
    assert_ne!(after.link_id, before.link_id);
    eventually("no program of ours is there", || !Namespace::any_left(&[before]));
}

#[test]
fn kernel_pod_device_becomes_an_uplink_in_place() {
    let namespace = Namespace::new("class");
    node();
    let _handle = namespace.start("");
    let before = namespace.link(TcxIngress, "pod0").unwrap();
    ip("link set inside up");
    ip("link set pod0 up");
    ip("addr add 198.51.100.1/24 dev pod0");
    ip("route add default via 198.51.100.254 dev pod0 metric 9");
    eventually("it runs the program of uplinks", || {
        namespace.program(TcxIngress, "pod0") == "uplink_ingress"
    });
    let after = namespace.link(TcxIngress, "pod0").unwrap();
    assert_eq!(before.link_id, after.link_id);
    ip("route del default dev pod0");
    eventually("it runs the program of pods", || {
        namespace.program(TcxIngress, "pod0") == "pod_ingress"
    });
    assert_eq!(namespace.link(TcxIngress, "pod0").unwrap().link_id, before.link_id);
}

#[test]
fn kernel_addresses_of_the_host_are_followed() {
    let namespace = Namespace::new("addresses");
    node();
    let handle = namespace.start("--uplinks nic+");
    let changes = || namespace.host_changes.load(Ordering::SeqCst);
    assert_eq!(changes(), 0);
    ip("addr add 192.0.2.77/24 dev eth0");
    eventually("the reconciler is told", || changes() == 1);
    ip("addr add 2001:db8::77/64 dev eth0");
    eventually("the reconciler is told", || changes() == 2);
    drop(handle);
    let ips = ["192.0.2.77".parse().unwrap()].into();
    let handle = namespace.start("");
    ip("route del default");
    ip("link add nic1 type ifb");
    ip("addr add 203.0.113.1/24 dev nic1");
    eventually("the default route counts no more", || namespace.shown().contains("nic1"));
    handle.set_node_ips(&ips);
    eventually("the node's address counts", || !namespace.shown().contains("nic1"));
}

#[test]
fn kernel_clsact_where_there_is_no_tcx() {
    let namespace = Namespace::new("clsact");
    node();
    let flags = "--tc-attach clsact --uplinks eth0";
    run("tc", "qdisc add dev eth0 clsact");
    run("tc", "filter add dev eth0 ingress pref 7 protocol ip u32 match u32 0 0");
    let handle = namespace.start(flags);
    assert_eq!(namespace.shown(), "", "no links");
    let shown = devices::attached(&namespace.links()).unwrap();
    let of_eth0 = shown.iter().filter(|one| one.device == "eth0");
    let hooks: Vec<_> = of_eth0.map(|one| (one.hook, one.attached)).collect();
    assert_eq!(hooks, [("clsact_ingress", true), ("clsact_egress", true)]);
    let ingress = || run("tc", "filter show dev eth0 ingress");
    let egress = || run("tc", "filter show dev pod0 egress");
    let id = |text: String| {
        let (_, rest) = text.split_once("direct-action not_in_hw id ").unwrap();
        rest.split_whitespace().next().unwrap().parse::<u32>().unwrap()
    };
    assert!(ingress().contains("pref 60100 bpf chain 0 handle 0x706f podium_uplink_ingress"));
    assert!(egress().contains("pref 100 bpf chain 0 handle 0x706f podium_egress"), "{}", egress());
    let (before_in, before_out) = (id(ingress()), id(egress()));
    ip("link add pod1 type veth peer name peer1");
    eventually("a new pod is served", || {
        run("tc", "filter show dev pod1 ingress").contains("podium_pod_ingress")
    });
    drop(handle);
    let handle = namespace.start(flags);
    assert_ne!(before_in, id(ingress()), "another program");
    assert_ne!(before_out, id(egress()), "another program");
    assert_eq!(ingress().matches("podium_").count(), 1, "in the same filter: {}", ingress());
    drop(handle);
    assert!(devices::cleanup(&namespace.links()).unwrap());
    assert!(!ingress().contains("podium"), "{}", ingress());
    assert!(ingress().contains("u32"), "what is not ours stays: {}", ingress());
    assert!(!run("tc", "qdisc show dev pod0").contains("clsact"), "a qdisc nobody needs goes");
    assert!(!run("bpftool", "net show").contains("podium"));
    assert!(!devices::cleanup(&namespace.links()).unwrap());
}

#[test]
fn kernel_tcx_and_clsact_take_over_from_each_other() {
    let namespace = Namespace::new("turns");
    node();
    let tcx = "--tc-attach tcx --uplinks eth0 --pod-devices none";
    let clsact = "--tc-attach clsact --uplinks eth0 --pod-devices none";
    let filters = || run("tc", "filter show dev eth0 ingress");
    for _ in 0..2 {
        drop(namespace.start(tcx));
        assert_eq!(namespace.shown(), "eth0:tcx_ingress eth0:tcx_egress");
        assert!(!filters().contains("podium"), "{}", filters());
        drop(namespace.start(clsact));
        assert_eq!(namespace.shown(), "");
        assert!(filters().contains("podium_uplink_ingress"), "{}", filters());
    }
    // A qdisc of an older kind is in the way on one device only.
    run("tc", "qdisc del dev eth0 clsact");
    drop(namespace.start(tcx));
    run("tc", "qdisc add dev eth0 ingress");
    drop(namespace.start("--tc-attach clsact --uplinks eth0"));
    assert_eq!(namespace.shown(), "eth0:tcx_ingress eth0:tcx_egress", "the old way stays there");
    assert!(run("tc", "filter show dev pod0 ingress").contains("podium_pod_ingress"));
}

#[test]
fn kernel_xdp_native_generic_and_refused() {
    let namespace = Namespace::new("xdp");
    node();
    ip("link add nic1 type ifb");
    ip("addr add 198.51.100.1/24 dev nic1");
    let uplinks = |xdp: &str| format!("--uplinks eth0,nic1 --pod-devices none --xdp {xdp}");
    let tc = |name: &str| format!("{name}:tcx_ingress {name}:tcx_egress");
    let mode = |name: &str| {
        let shown = ip(&format!("link show {name}"));
        let modes = ["xdpgeneric", "xdp/", "xdp "];
        (modes.into_iter().find(|mode| shown.contains(mode))).map(|mode| mode.trim_end().to_owned())
    };
    let handle = namespace.start(&uplinks("native"));
    let problems: Vec<String> = handle.problems().iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["device nic1: its driver has no native XDP"]);
    drop(handle);
    assert_eq!(
        namespace.shown(),
        format!("{} eth0:xdp_native {}", tc("eth0"), tc("nic1")),
        "an ifb has no native XDP, which is no harm to others"
    );
    assert_eq!(mode("nic1"), None);
    drop(namespace.start(&uplinks("generic")));
    assert_eq!(
        namespace.shown(),
        format!("{} eth0:xdp_generic {} nic1:xdp_generic", tc("eth0"), tc("nic1"))
    );
    assert_eq!(mode("eth0").as_deref(), Some("xdpgeneric"));
    drop(namespace.start(&uplinks("auto")));
    assert_eq!(namespace.shown(), format!("{} eth0:xdp_native {}", tc("eth0"), tc("nic1")));
    assert_eq!(mode("eth0").as_deref(), Some("xdp"));
    drop(namespace.start(&uplinks("off")));
    assert_eq!(namespace.shown(), format!("{} {}", tc("eth0"), tc("nic1")));
    assert_eq!(mode("eth0"), None);
}

/// Filters have no folder of pins that would tell whose they are.
#[test]
fn kernel_two_agents_of_one_namespace_are_refused() {
    let namespace = Namespace::new("two");
    node();
    let first = namespace.start("--tc-attach clsact --uplinks eth0,none");
    let problems: Vec<String> = first.problems().iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["device none: gets no programs: there is no such device"]);
    let shown = devices::attached(&namespace.links()).unwrap();
    let shown: Vec<_> =
        (shown.iter()).map(|one| format!("{} {} {}", one.device, one.hook, one.program)).collect();
    assert_eq!(shown[..2], ["eth0 clsact_ingress uplink_ingress", "eth0 clsact_egress egress"]);
    let refused = namespace.try_start("--tc-attach clsact --uplinks eth0");
    assert!(matches!(refused, Err(devices::Error::InUse)), "{refused:?}");
    assert!(matches!(devices::cleanup(&namespace.links()), Err(devices::Error::InUse)));
    assert_eq!(devices::attached(&namespace.links()).unwrap().len(), shown.len());
    drop(first);
    drop(namespace.start("--tc-attach clsact --uplinks eth0"));
}

#[test]
fn kernel_cleanup_leaves_nothing() {
    let namespace = Namespace::new("cleanup");
    node();
    drop(namespace.start("--xdp auto"));
    let before = namespace.attached();
    assert_eq!(before.len(), 9, "{before:?}");
    assert!(devices::cleanup(&namespace.links()).unwrap());
    eventually("the kernel has none of the links", || !Namespace::any_left(&before));
    let left = run("bpftool", "net show");
    assert!(!left.contains("eth0"), "{left}");
    assert_eq!(namespace.attached(), []);
    assert!(!devices::cleanup(&namespace.links()).unwrap());
}

#[test]
fn kernel_storm_of_devices_ends_in_order() {
    let namespace = Namespace::new("storm");
    node();
    let _handle = namespace.start(WIRE_APART);
    for round in 0..60 {
        ip(&format!("link add s{round} type veth peer name t{round}"));
        if round % 2 == 0 {
            ip(&format!("link del s{round}"));
        }
    }
    // 60 devices of the storm, and four from before.
    eventually("all that are left are served, and no others", || {
        let links = namespace.attached();
        links.len() == 128 && links.iter().all(|link| link.attached)
    });
}
