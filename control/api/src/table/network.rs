//! The rows of Services, their endpoints, and Ingresses.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    AGE, Cells, Column, NAME, NONE, age, column, int, labels, list, name, or_none, shortened, text,
    text_or_none,
};

pub(super) const SERVICE: &[Column] = &[
    NAME,
    column("Type", "How the Service is exposed."),
    column("Cluster-IP", "The address of the Service inside the cluster."),
    column("External-IP", "The addresses of the Service outside the cluster."),
    column("Port(s)", "The ports of the Service, with their node ports."),
    AGE,
    column("Selector", "The labels of the pods behind the Service.").wide(),
];

pub(super) fn service(service: &Value, now: Timestamp) -> Cells {
    let cluster_ip = match text(service, "/spec/clusterIPs/0") {
        "" => text_or_none(service, "/spec/clusterIP"),
        ip => ip,
    };
    vec![
        name(service),
        json!(text(service, "/spec/type")),
        json!(cluster_ip),
        json!(external_addresses(service)),
        json!(service_ports(service)),
        age(service, now),
        json!(labels(service.pointer("/spec/selector"))),
    ]
}

fn external_addresses(service: &Value) -> String {
    let external: Vec<&str> =
        list(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match text(service, "/spec/type") {
        "ClusterIP" | "NodePort" => or_none(&external.join(",")).to_owned(),
        "LoadBalancer" => {
            let mut addresses = load_balancer_addresses(service);
            addresses.extend(external);
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn load_balancer_addresses(object: &Value) -> Vec<&str> {
    let mut addresses: Vec<&str> = Vec::new();
    for point in list(object, "/status/loadBalancer/ingress") {
        let address = match text(point, "/ip") {
            "" => text(point, "/hostname"),
            ip => ip,
        };
        if !address.is_empty() && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = list(service, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (int(port, "/port"), text(port, "/protocol"));
            match int(port, "/nodePort") {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    or_none(&ports.join(",")).to_owned()
}

pub(super) const ENDPOINTS: &[Column] =
    &[NAME, column("Endpoints", "The addresses and ports that are ready."), AGE];

pub(super) fn endpoints(endpoints: &Value, now: Timestamp) -> Cells {
    let mut sockets = Vec::new();
    for subset in list(endpoints, "/subsets") {
        let addresses = list(subset, "/addresses");
        let ports = list(subset, "/ports");
        // A Service without a cluster address may have no ports either.
        if ports.is_empty() {
            sockets.extend(addresses.iter().map(|address| text(address, "/ip").to_owned()));
        }
        for port in ports {
            let number = int(port, "/port");
            sockets.extend(addresses.iter().map(|address| socket(text(address, "/ip"), number)));
        }
    }
    let shown = shortened(&sockets);
    vec![name(endpoints), json!(or_none(&shown)), age(endpoints, now)]
}

fn socket(ip: &str, port: i64) -> String {
    match ip.parse() {
        Ok(IpAddr::V6(_)) => format!("[{ip}]:{port}"),
        _ => format!("{ip}:{port}"),
    }
}

pub(super) const SLICE: &[Column] = &[
    NAME,
    column("AddressType", "The type of address of every endpoint."),
    column("Ports", "The ports every endpoint has."),
    column("Endpoints", "The addresses of the endpoints."),
    AGE,
];

pub(super) fn slice(slice: &Value, now: Timestamp) -> Cells {
    let ports: Vec<String> = list(slice, "/ports")
        .iter()
        .map(|port| match port.get("port").and_then(Value::as_i64) {
            Some(number) => number.to_string(),
            None => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(slice, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    let or_unset = |shown: String| if shown.is_empty() { "<unset>".to_owned() } else { shown };
    vec![
        name(slice),
        json!(text(slice, "/addressType")),
        json!(or_unset(shortened(&ports))),
        json!(or_unset(shortened(&addresses))),
        age(slice, now),
    ]
}

pub(super) const INGRESS: &[Column] = &[
    NAME,
    column("Class", "The name of the IngressClass that is to carry it out."),
    column("Hosts", "The hosts whose requests the rules are for."),
    column("Address", "Where the controller takes requests."),
    column("Ports", "The ports requests are taken on."),
    AGE,
];

pub(super) fn ingress(ingress: &Value, now: Timestamp) -> Cells {
    let hosts: Vec<String> = list(ingress, "/spec/rules")
        .iter()
        .map(|rule| text(rule, "/host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { shortened(&hosts) };
    let ports = if list(ingress, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        name(ingress),
        json!(text_or_none(ingress, "/spec/ingressClassName")),
        json!(hosts),
        json!(load_balancer_addresses(ingress).join(",")),
        json!(ports),
        age(ingress, now),
    ]
}

pub(super) const CLASS: &[Column] = &[
    NAME,
    column("Controller", "The controller that carries out Ingresses of this class."),
    column("Parameters", "The object with the parameters of this class."),
    AGE,
];

pub(super) fn class(class: &Value, now: Timestamp) -> Cells {
    let parameters =
        match (text(class, "/spec/parameters/kind"), text(class, "/spec/parameters/apiGroup")) {
            ("", _) => NONE.to_owned(),
            (kind, "") => format!("{kind}/{}", text(class, "/spec/parameters/name")),
            (kind, group) => format!("{kind}.{group}/{}", text(class, "/spec/parameters/name")),
        };
    vec![name(class), json!(text(class, "/spec/controller")), json!(parameters), age(class, now)]
}

pub(super) const SERVICE_CIDR: &[Column] =
    &[NAME, column("CIDRs", "The ranges that cluster IPs are taken from."), AGE];

pub(super) fn service_cidr(range: &Value, now: Timestamp) -> Cells {
    let cidrs = list(range, "/spec/cidrs").iter().filter_map(Value::as_str);
    vec![name(range), json!(cidrs.collect::<Vec<_>>().join(",")), age(range, now)]
}
