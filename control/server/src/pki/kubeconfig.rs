//! The kubeconfig file, with everything inline.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::pki::Credentials;

/// A kubeconfig with one cluster, one user and one context, all current. Written as JSON, which is
/// YAML too, so no name needs quoting rules.
pub(super) fn render(
    url: &str,
    authority_pem: &str,
    user: &str,
    credentials: &Credentials,
) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "podium",
            "cluster": {
                "server": url,
                "certificate-authority-data": STANDARD.encode(authority_pem),
            },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&credentials.certificate_pem),
                "client-key-data": STANDARD.encode(&credentials.key_pem),
            },
        }],
        "contexts": [{
            "name": "podium",
            "context": { "cluster": "podium", "user": user },
        }],
        "current-context": "podium",
        "preferences": {},
    });
    format!("{config:#}\n")
}
