//! Beside a kube-proxy's rules, and in their place. Need iptables in both variants and nft.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use crate::node::{Node, eventually, serve_tcp, service, slice};

const PROGRAM: &str = env!("CARGO_BIN_EXE_podium-proxy");

/// As kube-proxy 1.3x in iptables mode lays its rules out, with one service.
const NAT: &str = r#"*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SEP-3TVBFVYWQTSXVJ2P - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE
-A KUBE-SERVICES -d SERVICE_IP -p tcp -m comment --comment "default/web:a cluster IP" -m tcp --dport 80 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-NPX46M4PTMTKRN6Y -m comment --comment "default/web:a -> ENDPOINT" -j KUBE-SEP-3TVBFVYWQTSXVJ2P
-A KUBE-SEP-3TVBFVYWQTSXVJ2P -s ENDPOINT_IP -m comment --comment "default/web:a" -j KUBE-MARK-MASQ
-A KUBE-SEP-3TVBFVYWQTSXVJ2P -p tcp -m comment --comment "default/web:a" -m tcp -j DNAT --to-destination ENDPOINT
COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
"#;

/// Rules of a kubelet, of a container runtime and of the machine's owner.
const FOREIGN: &str = r#"*nat
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "not -j KUBE-SERVICES" -m tcp --dport 9 -j RETURN
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -p tcp -m tcp --dport 7 -m comment --comment "KUBE-SERVICES is not meant" -j DROP
COMMIT
*mangle
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
"#;

fn nat(family: &str) -> String {
    let (service, ip, endpoint) = match family {
        "iptables" => ("10.96.0.10/32", "127.0.0.1/32", "127.0.0.1:8080"),
        _ => ("fd00:96::10/128", "::1/128", "[::1]:8080"),
    };
    let text = NAT.replace("SERVICE_IP", service).replace("ENDPOINT_IP", ip);
    text.replace("ENDPOINT", endpoint)
}

