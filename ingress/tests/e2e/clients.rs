//! Clients others wrote: h2load, gRPC, WebSockets, openssl, and curl with large bodies.

mod bodies;
mod grpc;
mod load;
mod websocket;

use crate::harness::{Ingress, service_at};
use crate::tls::{Pair, certificate, secret, secured};
use std::net::SocketAddr;

/// `a.example` by HTTP and HTTPS with one endpoint, not redirected; annotations are inserted as they are.
fn start(endpoint: SocketAddr, annotations: &str) -> (Ingress, Pair) {
    let pair = certificate(&["a.example"]);
    let all = r#""nginx.ingress.kubernetes.io/ssl-redirect": "false""#;
    let annotations =
        if annotations.is_empty() { all.into() } else { format!("{all}, {annotations}") };
    let tls = secured("a.example", "own")
        .replace("annotations: {}", &format!("annotations: {{{annotations}}}"));
    assert!(tls.contains(&annotations), "{tls}");
    let manifests = format!("{}---\n{}{tls}", service_at("web", &[endpoint]), secret("own", &pair));
    let podium = Ingress::start(&[("a.yaml", &manifests)], &["--access-log", "off"]);
    (podium, pair)
}
