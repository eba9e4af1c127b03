//! healthz, livez and metrics over HTTP, as load balancers and Prometheus know them of kube-proxy.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::metrics::Metrics;

/// A change may wait this long before the proxy counts as stuck; kube-proxy's two sync periods.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What health is judged by.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<Mutex<HealthState>>,
}

#[derive(Debug, Default)]
struct HealthState {
    attached: bool,
    oldest_pending: Option<Instant>,
    last_updated: Option<Timestamp>,
    node_not_eligible: bool,
}

/// Body of both answers, in kube-proxy's form.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
}

impl Health {
    /// A change arrived.
    pub fn queued(&self) {
        self.with(|state| {
            state.oldest_pending = state.oldest_pending.or_else(|| Some(Instant::now()))
        });
    }

    /// Everything that arrived is in the kernel.
    pub fn synced(&self) {
        self.with(|state| {
            state.attached = true;
            state.oldest_pending = None;
            state.last_updated = Some(Timestamp::now());
        });
    }

    /// Whether load balancers may send traffic to this node.
    pub fn set_node_eligible(&self, eligible: bool) {
        self.with(|state| state.node_not_eligible = !eligible);
    }

    fn with<T>(&self, change: impl FnOnce(&mut HealthState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, for_balancers: bool) -> (StatusCode, Body) {
        self.with(|state| {
            let stuck = state.oldest_pending.is_some_and(|since| since.elapsed() > STUCK_AFTER);
            // A process that still waits for its first objects lives, but serves nothing yet.
            let healthy = if for_balancers {
                state.attached && !stuck && !state.node_not_eligible
            } else {
                !stuck
            };
            let now = Timestamp::now();
            let body = Body {
                last_updated: state.last_updated.map_or(String::new(), |at| at.to_string()),
                current_time: now.to_string(),
                node_eligible: for_balancers.then_some(!state.node_not_eligible),
            };
            (if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
        })
    }
}

#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: Metrics,
}

/// The routes of the health address.
pub fn health_routes(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .with_state(Shared { health, metrics })
}

/// The routes of the metrics address.
pub fn metrics_routes(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(healthz))
        .route("/proxyMode", get(async || "ebpf"))
        .with_state(Shared { health, metrics })
}

async fn healthz(State(shared): State<Shared>) -> Response {
    let (code, body) = shared.health.answer(true);
    shared.metrics.healthz_total.with_label_values(&[code.as_str()]).inc();
    (code, Json(body)).into_response()
}

async fn livez(State(shared): State<Shared>) -> Response {
    let (code, body) = shared.health.answer(false);
    shared.metrics.livez_total.with_label_values(&[code.as_str()]).inc();
    (code, Json(body)).into_response()
}

async fn show_metrics(State(shared): State<Shared>) -> Response {
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Serves routes on an address until the process ends.
///
/// # Errors
/// If the address cannot be used.
pub async fn serve(address: SocketAddr, routes: Router) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(())
}
