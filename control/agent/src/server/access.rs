//! Who may talk to the node: TLS with a serving certificate of our own, client certificates signed by
//! the cluster's authority, and of those only the API server and administrators.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Config;

/// The group of administrators, and the name the API server presents to kubelets.
const ADMINISTRATORS: &str = "system:masters";
const API_SERVER: &str = "kube-apiserver-kubelet-client";

/// The TLS configuration; the error is a sentence.
pub(super) fn tls(config: &Config, client_ca_pem: &str) -> Result<rustls::ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(client_ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("client authority: {error}"))?;
        roots.add(certificate).map_err(|error| format!("client authority: {error}"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| format!("client authority: {error}"))?;
    let mut names: Vec<String> = config.node_ips.iter().map(ToString::to_string).collect();
    names.extend([config.node_name.clone(), "localhost".to_owned(), "127.0.0.1".to_owned()]);
    let own = |error: rcgen::Error| format!("serving certificate: {error}");
    let key = KeyPair::generate().map_err(own)?;
    let certificate = CertificateParams::new(names).map_err(own)?.self_signed(&key).map_err(own)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(|error| format!("serving certificate: {error}"))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// True for the certificate of an administrator or of the API server.
pub(super) fn is_allowed(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let subject = certificate.subject();
    let mut groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    let mut names = subject.iter_common_name().filter_map(|name| name.as_str().ok());
    groups.any(|group| group == ADMINISTRATORS) || names.any(|name| name == API_SERVER)
}

/// The answer to everybody else.
pub(super) fn forbidden() -> Response {
    (StatusCode::FORBIDDEN, "Forbidden\n").into_response()
}

#[cfg(test)]
mod tests {
    use rcgen::DnType;

    use super::*;

    #[test]
    fn only_administrators_and_the_api_server() {
        for (name, group, expected) in [
            ("admin", "system:masters", true),
            ("kube-apiserver-kubelet-client", "x", true),
            ("jane", "developers", false),
        ] {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.distinguished_name.push(DnType::OrganizationName, group);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(is_allowed(certificate.der()), expected, "{name}");
        }
    }
}
