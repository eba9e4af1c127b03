//! The services of a size as objects of the API, with all that an EndpointSlice controller writes of
//! an endpoint.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// Where the objects are.
const NAMESPACE: &str = "default";
/// Port of every service.
const SERVICE_PORT: u16 = 80;
/// Port that endpoints answer at.
pub const PORT: u16 = 8080;
/// The port they answer at after a change.
pub const PORT_CHANGED: u16 = 8081;
/// Nodes that the endpoints are spread over; none of them is the one that is measured.
const NODES: usize = 100;
/// Addresses of endpoints; all of them lead to one server.
pub const ENDPOINT_BLOCK: &str = "10.128.0.0/10";
const ENDPOINT_FIRST: u32 = u32::from_be_bytes([10, 128, 0, 1]);
const CLUSTER_IP_FIRST: u32 = u32::from_be_bytes([10, 96, 64, 1]);

/// How many services have how many endpoints each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// For tables.
    pub name: &'static str,
    /// Services and the endpoints of each of them; the first group holds the service that changes.
    groups: &'static [(usize, usize)],
}

/// Few, many, and what kube-proxy's documents tell of.
pub const SIZES: [Size; 3] = [
    Size { name: "1,000 services × 10 endpoints", groups: &[(1_000, 10)] },
    Size { name: "10,000 services × 10 endpoints", groups: &[(10_000, 10)] },
    Size { name: "5,006 services, 250,011 endpoints", groups: &[(5_000, 50), (5, 2), (1, 1)] },
];

/// Enough to see what an endpoint costs.
pub const SIZES_QUICK: [Size; 2] = [
    Size { name: "10 services × 10 endpoints", groups: &[(10, 10)] },
    Size { name: "100 services × 50 endpoints", groups: &[(100, 50)] },
];

/// One service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    number: usize,
    endpoint_first: usize,
    endpoints: usize,
}

impl Size {
    /// Number of services.
    pub fn services(&self) -> usize {
        self.groups.iter().map(|(services, _)| services).sum()
    }

    /// Number of endpoints.
    pub fn endpoints(&self) -> usize {
        self.groups.iter().map(|(services, endpoints)| services * endpoints).sum()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = Service> {
        let lens =
            self.groups.iter().flat_map(|(services, len)| std::iter::repeat_n(*len, *services));
        lens.enumerate().scan(0, |next, (number, endpoints)| {
            let endpoint_first = *next;
            *next += endpoints;
            Some(Service { number, endpoint_first, endpoints })
        })
    }

    /// The one whose endpoints change: in the middle of those of the first group.
    pub fn changed(&self) -> Service {
        let (services, endpoints) = self.groups[0];
        let number = services / 2;
        Service { number, endpoint_first: number * endpoints, endpoints }
    }

    /// The last one by name.
    pub fn last(&self) -> Option<Service> {
        self.all().last()
    }
}

impl Service {
    fn name(&self) -> String {
        format!("s{:05}", self.number)
    }

    /// Where clients connect to.
    pub fn address(&self) -> String {
        format!("{}:{SERVICE_PORT}", self.cluster_ip())
    }

    fn cluster_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(CLUSTER_IP_FIRST + u32::try_from(self.number).unwrap_or(0))
    }

    /// Path and body of the Service.
    pub fn service(&self) -> (String, Value) {
        let (name, ip) = (self.name(), self.cluster_ip().to_string());
        let body = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                "ports": [{ "name": "http", "protocol": "TCP", "port": SERVICE_PORT }],
            },
        });
        (format!("/api/v1/namespaces/{NAMESPACE}/services"), body)
    }

    /// Path and body of its EndpointSlice, with the port of all its endpoints.
    pub fn slice(&self, port: u16) -> (String, Value) {
        let name = self.name();
        let endpoints: Vec<Value> = (0..self.endpoints).map(|at| self.endpoint(at)).collect();
        let body = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-x7k2p"),
                "labels": {
                    "app": name, "kubernetes.io/service-name": name,
                    "endpointslice.kubernetes.io/managed-by": "bench.podium.dev",
                },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "protocol": "TCP", "port": port }],
            "endpoints": endpoints,
        });
        (format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"), body)
    }

    /// Name of the slice.
    pub fn slice_name(&self) -> String {
        format!("{}-x7k2p", self.name())
    }

    fn endpoint(&self, at: usize) -> Value {
        let number = self.endpoint_first + at;
        let ip = Ipv4Addr::from(ENDPOINT_FIRST + u32::try_from(number).unwrap_or(0));
        json!({
            "addresses": [ip.to_string()],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": format!("worker-{:03}", number % NODES),
            "targetRef": {
                "kind": "Pod", "namespace": NAMESPACE, "name": format!("{}-{at:05}", self.name()),
                "uid": format!("6f1c2d3e-0000-4000-8000-{number:012}"),
            },
            "zone": format!("zone-{}", number % 3),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_their_names_say() {
        let sizes = SIZES.map(|size| (size.services(), size.endpoints()));
        assert_eq!(sizes, [(1_000, 10_000), (10_000, 100_000), (5_006, 250_011)]);
        let all: Vec<Service> = SIZES[2].all().collect();
        assert_eq!(all.len(), 5_006);
        assert_eq!(all[2_500], SIZES[2].changed());
        let last = SIZES[2].last().expect("a service");
        assert_eq!((last.number, last.endpoint_first, last.endpoints), (5_005, 250_010, 1));
    }

    #[test]
    fn no_two_endpoints_share_an_address() {
        let ips = SIZES_QUICK[1].all().flat_map(|service| {
            let (_, slice) = service.slice(PORT);
            let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
            endpoints.into_iter().map(|endpoint| endpoint["addresses"][0].to_string())
        });
        let mut ips: Vec<String> = ips.collect();
        ips.sort();
        ips.dedup();
        assert_eq!(ips.len(), 5_000);
    }
}
