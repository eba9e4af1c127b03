//! Services, cut down to what their translation needs.

use super::{
    addresses::SOURCE_RANGES_ANNOTATION,
    object::{ServiceObject, ServiceSpec},
    translate::PROXY_NAME_LABEL,
};

/// A Service.
#[derive(Clone, Debug)]
pub struct Service {
    /// What is wanted.
    pub spec: Option<ServiceSpec>,
    /// Another proxy serves it (KEP-2447).
    pub is_of_other_proxy: bool,
    /// When it was created; one that does not say counts as the youngest.
    pub created_unix_ms: i64,
    /// The annotation that may stand for `loadBalancerSourceRanges`.
    pub source_ranges: Option<String>,
    /// The addresses of its load balancer that are served here. KEP-1860: mode `Proxy` means that
    /// the balancer itself must be passed through.
    pub balancer_ips: Vec<String>,
}

impl From<ServiceObject> for Service {
    fn from(object: ServiceObject) -> Self {
        let ServiceObject { metadata, spec, status } = object;
        let labels = metadata.labels.unwrap_or_default();
        let ingress = status.load_balancer.ingress.unwrap_or_default();
        Self {
            spec,
            is_of_other_proxy: labels.contains_key(PROXY_NAME_LABEL),
            created_unix_ms: (metadata.creation_timestamp)
                .map_or(i64::MAX, |created| created.0.as_millisecond()),
            source_ranges: (metadata.annotations)
                .and_then(|mut annotations| annotations.remove(SOURCE_RANGES_ANNOTATION)),
            balancer_ips: (ingress.into_iter())
                .filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"))
                .filter_map(|entry| entry.ip)
                .collect(),
        }
    }
}
