//! Who may use a location: passwords, and authorities that are asked.

mod basic;
mod cache;
mod external;
mod hostile;
mod signin;

use crate::authority::Authority;
use crate::backend::Backend;
use crate::harness::{Answer, Ingress, annotated, ingress, service};

/// Ingresses `a.example`, `b.example`… with these annotations, and more manifests.
pub fn start(web: &Backend, annotations: &[&str], more: &str, flags: &[&str]) -> Ingress {
    let mut manifests = service("web", &[web]);
    for (at, lines) in annotations.iter().enumerate() {
        let name = char::from(b'a' + u8::try_from(at).unwrap()).to_string();
        let host = format!("{name}.example");
        manifests.push_str(&ingress(&name, &annotated(lines), &[(&host, "/", "Prefix", "web")]));
    }
    manifests.push_str(more);
    Ingress::start(&[("a.yaml", &manifests)], flags)
}

/// The annotation that names an authority, and more.
pub fn asking(authority: &Authority, more: &str) -> String {
    format!("auth-url: http://{}/check\n{more}", authority.address)
}

/// A request with more headers.
pub fn get_with(podium: &Ingress, host: &str, path: &str, headers: &str) -> Answer {
    podium
        .send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n"))
}
