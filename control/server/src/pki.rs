//! The cluster's own certificate authority and what it issues.
//!
//! The authority and the key that signs ServiceAccount tokens are made on the first start and lie
//! in `pki/` below the data directory, readable by their owner only. Serving certificates and the
//! certificates this process uses itself are issued anew at each start and never written.

mod files;
mod issue;
mod kubeconfig;

use std::path::{Path, PathBuf};

use rcgen::{Issuer, KeyPair};

pub use issue::ClientRequest;
pub(crate) use issue::{Credentials, ServingNames};

/// Why keys or certificates could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A key or certificate could not be made or understood.
    #[error("{operation}: {source}")]
    Certificate {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// The key of ServiceAccount tokens is damaged.
    #[error("{path}: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The subject of a client certificate holds two groups at most.
    #[error("user {user:?}: a client certificate holds at most two groups, not {count}")]
    Groups {
        /// The user asked for.
        user: String,
        /// The groups asked for.
        count: usize,
    },
}

/// The certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    service_account_key_der: Vec<u8>,
}

impl Authority {
    /// Reads the authority from the data directory, or makes it there.
    pub fn open(data_dir: &Path) -> Result<Self, PkiError> {
        let directory = data_dir.join("pki");
        files::create_directory(&directory)?;
        let (key_path, certificate_path) = (directory.join("ca.key"), directory.join("ca.crt"));
        if !certificate_path.exists() {
            let (certificate, key) = issue::authority()?;
            files::write_private(&key_path, &key)?;
            files::write_public(&certificate_path, &certificate)?;
        }
        let certificate_pem = files::read(&certificate_path)?;
        let key = issue::key_from_pem("read CA key", &files::read(&key_path)?)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)
            .map_err(|source| PkiError::Certificate { operation: "read CA certificate", source })?;
        let token_path = directory.join("service-account.key");
        if !token_path.exists() {
            files::write_private(&token_path, &issue::new_key()?.serialize_pem())?;
        }
        let token_key = issue::key_from_pem("read token key", &files::read(&token_path)?)?;
        let service_account_key_der = token_key.serialize_der();
        Ok(Self { issuer, certificate_pem, service_account_key_der })
    }

    /// The authority's certificate, which clients need to trust the server.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The PKCS #8 key that signs ServiceAccount tokens.
    pub(crate) fn service_account_key_der(&self) -> &[u8] {
        &self.service_account_key_der
    }

    /// Issues a certificate to a client.
    pub(crate) fn client(&self, request: &ClientRequest) -> Result<Credentials, PkiError> {
        issue::client(&self.issuer, request)
    }

    /// Issues a certificate to a server.
    pub(crate) fn serving(&self, names: &ServingNames) -> Result<Credentials, PkiError> {
        issue::serving(&self.issuer, names)
    }

    /// Issues a client certificate and wraps it into a kubeconfig for the server at `url`.
    pub fn kubeconfig(&self, request: &ClientRequest, url: &str) -> Result<String, PkiError> {
        let credentials = self.client(request)?;
        Ok(kubeconfig::render(url, &self.certificate_pem, &request.user, &credentials))
    }

    /// The same, written to a file only its owner can read.
    pub fn write_kubeconfig(
        &self,
        request: &ClientRequest,
        url: &str,
        path: &Path,
    ) -> Result<(), PkiError> {
        files::write_private(path, &self.kubeconfig(request, url)?)
    }
}
