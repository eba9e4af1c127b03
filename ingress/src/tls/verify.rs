//! Judging a client's certificate with the words OpenSSL has for it.
//!
//! webpki does the work. It refuses two kinds of certificates that OpenSSL takes and that users of
//! ingress-nginx have, because the commands of its documentation make them: those of X.509 version 1 and
//! those marked as an authority. Where such a one was issued by an authority itself, without anything
//! between them, it is judged here.

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, Error, ExpirationPolicy,
    KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert,
};
use x509_parser::asn1_rs::{Header, ToDer};
use x509_parser::prelude::{
    AlgorithmIdentifier, CertificateRevocationList, FromDer, SubjectPublicKeyInfo, X509Certificate,
    X509Extension, X509Version,
};

/// Whom to trust, and what they took back.
#[derive(Debug)]
pub struct Authorities {
    /// Their certificates.
    pub certificates: Vec<CertificateDer<'static>>,
    revocations: Vec<(CertRevocationList<'static>, Vec<u8>)>,
}

/// Why a certificate is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// OpenSSL's words.
    pub reason: &'static str,
    /// Only the authority is unknown: `optional_no_ca` lets it pass.
    pub unknown_authority: bool,
}

const fn rejected(reason: &'static str) -> Rejection {
    Rejection { reason, unknown_authority: false }
}

const fn unknown(reason: &'static str) -> Rejection {
    Rejection { reason, unknown_authority: true }
}

fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    rustls::crypto::ring::default_provider().signature_verification_algorithms.all
}

