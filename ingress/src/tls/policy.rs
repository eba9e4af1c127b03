//! What is negotiated with clients of a host: versions, ciphers, protocols, and whether they are asked
//! for a certificate.
//!
//! Hosts with the same demands share a policy, and with it rustls's configuration, which is made when the
//! first client comes. It outlives snapshots.

use super::ciphers;
use super::client_auth::ClientRoots;
use super::verify::signed_handshake;
use crate::certificates::SnapshotResolver;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme, SupportedCipherSuite,
};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, OnceLock};

/// Sessions kept for clients that come again, as many as nginx keeps in 10 MB.
const SESSIONS_MAX: usize = 40_000;

/// TLS 1.3's ciphers, best first.
const TLS_1_3: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// The demands of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demands {
    /// TLS 1.2 is spoken.
    pub v1_2: bool,
    /// TLS 1.3 is spoken.
    pub v1_3: bool,
    /// HTTP/2 is offered.
    pub http2: bool,
    /// Sessions are resumed by tickets that only the client keeps.
    pub tickets: bool,
    /// Ciphers of TLS 1.2, best first.
    pub suites: Vec<CipherSuite>,
    /// Our order of ciphers counts, not the client's.
    pub server_order: bool,
    /// Certificates of these authorities are asked for.
    pub client_roots: Option<ClientRoots>,
}

impl Default for Demands {
    fn default() -> Demands {
        Demands {
            v1_2: true,
            v1_3: true,
            http2: true,
            tickets: false,
            suites: ciphers::default_suites(),
            server_order: true,
            client_roots: None,
        }
    }
}

impl Hash for Demands {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.v1_2, self.v1_3, self.http2, self.tickets, self.server_order).hash(state);
        for suite in &self.suites {
            u16::from(*suite).hash(state);
        }
        self.client_roots.as_ref().map(|roots| roots.digest).hash(state);
    }
}

/// Demands with the configuration that meets them.
#[derive(Debug)]
pub struct TlsPolicy {
    demands: Demands,
    config: OnceLock<Result<Arc<ServerConfig>, Error>>,
}

/// What all configurations have in common.
pub struct TlsContext {
    /// Where certificates come from.
    resolver: Arc<SnapshotResolver>,
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl TlsContext {
    /// A context of its own: sessions can be resumed within it.
    pub fn new(resolver: SnapshotResolver) -> Result<TlsContext, Error> {
        Ok(TlsContext {
            resolver: Arc::new(resolver),
            tickets: rustls::crypto::ring::Ticketer::new()?,
            sessions: ServerSessionMemoryCache::new(SESSIONS_MAX),
        })
    }
}

impl TlsPolicy {
    /// A policy for these demands.
    pub fn new(demands: Demands) -> TlsPolicy {
        TlsPolicy { demands, config: OnceLock::new() }
    }

    /// The configuration, made once.
    pub fn config(&self, context: &TlsContext) -> Result<Arc<ServerConfig>, Error> {
        self.config.get_or_init(|| build(&self.demands, context).map(Arc::new)).clone()
    }
}

static PROVIDER: LazyLock<CryptoProvider> = LazyLock::new(rustls::crypto::ring::default_provider);

fn build(demands: &Demands, context: &TlsContext) -> Result<ServerConfig, Error> {
    let mut provider = PROVIDER.clone();
    let known = |suite: &CipherSuite| {
        PROVIDER.cipher_suites.iter().find(|known| known.suite() == *suite).copied()
    };
    let wanted = TLS_1_3.iter().chain(&demands.suites);
    provider.cipher_suites = wanted.filter_map(known).collect::<Vec<SupportedCipherSuite>>();
    let versions: &[_] = match (demands.v1_2, demands.v1_3) {
        (true, false) => &[&TLS12],
        (false, true) => &[&TLS13],
        _ => &[&TLS13, &TLS12],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions)?;
    let builder = match &demands.client_roots {
        None => builder.with_no_client_auth(),
        Some(roots) => builder
            .with_client_cert_verifier(Arc::new(AnyCertificate { hints: roots.subjects.clone() })),
    };
    let mut config = builder.with_cert_resolver(context.resolver.clone());
    config.ignore_client_order = demands.server_order;
    config.session_storage = context.sessions.clone();
    if demands.tickets {
        config.ticketer = context.tickets.clone();
    }
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if demands.http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    Ok(config)
}

/// Takes every certificate a client has the key of. Whether it is one to be let in with is decided for
/// each request: only then it is known which host is asked for, and refusals can be answered.
#[derive(Debug)]
struct AnyCertificate {
    hints: Vec<DistinguishedName>,
}

impl AnyCertificate {
    fn check(
        algorithms: &[&'static dyn SignatureVerificationAlgorithm],
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match signed_handshake(certificate, algorithms, message, signed.signature()) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }
}

fn algorithms(
    supported: &WebPkiSupportedAlgorithms,
    scheme: SignatureScheme,
) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    let found = supported.mapping.iter().find(|(known, _)| *known == scheme);
    found.map_or(&[], |(_, algorithms)| *algorithms)
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = algorithms(&PROVIDER.signature_verification_algorithms, signed.scheme);
        AnyCertificate::check(algorithms, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.3 has no signatures of this kind, though certificates may.
        if matches!(
            signed.scheme,
            SignatureScheme::RSA_PKCS1_SHA256
                | SignatureScheme::RSA_PKCS1_SHA384
                | SignatureScheme::RSA_PKCS1_SHA512
        ) {
            return Err(CertificateError::BadSignature.into());
        }
        let algorithms = algorithms(&PROVIDER.signature_verification_algorithms, signed.scheme);
        // It ties a scheme to one curve, the first of the list.
        AnyCertificate::check(&algorithms[..algorithms.len().min(1)], message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
