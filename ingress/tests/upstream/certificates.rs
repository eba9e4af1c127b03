//! Certificates, their authorities, and the Secrets that hold them.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use std::sync::Arc;

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Pair {
    /// As a `kubernetes.io/tls` Secret.
    pub fn secret(&self, name: &str) -> String {
        object("Secret", name, "stringData", &[("tls.crt", &self.chain), ("tls.key", &self.key)])
    }
}

/// An authority and what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for a common name that is also its only host name.
    pub fn sign(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { chain, key: key.serialize_pem() }
    }
}

/// A certificate signed by itself.
pub fn self_signed(names: &[&str]) -> Pair {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Pair { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

pub fn parsed(chain: &str, key: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    (chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
}

/// TLS of an endpoint with this certificate, asking clients for one of this authority.
pub fn endpoint_tls(pair: &Pair, clients: Option<&Authority>) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = parsed(&pair.chain, &pair.key);
    let config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap();
    let config = match clients {
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(parsed(&authority.certificate, &pair.key).0.remove(0)).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => config.with_no_client_auth(),
    };
    config.with_single_cert(chain, key).unwrap()
}

/// A Secret or ConfigMap of namespace `default`.
pub fn object(kind: &str, name: &str, field: &str, entries: &[(&str, &str)]) -> String {
    let data: serde_json::Map<_, _> =
        entries.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
    let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, field: data});
    object.to_string()
}

/// The common name of a certificate's subject, and its host names.
pub fn names(certificate: &CertificateDer<'_>) -> (String, Vec<String>) {
    use x509_parser::prelude::*;
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    let subject = parsed.subject().iter_common_name().next();
    let hosts = parsed.subject_alternative_name().unwrap().map(|names| {
        let hosts = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(host.to_string()),
            _ => None,
        });
        hosts.collect()
    });
    let subject = subject.and_then(|name| name.as_str().ok()).unwrap_or_default();
    (subject.into(), hosts.unwrap_or_default())
}