impl Authorities {
    /// Reads certificates and revocation lists. The text says what is wrong with them.
    pub fn new(
        certificates: Vec<CertificateDer<'static>>,
        lists: &[Vec<u8>],
    ) -> Result<Authorities, String> {
        for certificate in &certificates {
            anchor_from_trusted_cert(certificate)
                .map_err(|error| format!("ca.crt holds no usable certificate: {error}"))?;
        }
        let read = |list: &Vec<u8>| {
            let owned = BorrowedCertRevocationList::from_der(list)
                .and_then(|list| list.to_owned())
                .map_err(|error| format!("ca.crl is no usable revocation list: {error}"))?;
            Ok::<_, String>((CertRevocationList::from(owned), list.clone()))
        };
        let revocations = lists.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Authorities { certificates, revocations })
    }

    /// Judges a chain, the client's own certificate first. `depth_max` is how many certificates may be
    /// between it and an authority.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'static>],
        depth_max: usize,
        now: UnixTime,
    ) -> Result<(), Rejection> {
        let Some((leaf, between)) = chain.split_first() else {
            return Err(rejected("no certificate"));
        };
        if self.certificates.contains(leaf) {
            let (_, parsed) = parse(leaf)?;
            return check_validity(&parsed, now);
        }
        match self.verify_chain(leaf, between, depth_max, now) {
            Ok(()) => Ok(()),
            Err(Error::UnsupportedCertVersion | Error::CaUsedAsEndEntity) => {
                self.verify_directly(leaf, now)
            }
            Err(Error::UnknownIssuer) => Err(self.why_unknown(leaf, between, now)),
            Err(error) => Err(in_words_of_openssl(&error)),
        }
    }

    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        depth_max: usize,
        now: UnixTime,
    ) -> Result<(), Error> {
        let leaf = EndEntityCert::try_from(leaf)?;
        let valid = |certificate: &&CertificateDer<'_>| {
            parse(certificate).is_ok_and(|(_, parsed)| check_validity(&parsed, now).is_ok())
        };
        let anchors: Vec<TrustAnchor<'_>> = self
            .certificates
            .iter()
            .filter(valid)
            .map(anchor_from_trusted_cert)
            .collect::<Result<_, _>>()?;
        let lists: Vec<_> = self.revocations.iter().map(|(list, _)| list).collect();
        // As OpenSSL with `ssl_crl`: a list for every certificate of the chain, and none out of date.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|builder| {
            builder
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        leaf.verify_for_usage(
            algorithms(),
            &anchors,
            between,
            now,
            KeyUsage::client_auth(),
            revocation,
            Some(&|path| match path.intermediate_certificates().count() {
                count if count > depth_max => Err(Error::MaximumPathDepthExceeded),
                _ => Ok(()),
            }),
        )
        .map(drop)
    }

    fn why_unknown(
        &self,
        leaf: &CertificateDer<'static>,
        between: &[CertificateDer<'static>],
        now: UnixTime,
    ) -> Rejection {
        let all: Vec<_> = [leaf].into_iter().chain(between).filter_map(|c| parse(c).ok()).collect();
        let known = self.certificates.iter().filter_map(|c| parse(c).ok());
        for (_, authority) in known {
            let issued = all.iter().any(|(_, c)| c.issuer() == authority.subject());
            if let (true, Err(rejection)) = (issued, check_validity(&authority, now)) {
                return rejection;
            }
        }
        let own = |c: &X509Certificate<'_>| c.issuer() == c.subject();
        match all.split_first() {
            Some(((_, leaf), _)) if own(leaf) => unknown("self-signed certificate"),
            Some((_, [])) | None => unknown("unable to verify the first certificate"),
            Some((_, between)) if between.iter().any(|(_, c)| own(c)) => {
                unknown("self-signed certificate in certificate chain")
            }
            Some(_) => unknown("unable to get local issuer certificate"),
        }
    }

    /// A certificate that an authority issued itself.
    fn verify_directly(
        &self,
        leaf: &CertificateDer<'static>,
        now: UnixTime,
    ) -> Result<(), Rejection> {
        let (_, parsed) = parse(leaf)?;
        let issuer = self.certificates.iter().filter_map(|c| parse(c).ok()).find(|(_, c)| {
            c.subject() == parsed.issuer()
                && is_signed_by(
                    parsed.tbs_certificate.as_ref(),
                    &parsed.signature_algorithm,
                    &parsed.signature_value.data,
                    c.public_key(),
                )
        });
        let Some((_, issuer)) = issuer else {
            let own = parsed.issuer() == parsed.subject();
            let reason = if own {
                "self-signed certificate"
            } else {
                "unable to verify the first certificate"
            };
            return Err(unknown(reason));
        };
        check_validity(&issuer, now)?;
        check_validity(&parsed, now)?;
        if parsed.version() != X509Version::V1 {
            check_usage(&parsed)?;
        }
        if self.revocations.is_empty() {
            return Ok(());
        }
        self.check_revocation(&parsed, &issuer, now)
    }

    fn check_revocation(
        &self,
        leaf: &X509Certificate<'_>,
        issuer: &X509Certificate<'_>,
        now: UnixTime,
    ) -> Result<(), Rejection> {
        let lists = self.revocations.iter().filter_map(|(_, der)| {
            CertificateRevocationList::from_der(der).ok().map(|(_, list)| (list, der))
        });
        let mut lists = lists.filter(|(list, der)| {
            list.issuer() == leaf.issuer()
                && signed_part(der).is_some_and(|part| {
                    let signature = &list.signature_value.data;
                    is_signed_by(part, &list.signature_algorithm, signature, issuer.public_key())
                })
        });
        let Some((list, _)) = lists.next() else {
            return Err(rejected("unable to get certificate CRL"));
        };
        let due = list.next_update().map_or(i64::MAX, |time| time.timestamp());
        if due < seconds(now) {
            return Err(rejected("CRL has expired"));
        }
        let serial = leaf.raw_serial();
        match list.iter_revoked_certificates().any(|revoked| revoked.raw_serial() == serial) {
            true => Err(rejected("certificate revoked")),
            false => Ok(()),
        }
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<(&'a [u8], X509Certificate<'a>), Rejection> {
    X509Certificate::from_der(der).map_err(|_| rejected("certificate is not readable"))
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn check_validity(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Rejection> {
    let validity = certificate.validity();
    if seconds(now) < validity.not_before.timestamp() {
        return Err(rejected("certificate is not yet valid"));
    }
    if seconds(now) > validity.not_after.timestamp() {
        return Err(rejected("certificate has expired"));
    }
    Ok(())
}

fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), Rejection> {
    let usage = certificate.extended_key_usage().ok().flatten();
    if usage.is_some_and(|usage| !usage.value.client_auth && !usage.value.any) {
        return Err(rejected("unsuitable certificate purpose"));
    }
    let strange = |extension: &X509Extension<'_>| {
        extension.critical && extension.parsed_extension().unsupported()
    };
    match certificate.extensions().iter().any(strange) {
        true => Err(rejected("unhandled critical extension")),
        false => Ok(()),
    }
}

/// The first element of a signed structure, which is what the signature is of.
fn signed_part(der: &[u8]) -> Option<&[u8]> {
    let (inside, _) = Header::from_der(der).ok()?;
    let (after, header) = Header::from_der(inside).ok()?;
    let length = header.length().definite().ok()?;
    inside.get(..inside.len() - after.len() + length)
}

fn is_signed_by(
    message: &[u8],
    algorithm: &AlgorithmIdentifier<'_>,
    signature: &[u8],
    key: &SubjectPublicKeyInfo<'_>,
) -> bool {
    let signed_with = encoded(algorithm);
    let fitting = algorithms().iter().filter(|a| a.signature_alg_id().as_ref() == signed_with);
    verifies(fitting.copied(), message, signature, key)
}

/// Whether a handshake was signed with the key of a certificate, of any version.
pub fn signed_handshake(
    certificate: &CertificateDer<'_>,
    algorithms: &[&'static dyn SignatureVerificationAlgorithm],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let parsed = parse(certificate);
    parsed.is_ok_and(|(_, parsed)| {
        verifies(algorithms.iter().copied(), message, signature, parsed.public_key())
    })
}

fn verifies(
    mut algorithms: impl Iterator<Item = &'static dyn SignatureVerificationAlgorithm>,
    message: &[u8],
    signature: &[u8],
    key: &SubjectPublicKeyInfo<'_>,
) -> bool {
    let of_key = encoded(&key.algorithm);
    algorithms.any(|algorithm| {
        algorithm.public_key_alg_id().as_ref() == of_key
            && algorithm.verify_signature(&key.subject_public_key.data, message, signature).is_ok()
    })
}

/// The content of an algorithm identifier, as webpki compares them.
fn encoded(algorithm: &AlgorithmIdentifier<'_>) -> Vec<u8> {
    let mut content = algorithm.algorithm.to_der_vec().unwrap_or_default();
    if let Some(parameters) = &algorithm.parameters {
        content.extend(parameters.to_der_vec().unwrap_or_default());
    }
    content
}

fn in_words_of_openssl(error: &Error) -> Rejection {
    rejected(match error {
        Error::CertExpired { .. } => "certificate has expired",
        Error::CertNotValidYet { .. } => "certificate is not yet valid",
        Error::CertRevoked => "certificate revoked",
        Error::UnknownRevocationStatus => "unable to get certificate CRL",
        Error::CrlExpired { .. } => "CRL has expired",
        Error::InvalidCrlSignatureForPublicKey | Error::IssuerNotCrlSigner => {
            "CRL signature failure"
        }
        Error::MaximumPathDepthExceeded => "certificate chain too long",
        Error::PathLenConstraintViolated => "path length constraint exceeded",
        Error::EndEntityUsedAsCa => "invalid CA certificate",
        Error::NameConstraintViolation => "permitted subtree violation",
        Error::RequiredEkuNotFoundContext(_) => "unsuitable certificate purpose",
        Error::UnsupportedCriticalExtension => "unhandled critical extension",
        Error::InvalidSignatureForPublicKey => "certificate signature failure",
        _ => "certificate rejected",
    })
}

/// The time for a verification.
pub fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests;
