//! Names of ExternalName Services: looked up again and again, beside all requests. What was found last
//! stays while a lookup fails.

use super::{Backend, Name};
use crate::snapshot::Snapshot;
use arc_swap::ArcSwap;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is seen whether there are new names.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often a name is looked up: system resolvers do not tell how long an answer is good for.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// How soon after a lookup without an answer the next one follows.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps the names in snapshots resolved, forever.
pub async fn keep_resolved(snapshots: Arc<ArcSwap<Snapshot>>) {
    let mut asked: HashMap<Name, Instant> = HashMap::new();
    let mut seen: Option<Arc<Snapshot>> = None;
    let mut backends: Arc<[Arc<Backend>]> = Arc::new([]);
    loop {
        let snapshot = snapshots.load_full();
        if !seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &snapshot)) {
            let named = snapshot.backends.values().filter(|backend| !backend.names().is_empty());
            backends = named.cloned().collect();
            seen = Some(snapshot);
        }
        let names: BTreeSet<Name> = backends.iter().flat_map(|backend| backend.names()).collect();
        asked.retain(|name, _| names.contains(name));
        for name in names {
            let unknown = backends.iter().any(|backend| backend.lacks(&name));
            let interval = if unknown { RETRY_INTERVAL } else { REFRESH_INTERVAL };
            if asked.get(&name).is_some_and(|asked| asked.elapsed() < interval) {
                continue;
            }
            asked.insert(name.clone(), Instant::now());
            // Each by itself: one that takes long keeps none of the others.
            tokio::spawn(look_up(name, backends.clone()));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn look_up(name: Name, backends: Arc<[Arc<Backend>]>) {
    let (host, port) = &name;
    match tokio::net::lookup_host((&**host, *port)).await {
        Ok(found) => {
            let found: BTreeSet<SocketAddr> = found.collect();
            let found: Vec<SocketAddr> = found.into_iter().collect();
            if !found.is_empty() {
                backends.iter().for_each(|backend| backend.resolve(&name, &found));
            }
        }
        Err(error) => tracing::debug!("looking up {host}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Address, BackendKey, Care};
    use crate::objects::ObjectKey;

    #[tokio::test]
    async fn a_name_is_resolved_and_followed() {
        let key = BackendKey {
            service: ObjectKey::new("shop", "external"),
            port: "80".into(),
            by_cluster_ip: false,
            care: Care::default(),
        };
        let unknown = Address::Name("nobody.invalid".into(), 80);
        let local = Address::Name("localhost".into(), 80);
        let key = Arc::new(key);
        let backend = Arc::new(Backend::new(key.clone(), [unknown, local].into()));
        let mut snapshot = Snapshot::default();
        snapshot.backends.insert(key, backend.clone());
        let task = tokio::spawn(keep_resolved(Arc::new(ArcSwap::from_pointee(snapshot))));
        let found = async {
            while backend.endpoints().is_empty() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.unwrap();
        assert!(backend.endpoints().addresses().all(|address| address.ip().is_loopback()));
        task.abort();
    }
}
