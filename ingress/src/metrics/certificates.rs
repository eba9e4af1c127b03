//! What is known of certificates: when they expire and who they are.

use crate::certificates::Certificate;
use crate::objects::ObjectKey;
use prometheus::core::Collector;
use prometheus::{GaugeVec, IntGaugeVec, Opts};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Names of a certificate that get a series of their own.
const NAMES_MAX: usize = 16;

/// Metrics of certificates.
pub struct CertificateMetrics {
    expiry: GaugeVec,
    info: IntGaugeVec,
    class: String,
    seen: Mutex<Vec<(ObjectKey, [u8; 32])>>,
}

/// Who a certificate is.
#[derive(Default)]
struct Identity {
    issuer: String,
    organization: String,
    algorithm: String,
    serial: String,
}

impl Identity {
    fn of(certificate: &Certificate) -> Option<Identity> {
        let leaf = certificate.key.cert.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let issuer = parsed.issuer();
        let text = |part: Option<&x509_parser::prelude::AttributeTypeAndValue<'_>>| {
            part.and_then(|part| part.as_str().ok()).unwrap_or_default().to_string()
        };
        Some(Identity {
            issuer: text(issuer.iter_common_name().next()),
            organization: text(issuer.iter_organization().next()),
            algorithm: match parsed.public_key().parsed() {
                Ok(x509_parser::public_key::PublicKey::RSA(_)) => "RSA".into(),
                Ok(x509_parser::public_key::PublicKey::EC(_)) => "ECDSA".into(),
                _ => "Ed25519".into(),
            },
            serial: parsed.tbs_certificate.serial.to_string(),
        })
    }
}

impl CertificateMetrics {
    /// Metrics of a controller of this class.
    pub fn new(class: &str) -> Result<CertificateMetrics, prometheus::Error> {
        let own = ["class", "host", "identifier", "namespace", "secret_name"];
        let info = ["issuer_common_name", "issuer_organization", "public_key_algorithm"];
        let all: Vec<&str> = own.into_iter().chain(info).chain(["serial_number"]).collect();
        Ok(CertificateMetrics {
            expiry: GaugeVec::new(
                Opts::new(
                    "nginx_ingress_controller_ssl_expire_time_seconds",
                    "Unix time at which a certificate expires",
                ),
                &own,
            )?,
            info: IntGaugeVec::new(
                Opts::new(
                    "nginx_ingress_controller_ssl_certificate_info",
                    "Hold all labels associated to a certificate",
                ),
                &all,
            )?,
            class: class.into(),
            seen: Mutex::default(),
        })
    }

    /// What to register.
    pub fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.expiry.clone()), Box::new(self.info.clone())]
    }

    /// Notes the certificates in use.
    pub fn published(&self, certificates: &HashMap<ObjectKey, Arc<Certificate>>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now: Vec<_> =
            certificates.iter().map(|(secret, c)| (secret.clone(), c.digest)).collect();
        now.sort();
        if *seen == now {
            return;
        }
        *seen = now;
        self.expiry.reset();
        self.info.reset();
        for (secret, certificate) in certificates {
            self.note(secret, certificate);
        }
    }

    fn note(&self, secret: &ObjectKey, certificate: &Certificate) {
        let who = Identity::of(certificate).unwrap_or_default();
        let identifier = format!("{}-{}", who.issuer, who.serial);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double exactly")]
        let expires = certificate.not_after.as_second() as f64;
        for host in certificate.names.iter().take(NAMES_MAX) {
            let own = [
                self.class.as_str(),
                host,
                identifier.as_str(),
                secret.namespace.as_str(),
                secret.name.as_str(),
            ];
            self.expiry.with_label_values(&own).set(expires);
            let more = [&who.issuer, &who.organization, &who.algorithm, &who.serial];
            let all: Vec<&str> =
                own.into_iter().chain(more.into_iter().map(String::as_str)).collect();
            self.info.with_label_values(&all).set(1);
        }
    }
}
