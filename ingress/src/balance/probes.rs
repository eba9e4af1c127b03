//! Probes: requests of our own that ask endpoints how they are, where an Ingress wants it. What their
//! answers mean is `active`'s.

use super::active::Thresholds;
use super::{Backend, Endpoint, Moment};
use crate::annotations::upstream::health::HealthCheck;
use crate::http_client::{self, Destination, HttpClient};
use crate::snapshot::Snapshot;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use std::sync::Arc;
use std::time::Duration;

/// How often it is seen who has to be asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Probes the endpoints in snapshots, forever.
pub async fn keep_probed(snapshots: Arc<ArcSwap<Snapshot>>, client: HttpClient) {
    let mut seen: Option<Arc<Snapshot>> = None;
    let mut backends: Vec<Arc<Backend>> = Vec::new();
    loop {
        let snapshot = snapshots.load_full();
        if !seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &snapshot)) {
            let checked = snapshot.backends.values().filter(|b| b.key.care.check.is_some());
            backends = checked.cloned().collect();
            seen = Some(snapshot);
        }
        let now = Moment::now();
        for backend in &backends {
            let Some(check) = &backend.key.care.check else { continue };
            for endpoint in backend.endpoints().iter() {
                if endpoint.probed.comes_due(now, check.interval) {
                    tokio::spawn(probe(client.clone(), check.clone(), endpoint.clone()));
                }
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn probe(client: HttpClient, check: Arc<HealthCheck>, endpoint: Arc<Endpoint>) {
    let good = ask(&client, &check, &endpoint).await;
    let thresholds = Thresholds { healthy: check.healthy, unhealthy: check.unhealthy };
    if endpoint.probed.note(good, thresholds) {
        let opinion = if good { "healthy" } else { "unhealthy" };
        tracing::info!(endpoint = %endpoint.address, "probes find the endpoint {opinion}");
    }
}

/// Whether the endpoint answers, and with a status of success or a redirect.
async fn ask(client: &HttpClient, check: &HealthCheck, endpoint: &Endpoint) -> bool {
    let address = endpoint.address;
    let destination = Destination {
        https: check.tls,
        host: address.ip().to_string(),
        port: address.port(),
        address: Some(address),
    };
    let request = Request::get(check.path.as_deref().unwrap_or("/"))
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "podium-ingress-probe")
        // Whether it still takes connections is part of the question.
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new().boxed_unsync());
    let Ok(request) = request else {
        return false;
    };
    match client.send(&destination, request, check.timeout).await {
        Ok(answer) => {
            let status = answer.status();
            http_client::discard(answer.into_body());
            status.is_success() || status.is_redirection()
        }
        Err(error) => {
            tracing::debug!(%address, "probe: {error}");
            false
        }
    }
}
