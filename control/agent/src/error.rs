//! The errors of the agent. Each names the operation, the object and where it helps the field.

use std::path::{Path, PathBuf};

/// Why the agent, or one of its operations, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used.
    #[error("setting {field}: {why}")]
    Config {
        /// Name of the flag.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The machine lacks something.
    #[error("{0}")]
    Missing(String),
    /// A file operation failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A program the agent runs failed.
    #[error("{command}: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it said.
        output: String,
    },
    /// The container runtime refused a call or did not answer.
    #[error("{operation} {object}: {}", status.message())]
    Runtime {
        /// The CRI call.
        operation: &'static str,
        /// What it was about.
        object: String,
        /// The answer.
        status: Box<tonic::Status>,
    },
    /// The API server refused a request or did not answer.
    #[error("{operation} {object}: {source}")]
    Api {
        /// What was asked.
        operation: &'static str,
        /// About which object.
        object: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// The HTTPS server of the node could not be started.
    #[error("serve {address}: {why}")]
    Serve {
        /// Where it should listen.
        address: String,
        /// The cause.
        why: String,
    },
    /// An object of the cluster asks for something this node cannot give.
    #[error("{0}")]
    Object(String),
}

impl Error {
    pub(crate) fn config(field: &str, why: String) -> Self {
        Self::Config { field: field.to_owned(), why }
    }

    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { operation, path: path.to_path_buf(), source }
    }

    pub(crate) fn api(
        operation: &'static str,
        object: impl Into<String>,
        source: kube::Error,
    ) -> Self {
        Self::Api { operation, object: object.into(), source: Box::new(source) }
    }

    /// True where the caller, or the machine, has to be put right: exit code 2.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config { .. } | Self::Missing(_))
    }

    /// True where the runtime says that the object of the call does not exist.
    pub(crate) fn is_runtime_not_found(&self) -> bool {
        matches!(self, Self::Runtime { status, .. } if status.code() == tonic::Code::NotFound)
    }
}

/// True where the API server says that the object does not exist.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// True where the API server says that somebody else was first, or that the uid is another one.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
