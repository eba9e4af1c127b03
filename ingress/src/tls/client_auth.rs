//! Client certificates of a host: what is asked for, and what a client gets for what it showed.

use super::distinguished_name::rfc_2253;
use super::verify::{Authorities, Rejection};
use crate::annotations::tls::{Tls, VerifyClient, forbidden};
use crate::annotations::values::Refusal;
use crate::objects::{ObjectKey, World};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use k8s_openapi::api::core::v1::Secret;
use regex::Regex;
use rustls::DistinguishedName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a host does about client certificates.
#[derive(Debug)]
pub enum ClientAuth {
    /// What is configured cannot be checked: everybody is refused.
    Broken,
    /// It checks them.
    Checks(Checks),
}

/// The checks of a host.
#[derive(Debug)]
pub struct Checks {
    /// Where to send clients that fail; an URL or a path of the host.
    pub error_page: Option<String>,
    /// What the handshake asks for.
    pub roots: ClientRoots,
    mode: VerifyClient,
    depth_max: usize,
    pass_certificate: bool,
    match_cn: Option<Regex>,
    authorities: Authorities,
}

/// The names of the authorities a client's certificate may come from; clients choose by them.
#[derive(Clone, Debug)]
pub struct ClientRoots {
    /// Of the names: lists with the same are the same.
    pub digest: [u8; 32],
    /// The names.
    pub subjects: Vec<DistinguishedName>,
}

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It showed no certificate.
    NoCertificate,
    /// It showed one that is not accepted.
    BadCertificate,
    /// Its certificate is accepted, but is not one of those meant.
    WrongSubject,
}

/// What was found out about the certificate of a connection.
#[derive(Debug)]
pub struct Judged {
    /// By whose checks.
    pub by: Arc<ClientAuth>,
    /// `None` lets the client in.
    pub denial: Option<Denial>,
    /// `ssl-client-verify`.
    pub verify: HeaderValue,
    /// `ssl-client-subject-dn`.
    pub subject: Option<HeaderValue>,
    /// `ssl-client-issuer-dn`.
    pub issuer: Option<HeaderValue>,
    /// `ssl-client-cert`, where endpoints are to have it.
    pub certificate: Option<HeaderValue>,
}

