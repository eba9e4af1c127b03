//! Certificates: reading them from Secrets and choosing one by the name a client asks for (SNI).
//!
//! Which Secret serves which host is `translate`'s decision.

use crate::shards::Shards;
use crate::snapshot::Snapshot;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a Secret holds no usable certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A key of the Secret is absent or empty.
    #[error("key {0} is missing or empty")]
    Missing(&'static str),
    /// Not PEM, or not of the expected kind.
    #[error("key {0} is not valid PEM: {1}")]
    Pem(&'static str, String),
    /// The certificate itself cannot be read.
    #[error("tls.crt is not a valid certificate: {0}")]
    Certificate(String),
    /// Key and certificate do not belong together, or the key cannot sign.
    #[error("tls.key does not serve tls.crt: {0}")]
    Key(#[from] rustls::Error),
    /// The fake certificate could not be made.
    #[error("making the fake certificate: {0}")]
    Fake(#[from] rcgen::Error),
}

/// A certificate ready to serve.
#[derive(Debug)]
pub struct Certificate {
    /// Chain and signing key.
    pub key: Arc<CertifiedKey>,
    /// DNS names it covers, lower-case; may start with `*.`.
    pub names: Vec<String>,
    /// The end of its validity.
    pub not_after: Timestamp,
    /// Of what it was made from, to tell whether a Secret changed.
    pub digest: [u8; 32],
}

impl Certificate {
    /// Reads `tls.crt` and `tls.key` of a Secret.
    pub fn from_secret(secret: &Secret) -> Result<Certificate, CertificateError> {
        let (chain, key) = (field(secret, "tls.crt")?, field(secret, "tls.key")?);
        Certificate::from_pem(chain, key)
    }

    fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Certificate, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Pem("tls.crt", error.to_string()))?;
        let leaf = chain.first().ok_or(CertificateError::Missing("tls.crt"))?;
        let (names, not_after) = describe(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|error| CertificateError::Pem("tls.key", error.to_string()))?;
        let key = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
        Ok(Certificate { key: Arc::new(key), names, not_after, digest: digest(chain_pem, key_pem) })
    }

    /// The self-signed certificate for hosts without one, as ingress-nginx names it.
    pub fn fake() -> Result<Certificate, CertificateError> {
        let mut params = rcgen::CertificateParams::new(vec!["ingress.local".to_string()])?;
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Acme Co");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Kubernetes Ingress Controller Fake Certificate");
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Certificate::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
    }

    /// Whether the certificate covers a host; a wildcard covers one label.
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| {
            name == host || (name.strip_prefix("*.").is_some_and(|suffix| Some(suffix) == parent))
        })
    }
}

/// The digest of a Secret's certificate and key, to see changes without parsing.
pub fn secret_digest(secret: &Secret) -> Option<[u8; 32]> {
    Some(digest(field(secret, "tls.crt").ok()?, field(secret, "tls.key").ok()?))
}

fn digest(chain: &[u8], key: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((chain.len() as u64).to_be_bytes());
    hash.update(chain);
    hash.update(key);
    hash.finalize().into()
}

fn field<'a>(secret: &'a Secret, name: &'static str) -> Result<&'a [u8], CertificateError> {
    let written = secret.string_data.as_ref().and_then(|data| data.get(name)).map(String::as_bytes);
    let stored =
        secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
    written.or(stored).filter(|bytes| !bytes.is_empty()).ok_or(CertificateError::Missing(name))
}

fn describe(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, Timestamp), CertificateError> {
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|error| CertificateError::Certificate(error.to_string()))?;
    let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp())
        .map_err(|error| CertificateError::Certificate(error.to_string()))?;
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    Ok((names, not_after))
}

/// The certificates of a snapshot by host name.
#[derive(Clone, Debug, Default)]
pub struct CertificateTable {
    /// Hosts.
    pub exact: Shards<Arc<str>, Arc<Certificate>>,
    /// Wildcard hosts, by what follows `*.`.
    pub wildcard: Shards<Arc<str>, Arc<Certificate>>,
    /// For every other name, and for clients that send none.
    pub fallback: Option<Arc<Certificate>>,
}

impl CertificateTable {
    /// The certificate for a host, without the fallback.
    pub fn get(&self, host: &str) -> Option<&Arc<Certificate>> {
        self.exact.get(host).or_else(|| self.wildcard.get(host.split_once('.')?.1))
    }

    /// Gives a host (or `*.` wildcard) its certificate, or none.
    pub fn set(&mut self, host: &str, certificate: Option<Arc<Certificate>>) {
        let (table, name) = match host.strip_prefix("*.") {
            Some(suffix) => (&mut self.wildcard, suffix),
            None => (&mut self.exact, host),
        };
        match certificate {
            Some(certificate) => table.insert(name.into(), certificate),
            None => drop(table.remove(name)),
        }
    }
}

/// Hands rustls the certificates of whatever snapshot is current.
#[derive(Debug)]
pub struct SnapshotResolver(pub Arc<ArcSwap<Snapshot>>);

impl ResolvesServerCert for SnapshotResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.0.load();
        let table = &snapshot.certificates;
        let named = hello.server_name().and_then(|name| table.get(&name.to_ascii_lowercase()));
        named.or(table.fallback.as_ref()).map(|certificate| certificate.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_one_label() {
        let mut certificate = Certificate::fake().unwrap();
        certificate.names = vec!["*.example.com".into(), "example.com".into()];
        for (host, covered) in [
            ("example.com", true),
            ("a.example.com", true),
            ("a.b.example.com", false),
            ("example.org", false),
        ] {
            assert_eq!(certificate.covers(host), covered, "{host}");
        }
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard() {
        let (one, other) =
            (Arc::new(Certificate::fake().unwrap()), Arc::new(Certificate::fake().unwrap()));
        let mut table = CertificateTable::default();
        table.set("*.example.com", Some(one.clone()));
        table.set("a.example.com", Some(other.clone()));
        assert!(Arc::ptr_eq(table.get("a.example.com").unwrap(), &other));
        assert!(Arc::ptr_eq(table.get("b.example.com").unwrap(), &one));
        assert!(table.get("a.b.example.com").is_none());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let make = || rcgen::generate_simple_self_signed(vec!["a.example".to_string()]).unwrap();
        let (one, other) = (make(), make());
        let error = Certificate::from_pem(
            one.cert.pem().as_bytes(),
            other.signing_key.serialize_pem().as_bytes(),
        );
        assert!(matches!(error, Err(CertificateError::Key(_))), "{error:?}");
        let error = Certificate::from_pem(b"no pem", b"");
        assert!(matches!(error, Err(CertificateError::Missing("tls.crt"))), "{error:?}");
    }
}
