//! Making keys and certificates: pure but for the clock and randomness.

use std::net::IpAddr;

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::pki::PkiError;

const AUTHORITY_DAYS: i64 = 3_650;
const CERTIFICATE_DAYS: i64 = 365;
/// The object identifier of the organization attribute, which carries groups.
const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

/// Who a client certificate is for.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// The user name (the certificate's common name).
    pub user: String,
    /// The user's groups (the certificate's organizations), two at most.
    pub groups: Vec<String>,
}

/// What a serving certificate is valid for.
pub(crate) struct ServingNames {
    pub(crate) dns: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A certificate and its key.
pub(crate) struct Credentials {
    pub(crate) certificate_pem: String,
    pub(crate) certificate_der: Vec<u8>,
    pub(crate) key_pem: String,
    pub(crate) key_der: Vec<u8>,
}

fn failed(operation: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { operation, source }
}

pub(super) fn new_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(failed("generate key"))
}

pub(super) fn key_from_pem(operation: &'static str, pem: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(pem).map_err(failed(operation))
}

/// A self-signed authority: its certificate and its key, as PEM.
pub(super) fn authority() -> Result<(String, String), PkiError> {
    let key = new_key()?;
    let mut parameters = parameters("podium-ca", &[], AUTHORITY_DAYS);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let certificate = parameters.self_signed(&key).map_err(failed("sign CA certificate"))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

pub(super) fn client(
    issuer: &Issuer<'_, KeyPair>,
    request: &ClientRequest,
) -> Result<Credentials, PkiError> {
    // The certificate library keeps one value per attribute type; the same type under its number
    // makes room for a second one.
    if request.groups.len() > 2 {
        let (user, count) = (request.user.clone(), request.groups.len());
        return Err(PkiError::Groups { user, count });
    }
    let mut parameters = parameters(&request.user, &request.groups, CERTIFICATE_DAYS);
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign(issuer, &parameters)
}

pub(super) fn serving(
    issuer: &Issuer<'_, KeyPair>,
    names: &ServingNames,
) -> Result<Credentials, PkiError> {
    let mut parameters = parameters("kube-apiserver", &[], CERTIFICATE_DAYS);
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in &names.dns {
        let name = name.as_str().try_into().map_err(failed("serving certificate name"))?;
        parameters.subject_alt_names.push(SanType::DnsName(name));
    }
    parameters.subject_alt_names.extend(names.addresses.iter().map(|ip| SanType::IpAddress(*ip)));
    sign(issuer, &parameters)
}

fn sign(
    issuer: &Issuer<'_, KeyPair>,
    parameters: &CertificateParams,
) -> Result<Credentials, PkiError> {
    let key = new_key()?;
    let certificate = parameters.signed_by(&key, issuer).map_err(failed("sign certificate"))?;
    Ok(Credentials {
        certificate_pem: certificate.pem(),
        certificate_der: certificate.der().to_vec(),
        key_pem: key.serialize_pem(),
        key_der: key.serialize_der(),
    })
}

fn parameters(name: &str, groups: &[String], days: i64) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    let types = [DnType::OrganizationName, DnType::CustomDnType(ORGANIZATION.to_vec())];
    for (group, attribute) in groups.iter().zip(types) {
        subject.push(attribute, group.as_str());
    }
    subject.push(DnType::CommonName, name);
    parameters.distinguished_name = subject;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    let midnight = |days: i64| {
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let date = today.saturating_add(days.days());
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    // A day back, for clocks that are behind ours.
    parameters.not_before = midnight(-1);
    parameters.not_after = midnight(days);
    parameters
}
