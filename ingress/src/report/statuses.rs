//! `status.loadBalancer` of Ingresses: what it is, what it should be, and writing the difference while
//! this replica leads.
//!
//! The controller notes what changed on a board; a task of its own writes, so that a slow API never delays
//! a snapshot and nothing noted is lost.

use super::addresses::OwnPod;
use crate::objects::ObjectKey;
use crate::objects::ingress::{Ingress, StatusAddress};
use futures::StreamExt;
use k8s_openapi::api::networking::v1 as api;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// How often everything is compared again, as ingress-nginx.
const INTERVAL: Duration = Duration::from_secs(60);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Writes under way at once, as ingress-nginx.
const WRITES_MAX: usize = 10;
/// How long the last writes may take at shutdown.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// What is known of statuses.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What every Ingress of ours should say; `None` while it is not known.
    wanted: Option<Value>,
    /// What each says.
    present: BTreeMap<ObjectKey, Present>,
    /// How often anything was noted.
    notes: u64,
    /// What was noted last.
    last: Arc<Value>,
    /// Those to be looked at.
    touched: BTreeSet<ObjectKey>,
}

/// What an Ingress says.
#[derive(Debug)]
struct Present {
    /// Nearly all say the same.
    status: Arc<Value>,
    /// By which note that is known.
    note: u64,
}

/// A status to be written.
#[derive(Debug)]
struct Due {
    key: ObjectKey,
    value: Value,
    /// By which note it is due.
    note: u64,
}

impl State {
    fn share(&mut self, status: Value) -> Arc<Value> {
        if *self.last != status {
            self.last = Arc::new(status);
        }
        self.last.clone()
    }
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what statuses should be.
    pub fn want(&self, addresses: Value) {
        let mut state = self.state();
        let state = &mut *state;
        if state.wanted.as_ref() != Some(&addresses) {
            state.wanted = Some(addresses);
            state.touched = state.present.keys().cloned().collect();
            self.changed.notify_one();
        }
    }

    /// Notes what Ingresses say; `None` for one that is not ours any more.
    pub fn note<'a>(&self, ingresses: impl Iterator<Item = (ObjectKey, Option<&'a Ingress>)>) {
        let mut state = self.state();
        for (key, ingress) in ingresses {
            match ingress {
                Some(ingress) => {
                    let status = state.share(status_of(ingress));
                    state.notes += 1;
                    let present = Present { status, note: state.notes };
                    state.present.insert(key.clone(), present);
                    state.touched.insert(key);
                }
                None => {
                    state.present.remove(&key);
                    state.touched.remove(&key);
                }
            }
        }
        self.changed.notify_one();
    }

    fn touch_all(&self) {
        let mut state = self.state();
        state.touched = state.present.keys().cloned().collect();
    }

    /// Those whose status is to be written, and what.
    fn take_due(&self) -> Vec<Due> {
        let mut state = self.state();
        let touched = std::mem::take(&mut state.touched);
        let Some(wanted) = state.wanted.clone() else {
            return Vec::new();
        };
        let due = touched.into_iter().filter_map(|key| {
            let present = state.present.get(&key).filter(|present| *present.status != wanted)?;
            Some(Due { key, value: wanted.clone(), note: present.note })
        });
        due.collect()
    }

    /// A status was written. What was noted meanwhile may be newer than that.
    fn written(&self, Due { key, value, note }: Due) {
        let mut state = self.state();
        let value = state.share(value);
        if let Some(present) = state.present.get_mut(&key).filter(|present| present.note == note) {
            present.status = value;
        }
    }

    fn failed(&self, key: ObjectKey) {
        self.state().touched.insert(key);
    }
}

/// The addresses in an Ingress's status, without what others put beside them.
fn status_of(ingress: &Ingress) -> Value {
    let one = |address: &StatusAddress| match address {
        StatusAddress::Ip(ip) => json!({ "ip": &**ip }),
        StatusAddress::Hostname(hostname) => json!({ "hostname": hostname.as_deref() }),
    };
    ingress.addresses.iter().map(one).collect()
}

/// Writes statuses while `leads` says so, until told to stop.
pub struct StatusWriter {
    /// The cluster.
    pub client: Client,
    /// What to write.
    pub board: Arc<Board>,
    /// Whether this replica leads.
    pub leads: watch::Receiver<bool>,
    /// Whose nodes' addresses to write, where no others are given.
    pub nodes_of: Option<OwnPod>,
    /// Who else there may be at shutdown.
    pub own_pod: Option<OwnPod>,
    /// `--update-status-on-shutdown`.
    pub clear_at_end: bool,
}

