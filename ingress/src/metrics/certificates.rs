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

/// The labels all metrics of certificates have.
const OWN_LABELS: [&str; 5] = ["class", "host", "identifier", "namespace", "secret_name"];

/// Metrics of certificates.
pub struct CertificateMetrics {
    expiry: GaugeVec,
    info: IntGaugeVec,
    class: String,
    /// The labels of the series of each Secret.
    shown: Mutex<HashMap<ObjectKey, Vec<Vec<String>>>>,
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
        let info = ["issuer_common_name", "issuer_organization", "public_key_algorithm"];
        let all: Vec<&str> = OWN_LABELS.into_iter().chain(info).chain(["serial_number"]).collect();
        Ok(CertificateMetrics {
            expiry: GaugeVec::new(
                Opts::new(
                    "nginx_ingress_controller_ssl_expire_time_seconds",
                    "Unix time at which a certificate expires",
                ),
                &OWN_LABELS,
            )?,
            info: IntGaugeVec::new(
                Opts::new(
                    "nginx_ingress_controller_ssl_certificate_info",
                    "Hold all labels associated to a certificate",
                ),
                &all,
            )?,
            class: class.into(),
            shown: Mutex::default(),
        })
    }

    /// What to register.
    pub fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.expiry.clone()), Box::new(self.info.clone())]
    }

    /// Notes Secrets with another certificate, or with none any more.
    pub fn published(&self, changes: &[(ObjectKey, Option<Arc<Certificate>>)]) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (secret, certificate) in changes {
            for labels in shown.remove(secret).into_iter().flatten() {
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                // Gone already where two names are one.
                let _ = self.expiry.remove_label_values(&labels[..OWN_LABELS.len()]);
                let _ = self.info.remove_label_values(&labels);
            }
            if let Some(certificate) = certificate {
                shown.insert(secret.clone(), self.note(secret, certificate));
            }
        }
    }

    /// Shows a certificate; returns the labels.
    fn note(&self, secret: &ObjectKey, certificate: &Certificate) -> Vec<Vec<String>> {
        let who = Identity::of(certificate).unwrap_or_default();
        let identifier = format!("{}-{}", who.issuer, who.serial);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double exactly")]
        let expires = certificate.not_after.as_second() as f64;
        let mut shown = Vec::new();
        for host in certificate.names.iter().take(NAMES_MAX) {
            let own = [&*self.class, host, &identifier, &secret.namespace, &secret.name];
            let more = [&*who.issuer, &who.organization, &who.algorithm, &who.serial];
            let all: Vec<&str> = own.into_iter().chain(more).collect();
            self.expiry.with_label_values(&all[..OWN_LABELS.len()]).set(expires);
            self.info.with_label_values(&all).set(1);
            shown.push(all.into_iter().map(str::to_string).collect());
        }
        shown
    }
}
