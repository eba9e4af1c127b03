//! What lives as long as a client's connection, and is shared by its requests.

use super::activity::Activity;
use crate::options::Options;
use crate::tls::client_auth::{ClientAuth, Judged};
use crate::tls::verify;
use arc_swap::ArcSwapOption;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// A client's connection.
#[derive(Debug)]
pub struct Link {
    /// The client.
    pub peer: SocketAddr,
    /// What it connected to.
    pub local: SocketAddr,
    /// A proxy in front says the client speaks TLS with it.
    pub tls_in_front: bool,
    /// The options of when it began.
    pub options: Arc<Options>,
    /// TLS with us.
    pub tls: Option<TlsLink>,
    /// What it does.
    pub activity: Activity,
    /// Turns true when the connection should end with the requests under way.
    pub stop: watch::Sender<bool>,
}

/// What was negotiated.
#[derive(Debug)]
pub struct TlsLink {
    /// The host the client asked for.
    pub server_name: Option<String>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The chain the client showed, its own certificate first.
    pub client_chain: Option<Vec<CertificateDer<'static>>>,
    /// What was found out about it, by whose checks.
    judged: ArcSwapOption<Judged>,
}

impl TlsLink {
    /// A connection whose handshake is complete.
    pub fn of(connection: &rustls::ServerConnection) -> TlsLink {
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let chain = connection.peer_certificates().filter(|chain| !chain.is_empty());
        TlsLink {
            server_name: connection.server_name().map(str::to_ascii_lowercase),
            version,
            client_chain: chain.map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect()),
            judged: ArcSwapOption::empty(),
        }
    }

    /// The client's certificate by the checks of a host; found out once for a connection.
    pub fn judged(&self, auth: &Arc<ClientAuth>) -> Option<Arc<Judged>> {
        if let Some(known) = &*self.judged.load()
            && Arc::ptr_eq(&known.by, auth)
        {
            return Some(known.clone());
        }
        let judged = Arc::new(auth.judge(self.client_chain.as_deref(), verify::now())?);
        self.judged.store(Some(judged.clone()));
        Some(judged)
    }
}

/// A request under way on a connection; it ends when this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Link>);

impl InFlight {
    /// A request begins. Also says how many there have been.
    pub fn begin(link: &Arc<Link>) -> (InFlight, u32) {
        let count = link.activity.request_started();
        (InFlight(link.clone()), count)
    }

    /// Its connection.
    pub fn link(&self) -> &Arc<Link> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.activity.request_ended();
    }
}