impl ClientAuth {
    /// What the settings of an Ingress ask for; `None` if they ask for nothing.
    pub fn resolve(
        settings: &Tls,
        world: &World,
    ) -> (Option<Arc<ClientAuth>>, Option<(&'static str, Refusal)>) {
        if settings.client_auth_broken {
            return (Some(Arc::new(ClientAuth::Broken)), None);
        }
        let Some(secret) = &settings.client_ca else {
            return (None, None);
        };
        match checks(settings, secret, world) {
            Ok(checks) => (Some(Arc::new(ClientAuth::Checks(checks))), None),
            Err(why) => {
                let refusal = ("auth-tls-secret", forbidden(format!("Secret {secret}: {why}")));
                (Some(Arc::new(ClientAuth::Broken)), Some(refusal))
            }
        }
    }

    /// The checks, unless they are broken.
    pub fn checks(&self) -> Option<&Checks> {
        match self {
            ClientAuth::Broken => None,
            ClientAuth::Checks(checks) => Some(checks),
        }
    }

    /// Judges the chain a client showed, if it did.
    pub fn judge(
        self: &Arc<ClientAuth>,
        chain: Option<&[CertificateDer<'static>]>,
        now: UnixTime,
    ) -> Option<Judged> {
        let checks = self.checks()?;
        let chain = chain.filter(|chain| !chain.is_empty());
        let result = chain.map(|chain| checks.authorities.verify(chain, checks.depth_max, now));
        let parsed = chain.and_then(|chain| X509Certificate::from_der(&chain[0]).ok());
        let subject = parsed.as_ref().map(|(_, c)| rfc_2253(c.subject())).unwrap_or_default();
        let value = |text: &str| HeaderValue::from_str(text).ok();
        Some(Judged {
            by: self.clone(),
            denial: checks.denial(result, &subject),
            verify: match result {
                None => HeaderValue::from_static("NONE"),
                Some(Ok(())) => HeaderValue::from_static("SUCCESS"),
                Some(Err(Rejection { reason, .. })) => {
                    value(&format!("FAILED:{reason}")).unwrap_or(HeaderValue::from_static("FAILED"))
                }
            },
            issuer: parsed.and_then(|(_, certificate)| value(&rfc_2253(certificate.issuer()))),
            subject: value(&subject).filter(|subject| !subject.is_empty()),
            certificate: chain
                .filter(|_| checks.pass_certificate)
                .and_then(|chain| value(&escaped_pem(&chain[0]))),
        })
    }

    /// Whether somebody without TLS may enter: nginx asks nobody there, but still wants the subject.
    pub fn admits_plain(&self) -> bool {
        self.checks().is_some_and(|checks| checks.match_cn.is_none())
    }
}

impl Checks {
    /// The handshake asks for a certificate.
    pub fn asks(&self) -> bool {
        self.mode != VerifyClient::Off
    }

    fn denial(&self, result: Option<Result<(), Rejection>>, subject: &str) -> Option<Denial> {
        let lenient = self.mode == VerifyClient::OptionalNoCa;
        match (self.mode, result) {
            (VerifyClient::Off, _) => {}
            (VerifyClient::On, None) => return Some(Denial::NoCertificate),
            (_, Some(Err(rejection))) if !(lenient && rejection.unknown_authority) => {
                return Some(Denial::BadCertificate);
            }
            _ => {}
        }
        let wrong = self.match_cn.as_ref().is_some_and(|wanted| !wanted.is_match(subject));
        wrong.then_some(Denial::WrongSubject)
    }
}

fn checks(settings: &Tls, key: &ObjectKey, world: &World) -> Result<Checks, String> {
    let secret = world.secrets.get(key).ok_or("it does not exist")?;
    let bundle = field(secret, "ca.crt").ok_or("key ca.crt is missing or empty")?;
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(bundle)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("key ca.crt is not valid PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("key ca.crt holds no certificate".into());
    }
    let lists: Vec<Vec<u8>> = match field(secret, "ca.crl") {
        None => Vec::new(),
        Some(lists) => CertificateRevocationListDer::pem_slice_iter(lists)
            .map(|list| list.map(|list| list.as_ref().to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("key ca.crl is not valid PEM: {error}"))?,
    };
    if lists.is_empty() && field(secret, "ca.crl").is_some() {
        return Err("key ca.crl holds no revocation list".into());
    }
    let roots = ClientRoots::of(&certificates);
    let match_cn = settings.match_cn.as_deref().map(Regex::new).transpose();
    Ok(Checks {
        error_page: settings.error_page.clone(),
        roots,
        mode: settings.verify_client,
        depth_max: settings.verify_depth,
        pass_certificate: settings.pass_certificate,
        match_cn: match_cn.map_err(|error| error.to_string())?,
        authorities: Authorities::new(certificates, &lists)?,
    })
}

impl PartialEq for ClientRoots {
    fn eq(&self, other: &ClientRoots) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ClientRoots {}

impl ClientRoots {
    fn of(certificates: &[CertificateDer<'static>]) -> ClientRoots {
        let subjects: Vec<DistinguishedName> = certificates
            .iter()
            .filter_map(|certificate| X509Certificate::from_der(certificate).ok())
            .map(|(_, parsed)| DistinguishedName::from(parsed.subject().as_raw().to_vec()))
            .collect();
        let mut hash = Sha256::new();
        for subject in &subjects {
            hash.update(subject.as_ref());
        }
        ClientRoots { digest: hash.finalize().into(), subjects }
    }
}

fn field<'a>(secret: &'a Secret, name: &str) -> Option<&'a [u8]> {
    let written = secret.string_data.as_ref().and_then(|data| data.get(name)).map(String::as_bytes);
    let stored = || secret.data.as_ref()?.get(name).map(|bytes| bytes.0.as_slice());
    written.or_else(stored).filter(|bytes| !bytes.is_empty())
}

/// nginx's `$ssl_client_escaped_cert`.
fn escaped_pem(certificate: &CertificateDer<'_>) -> String {
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let text = STANDARD.encode(certificate);
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    let mut escaped = String::with_capacity(pem.len() + pem.len() / 8);
    for byte in pem.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}
