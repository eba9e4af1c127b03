//! Certificates: reading them from Secrets and choosing one by the name a client asks for (SNI).
//!
//! Which Secret serves which host is `translate`'s decision.

use crate::balance::Backend;
use crate::shards::Shards;
use crate::snapshot::Snapshot;
use crate::tls::client_auth::ClientAuth;
use crate::tls::policy::TlsPolicy;
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
    /// The beginning of its validity.
    pub not_before: Timestamp,
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
        let (names, not_before, not_after) = describe(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|error| CertificateError::Pem("tls.key", error.to_string()))?;
        let key = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
        let digest = digest(chain_pem, key_pem);
        Ok(Certificate { key: Arc::new(key), names, not_before, not_after, digest })
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

    /// Whether it is valid at a time.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// Whether the certificate covers a host; a wildcard covers one label. A wildcard host needs the same
    /// wildcard.
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

/// Names and validity of a certificate.
type Description = (Vec<String>, Timestamp, Timestamp);

fn describe(leaf: &CertificateDer<'_>) -> Result<Description, CertificateError> {
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|error| CertificateError::Certificate(error.to_string()))?;
    let time = |seconds| {
        Timestamp::from_second(seconds)
            .map_err(|error| CertificateError::Certificate(error.to_string()))
    };
    let not_before = time(parsed.validity().not_before.timestamp())?;
    let not_after = time(parsed.validity().not_after.timestamp())?;
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
    Ok((names, not_before, not_after))
}

/// TLS of one host.
#[derive(Debug)]
pub struct HostTls {
    /// Its certificates, those to prefer first; empty where the default certificate serves it.
    pub certificates: Vec<Arc<Certificate>>,
    /// What is negotiated.
    pub policy: Arc<TlsPolicy>,
    /// What is done about certificates of clients.
    pub client_auth: Option<Arc<ClientAuth>>,
    /// Connections go to these endpoints as they are.
    pub passthrough: Option<Arc<Backend>>,
}

/// TLS of a snapshot by host name.
#[derive(Clone, Debug, Default)]
pub struct CertificateTable {
    /// Hosts.
    pub exact: Shards<Arc<str>, Arc<HostTls>>,
    /// Wildcard hosts, by what follows `*.`.
    pub wildcard: Shards<Arc<str>, Arc<HostTls>>,
    /// For every other name, and for clients that send none; `None` before the first snapshot.
    pub fallback: Option<Arc<HostTls>>,
    /// How many hosts do something about certificates of clients.
    client_auths: usize,
}

impl CertificateTable {
    /// What a host has of its own. `host` is in lower case.
    pub fn get(&self, host: &str) -> Option<&Arc<HostTls>> {
        self.exact.get(host).or_else(|| self.wildcard.get(host.split_once('.')?.1))
    }

    /// TLS for the name a client asks for.
    pub fn named(&self, name: Option<&str>) -> Option<&Arc<HostTls>> {
        let own = match name {
            Some(name) if name.bytes().any(|b| b.is_ascii_uppercase()) => {
                self.get(&name.to_ascii_lowercase())
            }
            Some(name) => self.get(name),
            None => None,
        };
        own.or(self.fallback.as_ref())
    }

    /// The client certificates of a host, if it does something about them.
    pub fn client_auth(&self, host: &str) -> Option<&Arc<ClientAuth>> {
        if self.client_auths == 0 {
            return None;
        }
        self.get(host)?.client_auth.as_ref()
    }

    /// Sets what a host (or `*.` wildcard) has of its own, or nothing.
    pub fn set(&mut self, host: &str, tls: Option<Arc<HostTls>>) {
        let (table, name) = match host.strip_prefix("*.") {
            Some(suffix) => (&mut self.wildcard, suffix),
            None => (&mut self.exact, host),
        };
        let asks = |tls: &Arc<HostTls>| usize::from(tls.client_auth.is_some());
        self.client_auths -= table.get(name).map_or(0, asks);
        self.client_auths += tls.as_ref().map_or(0, asks);
        match tls {
            Some(tls) => table.insert(name.into(), tls),
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
        let tls = table.named(hello.server_name())?;
        let certificates = match tls.certificates.as_slice() {
            [] => table.fallback.as_ref()?.certificates.as_slice(),
            own => own,
        };
        choose(certificates, hello.signature_schemes())
    }
}

/// The first certificate whose key makes signatures the client can check; else the first, to let the
/// handshake say what is wrong.
fn choose(
    certificates: &[Arc<Certificate>],
    schemes: &[rustls::SignatureScheme],
) -> Option<Arc<CertifiedKey>> {
    let fitting = certificates.iter().find(|c| c.key.key.choose_scheme(schemes).is_some());
    fitting.or(certificates.first()).map(|certificate| certificate.key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::policy::Demands;

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

    fn host(certificate: &Arc<Certificate>) -> Arc<HostTls> {
        Arc::new(HostTls {
            certificates: vec![certificate.clone()],
            policy: Arc::new(TlsPolicy::new(Demands::default())),
            client_auth: None,
            passthrough: None,
        })
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard() {
        let certificate = Arc::new(Certificate::fake().unwrap());
        let (one, other, rest) = (host(&certificate), host(&certificate), host(&certificate));
        let mut table =
            CertificateTable { fallback: Some(rest.clone()), ..CertificateTable::default() };
        table.set("*.example.com", Some(one.clone()));
        table.set("a.example.com", Some(other.clone()));
        for (name, expected) in [
            (Some("a.example.com"), &other),
            (Some("A.Example.Com"), &other),
            (Some("b.example.com"), &one),
            (Some("a.b.example.com"), &rest),
            (None, &rest),
        ] {
            assert!(Arc::ptr_eq(table.named(name).unwrap(), expected), "{name:?}");
        }
    }

    #[test]
    fn the_first_certificate_a_client_can_check_is_taken() {
        let ecdsa = Arc::new(Certificate::fake().unwrap());
        let scheme = |scheme| choose(std::slice::from_ref(&ecdsa), &[scheme]).is_some();
        assert!(scheme(rustls::SignatureScheme::ECDSA_NISTP256_SHA256));
        assert!(scheme(rustls::SignatureScheme::RSA_PSS_SHA256));
        assert!(choose(&[], &[]).is_none());
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