fn tool(name: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(name)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap_or_else(|error| panic!("these tests need {name}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    assert!(status.success(), "{name} {args:?}");
    String::from_utf8(stdout).unwrap()
}

const VARIANTS: [&str; 4] =
    ["iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"];

fn restore(variant: &str, text: &str) {
    tool(&format!("{variant}-restore"), &["--noflush"], text);
}

/// Chains and rules, without comments and counters, sorted: the order of chains means nothing.
fn saved(variant: &str) -> Vec<String> {
    let text = tool(&format!("{variant}-save"), &[], "");
    let mut lines: Vec<String> = (text.lines())
        .filter(|line| line.starts_with([':', '-']))
        .map(|line| line.split(" [").next().unwrap_or(line).to_owned())
        .collect();
    lines.sort();
    lines
}

/// By its name; a kernel that is to run the tests need have neither IPVS nor dummy devices.
fn add_ipvs_device() {
    tool("ip", &["link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "peer0"], "");
}

fn nft_tables() -> String {
    tool("nft", &["list", "tables"], "")
}

/// A run of the agent that ends by itself.
fn refused(node: &Node) -> (Option<i32>, String) {
    let output =
        node.command(&["run", "--manifests", "/", "--cgroup", node.cgroup().to_str().unwrap()]);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn kernel_kube_proxy_rules_are_refused_in_one_sentence() {
    let node = Node::new("refuse_kp");
    VARIANTS.iter().for_each(|variant| restore(variant, FOREIGN));
    restore("iptables-nft", &nat("iptables"));
    let (code, said) = refused(&node);
    assert_eq!(code, Some(2));
    assert_eq!(
        said,
        "podium-proxy: kube-proxy's rules are on this node (iptables-nft: 7 chains such as \
         KUBE-SERVICES): stop kube-proxy and give --takeover, which removes them as soon as \
         services are balanced here, or --allow-kube-proxy to run beside them\n"
    );
    tool("iptables-nft", &["-t", "nat", "-F"], "");
    tool("nft", &["flush", "ruleset"], "");
    for (what, add) in [
        ("iptables-legacy: 7 chains", "iptables-legacy"),
        ("ip6tables-legacy: 7 chains", "ip6tables-legacy"),
    ] {
        restore(add, &nat(add.split('-').next().unwrap()));
        let (code, said) = refused(&node);
        assert!(code == Some(2) && said.contains(what), "{said}");
    }
    tool("nft", &["add", "table", "ip6", "kube-proxy"], "");
    add_ipvs_device();
    let (code, said) = refused(&node);
    assert!(code == Some(2) && said.contains("; nftables: table ip6 kube-proxy; IPVS: device"));
    let both = Command::new(PROGRAM).args(["run", "--takeover", "--allow-kube-proxy"]).output();
    assert_eq!(both.unwrap().status.code(), Some(2), "one or the other");
}

#[test]
fn kernel_rules_of_others_are_no_reason_to_refuse() {
    let mut node = Node::new("foreign_kp");
    VARIANTS.iter().for_each(|variant| restore(variant, FOREIGN));
    tool("nft", &["add", "table", "inet", "firewall"], "");
    node.start();
}

#[test]
fn kernel_allow_kube_proxy_leaves_its_rules() {
    let mut node = Node::new("allow_kp");
    restore("iptables-nft", &nat("iptables"));
    let before = saved("iptables-nft");
    node.flags(&["--allow-kube-proxy"]);
    node.start();
    assert_eq!(saved("iptables-nft"), before);
}

/// Who answers, or the error; never waits for ever.
fn ask(at: &str) -> String {
    let at = at.parse().unwrap();
    let mut answer = String::new();
    let result = TcpStream::connect_timeout(&at, Duration::from_secs(5)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.read_to_string(&mut answer)
    });
    result.map_or_else(|error| format!("{:?}", error.kind()), |_| answer)
}

/// Connects for a while, and tells every answer that is not the right one.
fn load(at: &'static str) -> impl FnOnce() -> String {
    move || {
        let started = std::time::Instant::now();
        let (mut count, mut errors) = (0, String::new());
        while started.elapsed() < Duration::from_secs(4) {
            count += 1;
            let answer = ask(at);
            if !answer.ends_with(":8080") {
                errors += &format!(" {answer}");
            }
        }
        format!("{count} connections, errors:{errors}")
    }
}

fn web() -> String {
    service("web", "10.96.0.10", 80, "")
        + &slice("web", "IPv4", 8080, &["127.0.0.1"])
        + &service("six", "fd00:96::10", 80, "")
        + &slice("six", "IPv6", 8080, &["::1"])
}

#[test]
fn kernel_takeover_removes_kube_proxys_rules_only_and_loses_nothing() {
    let mut node = Node::new("takeover");
    // Still loopback only; kube-proxy's rules need a route to begin with.
    tool("ip", &["address", "add", "10.1.0.9/32", "dev", "lo"], "");
    tool("ip", &["route", "add", "10.96.0.0/16", "dev", "lo", "src", "10.1.0.9"], "");
    serve_tcp("127.0.0.1:8080");
    serve_tcp("[::1]:8080");
    VARIANTS.iter().for_each(|variant| restore(variant, FOREIGN));
    let foreign = VARIANTS.map(saved);
    for variant in VARIANTS {
        restore(variant, &nat(variant.split('-').next().unwrap()));
    }
    for family in ["ip", "ip6"] {
        let table = format!(
            "table {family} kube-proxy {{\n chain services {{ }}\n chain nat-output {{\n type nat \
             hook output priority -100; policy accept;\n jump services\n }}\n}}\n\
             table {family} other {{\n chain kept {{ }}\n}}\n"
        );
        tool("nft", &["-f", "-"], &table);
    }
    add_ipvs_device();
    assert_eq!(ask("10.96.0.10:80"), "127.0.0.1:8080", "by kube-proxy's rules");
    let pod = node.pod(load("10.96.0.10:80"));
    thread::sleep(Duration::from_millis(300));
    node.manifest("web.yaml", &web());
    node.flags(&["--takeover"]);
    node.start();
    eventually("kube-proxy's tables are gone", || !nft_tables().contains("kube-proxy"));
    eventually("its device is gone", || {
        !Command::new("ip").args(["link", "show", "kube-ipvs0"]).output().unwrap().status.success()
    });
    for (variant, before) in VARIANTS.iter().zip(&foreign) {
        assert_eq!(&saved(variant), before, "{variant}: only what was there before");
    }
    let tables = nft_tables();
    assert!(tables.contains("table ip other") && tables.contains("table ip6 other"), "{tables}");
    let said = pod.said();
    println!("{said}");
    let count: u32 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(count > 100, "too few to mean anything: {said}");
    assert!(said.ends_with("errors:"), "{said}");
    assert_eq!(node.in_pod(|| ask("[fd00:96::10]:80")), "[::1]:8080");
    node.kill();
    node.flags(&[]);
    node.start();
}

#[test]
fn kernel_takeover_keeps_chains_that_others_use() {
    let mut node = Node::new("takeover_kept");
    restore("iptables-nft", &nat("iptables"));
    let foreign = "*nat\n:CNI-DN-1 - [0:0]\n-A CNI-DN-1 -p tcp -j KUBE-MARK-MASQ\nCOMMIT\n";
    restore("iptables-nft", foreign);
    node.flags(&["--takeover"]);
    node.start();
    eventually("all is gone but what others use", || {
        saved("iptables-nft").iter().filter(|line| line.starts_with(":KUBE")).count() == 2
    });
    let left = saved("iptables-nft").join("\n");
    for kept in [
        ":KUBE-MARK-MASQ",
        ":KUBE-POSTROUTING",
        "-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
        "-A CNI-DN-1 -p tcp -j KUBE-MARK-MASQ",
    ] {
        assert!(left.contains(kept), "{kept} in {left}");
    }
    // Which is no reason to refuse.
    node.kill();
    node.flags(&[]);
    node.start();
}
