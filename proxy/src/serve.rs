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
    overflow: bool,
}

impl HealthState {
    fn is_stuck(&self, now: Instant) -> bool {
        self.oldest_pending.is_some_and(|since| now.saturating_duration_since(since) > STUCK_AFTER)
    }

    /// Whether this node does all of its Services.
    fn is_healthy(&self, now: Instant) -> bool {
        self.attached && !self.overflow && !self.is_stuck(now)
    }
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

    /// Whether a map had no room for all there is.
    pub fn set_overflow(&self, overflow: bool) {
        self.with(|state| state.overflow = overflow);
    }

    /// Whether this node does all of its Services.
    pub fn is_healthy(&self) -> bool {
        self.with(|state| state.is_healthy(Instant::now()))
    }

    fn with<T>(&self, change: impl FnOnce(&mut HealthState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, for_balancers: bool, now: Instant) -> (StatusCode, Body) {
        self.with(|state| {
            // A process that still waits for its first objects lives, but serves nothing yet; and
            // one whose maps are too small would not get larger ones by being started again.
            let healthy = if for_balancers {
                state.is_healthy(now) && !state.node_not_eligible
            } else {
                !state.is_stuck(now)
            };
            let body = Body {
                last_updated: state.last_updated.map_or(String::new(), |at| at.to_string()),
                current_time: Timestamp::now().to_string(),
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
    let (code, body) = shared.health.answer(true, Instant::now());
    shared.metrics.healthz_total.with_label_values(&[code.as_str()]).inc();
    (code, Json(body)).into_response()
}

async fn livez(State(shared): State<Shared>) -> Response {
    let (code, body) = shared.health.answer(false, Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(health: &Health, at: Instant) -> [u16; 2] {
        [true, false].map(|for_balancers| health.answer(for_balancers, at).0.as_u16())
    }

    #[test]
    fn healthz_and_livez_fail_when_a_change_waits_too_long() {
        let health = Health::default();
        let now = Instant::now();
        assert_eq!(codes(&health, now), [503, 200], "nothing is in the kernel yet");
        health.synced();
        health.queued();
        assert_eq!(codes(&health, now), [200, 200]);
        let late = Instant::now() + STUCK_AFTER + Duration::from_secs(1);
        assert_eq!(codes(&health, late), [503, 503]);
        health.synced();
        assert_eq!(codes(&health, late), [200, 200]);
    }

    #[test]
    fn healthz_fails_on_a_node_that_goes_and_livez_does_not() {
        let health = Health::default();
        health.synced();
        health.set_node_eligible(false);
        assert_eq!(codes(&health, Instant::now()), [503, 200]);
        let (_, body) = health.answer(true, Instant::now());
        let json = serde_json::to_value(body).expect("a plain body");
        assert_eq!(json["nodeEligible"], false);
        assert!(json["lastUpdated"].is_string() && json["currentTime"].is_string(), "{json}");
        assert!(health.is_healthy(), "the services of the node work");
    }

    #[test]
    fn a_full_map_makes_the_node_unhealthy() {
        let health = Health::default();
        health.synced();
        health.set_overflow(true);
        assert_eq!(codes(&health, Instant::now()), [503, 200]);
        health.set_overflow(false);
        assert_eq!(codes(&health, Instant::now()), [200, 200]);
    }
}