impl StatusWriter {
    /// Runs until told to stop, then takes addresses out if nobody else is there to serve.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut wait = INTERVAL;
        loop {
            tokio::select! {
                () = self.board.changed.notified() => {}
                changed = self.leads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.look_at_nodes().await;
                    self.board.touch_all();
                }
                () = tokio::time::sleep(wait) => {
                    self.look_at_nodes().await;
                    self.board.touch_all();
                }
                _ = &mut stop => break,
            }
            let leads = *self.leads.borrow();
            let all_written = !leads || self.write_due().await;
            wait = if all_written { INTERVAL } else { RETRY };
        }
        if *self.leads.borrow() && self.clear_at_end {
            let cleared = tokio::time::timeout(SHUTDOWN_LIMIT, self.clear()).await;
            match cleared {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "taking addresses out of statuses");
                }
                Err(_) => tracing::warn!("taking addresses out of statuses: not done in time"),
            }
        }
    }

    async fn look_at_nodes(&self) {
        let Some(pod) = self.nodes_of.as_ref().filter(|_| *self.leads.borrow()) else {
            return;
        };
        match pod.node_addresses(&self.client).await {
            Ok(addresses) => self.board.want(addresses),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "looking up the addresses of nodes");
            }
        }
    }

    /// Leaves it to another replica, or to a load balancer with several addresses.
    async fn clear(&self) -> Result<(), Error> {
        let several = |state: &State| {
            state.wanted.as_ref().and_then(Value::as_array).is_some_and(|all| all.len() > 1)
        };
        if several(&self.board.state()) {
            return Ok(());
        }
        if let Some(pod) = &self.own_pod
            && pod.is_one_of_several(&self.client).await?
        {
            return Ok(());
        }
        tracing::info!("taking addresses out of statuses: no other replica is there");
        self.board.want(json!([]));
        self.write_due().await;
        Ok(())
    }

    /// True if everything due was written.
    async fn write_due(&self) -> bool {
        let due = self.board.take_due();
        let writes = due.into_iter().map(|due| async move {
            let key = &due.key;
            let status = json!({ "status": { "loadBalancer": { "ingress": due.value } } });
            let api: Api<api::Ingress> = Api::namespaced(self.client.clone(), &key.namespace);
            let patch = Patch::Merge(&status);
            match api.patch_status(&key.name, &PatchParams::default(), &patch).await {
                Ok(_) => {
                    self.board.written(due);
                    true
                }
                Err(Error::Api(status)) if status.code == 404 => true,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "writing the status of Ingress {key}");
                    self.board.failed(due.key);
                    false
                }
            }
        });
        futures::stream::iter(writes)
            .buffer_unordered(WRITES_MAX)
            .fold(true, |all, written| async move { all && written })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingress(addresses: Value) -> Ingress {
        let ingress: api::Ingress = serde_json::from_value(json!({"metadata": {"name": "web"},
            "status": {"loadBalancer": {"ingress": addresses}}}))
        .unwrap();
        Ingress::of(&ingress)
    }

    #[test]
    fn only_differences_are_due_and_failures_stay_due() {
        let board = Board::default();
        let (web, api) = (ObjectKey::new("shop", "web"), ObjectKey::new("shop", "api"));
        let right =
            ingress(json!([{"ip": "192.0.2.1", "ports": [{"port": 80, "protocol": "TCP"}]}]));
        let wrong = ingress(json!([{"ip": "192.0.2.9"}]));
        board.note([(web.clone(), Some(&right)), (api.clone(), Some(&wrong))].into_iter());
        assert!(board.take_due().is_empty(), "nothing is wanted yet");
        let wanted = json!([{"ip": "192.0.2.1"}]);
        board.want(wanted.clone());
        let due = |board: &Board| -> Vec<(ObjectKey, Value)> {
            board.take_due().into_iter().map(|due| (due.key, due.value)).collect()
        };
        assert_eq!(due(&board), [(api.clone(), wanted.clone())]);
        board.failed(api.clone());
        let mut all = board.take_due();
        assert_eq!((&all[0].key, &all[0].value), (&api, &wanted));
        board.written(all.remove(0));
        board.touch_all();
        assert!(board.take_due().is_empty());
        board.want(json!([]));
        assert_eq!(board.take_due().len(), 2);
        board.note([(web, None)].into_iter());
        board.touch_all();
        assert_eq!(board.take_due().len(), 1);
    }
    #[test]
    fn what_another_hand_writes_meanwhile_is_seen() {
        let board = Board::default();
        let web = ObjectKey::new("shop", "web");
        board.want(json!([{"ip": "192.0.2.1"}]));
        board.note([(web.clone(), Some(&ingress(json!([]))))].into_iter());
        let mut ours = board.take_due();
        // The API has our write, and then another one, before we learn that ours is done.
        let other = ingress(json!([{"ip": "192.0.2.9"}]));
        board.note([(web, Some(&other))].into_iter());
        board.written(ours.remove(0));
        assert_eq!(board.take_due().len(), 1);
    }
}
