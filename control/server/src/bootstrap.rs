//! What is there before anybody asks: the system namespaces, the ServiceCIDR and the Service
//! `kubernetes`, the latter's endpoints, and the allocators, filled from the Services in the store.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use podium_api::object;
use podium_api::status::Status;
use podium_store::ListOptions;
use serde_json::{Value, json};

use crate::failure;
use crate::kind::Kind;
use crate::registry::{Change, Registry, Scope, WriteOptions};

const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];
const SERVICE: &str = "kubernetes";

/// Where the API is to be found, and where Services are.
pub(crate) struct Endpoint {
    /// The ranges of Services.
    pub(crate) service_cidrs: Vec<IpNet>,
    pub(crate) cluster_ip: IpAddr,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// Makes what is missing.
pub(crate) async fn run(registry: &Registry, endpoint: &Endpoint) -> Result<(), Status> {
    restore(registry).await?;
    let namespaces = Kind::internal("", "Namespace")?;
    for name in NAMESPACES {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": name },
        });
        ensure(registry, &namespaces, "", namespace).await?;
    }
    service_cidr(registry, &endpoint.service_cidrs).await?;
    let services = Kind::internal("", "Service")?;
    ensure(registry, &services, "default", service(endpoint)).await?;
    if endpoint.address.is_loopback() {
        // Endpoints may not be loopback addresses: no Pod could reach them.
        tracing::warn!(address = %endpoint.address, "Service kubernetes gets no endpoints");
        return Ok(());
    }
    let endpoints = Kind::internal("", "Endpoints")?;
    replace(registry, &endpoints, "default", endpoints_object(endpoint)).await?;
    let slices = Kind::internal("discovery.k8s.io", "EndpointSlice")?;
    replace(registry, &slices, "default", slice(endpoint)).await
}

/// Shows the ranges of Services, so that others know which addresses are ClusterIPs. The ranges in
/// effect are the operator's; where the object says something else, it is left, and not ready.
async fn service_cidr(registry: &Registry, cidrs: &[IpNet]) -> Result<(), Status> {
    let kind = Kind::internal("networking.k8s.io", "ServiceCIDR")?;
    let cidrs: Vec<String> = cidrs.iter().map(|cidr| cidr.trunc().to_string()).collect();
    let wanted = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": SERVICE },
        "spec": { "cidrs": cidrs },
    });
    ensure(registry, &kind, "", wanted).await?;
    let target = |scope| Change { kind: &kind, namespace: "", name: SERVICE, scope };
    // A second family may be added to a cluster of one.
    let adds_family = |held: &Value| {
        let held = held["spec"]["cidrs"].as_array().map(Vec::as_slice).unwrap_or_default();
        cidrs.len() == 2 && matches!(held, [first] if *first == json!(cidrs[0]))
    };
    let add = |current: &Value| {
        let mut new = current.clone();
        if adds_family(current) {
            new["spec"]["cidrs"] = json!(cidrs);
        }
        Ok(new)
    };
    let held = registry.update(target(Scope::Main), WriteOptions::default(), add).await?;
    if held["spec"]["cidrs"] != json!(cidrs) {
        tracing::warn!(configured = ?cidrs, held = %held["spec"]["cidrs"], "ServiceCIDR differs");
        return Ok(());
    }
    if held["status"]["conditions"].as_array().is_some_and(|conditions| !conditions.is_empty()) {
        return Ok(());
    }
    let ready = |current: &Value| {
        let mut new = current.clone();
        new["status"]["conditions"] = json!([{
            "type": "Ready",
            "status": "True",
            "reason": "",
            "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": object::time(Timestamp::now()),
        }]);
        Ok(new)
    };
    registry.update(target(Scope::Status), WriteOptions::default(), ready).await.map(drop)
}

async fn restore(registry: &Registry) -> Result<(), Status> {
    let services = Kind::internal("", "Service")?;
    let listing = registry
        .store
        .list(&services.prefix(""), ListOptions::default())
        .await
        .map_err(failure::of_store)?;
    for service in &listing.objects {
        for problem in registry.allocators.restore(&service.value) {
            tracing::warn!(key = service.key, problem, "Service");
        }
    }
    Ok(())
}

async fn ensure(
    registry: &Registry,
    kind: &Kind,
    namespace: &str,
    wanted: Value,
) -> Result<(), Status> {
    match registry.create(kind, namespace, wanted, WriteOptions::default()).await {
        Err(status) if status.reason != "AlreadyExists" => Err(status),
        _ => Ok(()),
    }
}

/// Like [`ensure`], and brings an older object up to date: the address may have changed.
async fn replace(
    registry: &Registry,
    kind: &Kind,
    namespace: &str,
    wanted: Value,
) -> Result<(), Status> {
    let name = object::name(&wanted).to_owned();
    if registry.find(kind, namespace, &name).await?.is_none() {
        return ensure(registry, kind, namespace, wanted).await;
    }
    let target = Change { kind, namespace, name: &name, scope: Scope::Main };
    let change = |current: &Value| {
        let mut new = current.clone();
        for field in ["subsets", "endpoints", "ports"] {
            if let Some(value) = wanted.get(field) {
                new[field] = value.clone();
            }
        }
        Ok(new)
    };
    registry.update(target, WriteOptions::default(), change).await.map(drop)
}

fn labels() -> Value {
    json!({ "component": "apiserver", "provider": "kubernetes" })
}

fn service(endpoint: &Endpoint) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": SERVICE, "labels": labels() },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": endpoint.cluster_ip.to_string(),
            "clusterIPs": [endpoint.cluster_ip.to_string()],
            "ports": [
                { "name": "https", "port": 443, "protocol": "TCP", "targetPort": endpoint.port },
            ],
        },
    })
}

fn endpoints_object(endpoint: &Endpoint) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": SERVICE,
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": [{ "ip": endpoint.address.to_string() }],
            "ports": [{ "name": "https", "port": endpoint.port, "protocol": "TCP" }],
        }],
    })
}

fn slice(endpoint: &Endpoint) -> Value {
    let family = if endpoint.address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": SERVICE,
            "labels": { "kubernetes.io/service-name": SERVICE },
        },
        "addressType": family,
        "endpoints": [{
            "addresses": [endpoint.address.to_string()],
            "conditions": { "ready": true },
        }],
        "ports": [{ "name": "https", "port": endpoint.port, "protocol": "TCP" }],
    })
}
