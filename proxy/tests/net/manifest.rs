//! Manifests of Services and their endpoints.

use serde_json::{Value, json};

use crate::ask::PROTOCOLS;
use crate::node::{Node, POD_PORT, Pod};

/// The port of services.
pub const PORT: u16 = 80;

/// A Service with the three protocols at one port, and its endpoints.
pub struct Service {
    name: String,
    object: Value,
    endpoints: Vec<Value>,
    port: u16,
}

impl Service {
    /// One with these ClusterIPs.
    pub fn new(name: &str, cluster_ips: [&str; 2]) -> Self {
        let ports = PROTOCOLS.map(|protocol| {
            let name = protocol.to_string().to_lowercase();
            json!({"name": name, "port": PORT, "protocol": protocol.to_string()})
        });
        let object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": cluster_ips[0],
                "clusterIPs": cluster_ips,
                "ipFamilyPolicy": "RequireDualStack",
                "ipFamilies": ["IPv4", "IPv6"],
                "ports": ports,
            },
        });
        Self { name: name.to_owned(), object, endpoints: Vec::new(), port: POD_PORT }
    }

    /// With these fields of its spec.
    pub fn spec(mut self, fields: Value) -> Self {
        let spec = self.object["spec"].as_object_mut().unwrap();
        spec.extend(fields.as_object().unwrap().clone());
        self
    }

    /// With a node port, the same for all protocols.
    pub fn node_port(mut self, node_port: u16) -> Self {
        self.object["spec"]["type"] = json!("NodePort");
        for port in self.object["spec"]["ports"].as_array_mut().unwrap() {
            port["nodePort"] = json!(node_port);
        }
        self
    }

    /// With these addresses of a load balancer.
    pub fn load_balancer(mut self, addresses: &[&str]) -> Self {
        self.object["spec"]["type"] = json!("LoadBalancer");
        let ingress: Vec<Value> =
            addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        self.object["status"] = json!({"loadBalancer": {"ingress": ingress}});
        self
    }

    /// With this port of the endpoints.
    pub const fn target_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With a pod among its endpoints.
    pub fn pod(self, node: &Node, pod: &Pod) -> Self {
        self.endpoint([&pod.v4, &pod.v6], &node.name(), &json!({"ready": true}))
    }

    /// With all pods of a node among its endpoints.
    pub fn pods(self, node: &Node) -> Self {
        node.pods.iter().fold(self, |service, pod| service.pod(node, pod))
    }

    /// With an endpoint of these addresses, on a node, in these conditions.
    pub fn endpoint(mut self, ips: [&str; 2], node: &str, conditions: &Value) -> Self {
        let endpoint = json!({"addresses": ips, "nodeName": node, "conditions": conditions});
        self.endpoints.push(endpoint);
        self
    }

    /// The manifest.
    pub fn text(&self) -> String {
        let slice = |index: usize, family: &str| {
            let ports = PROTOCOLS.map(|protocol| {
                let name = protocol.to_string().to_lowercase();
                json!({"name": name, "port": self.port, "protocol": protocol.to_string()})
            });
            let endpoints: Vec<Value> = (self.endpoints.iter())
                .map(|endpoint| {
                    let mut endpoint = endpoint.clone();
                    endpoint["addresses"] = json!([endpoint["addresses"][index]]);
                    endpoint
                })
                .collect();
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{}-{}", self.name, family.to_lowercase()),
                    "namespace": "default",
                    "labels": {"kubernetes.io/service-name": self.name},
                },
                "addressType": family,
                "ports": ports,
                "endpoints": endpoints,
            })
        };
        [&self.object, &slice(0, "IPv4"), &slice(1, "IPv6")]
            .map(|object| format!("---\n{object:#}\n"))
            .concat()
    }
}
