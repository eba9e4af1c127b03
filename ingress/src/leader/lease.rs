//! The election against the API: reads and writes the Lease, tells who leads, gives it back at the end.

use super::{Election, Record, Step};
use crate::metrics::Metrics;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// A request is given up after this part of the lease's duration: a late answer is worth nothing.
const TIMEOUT_PART: u32 = 4;

/// Which Lease, and who asks for it.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Of the Lease.
    pub namespace: String,
    /// Of the Lease.
    pub name: String,
    /// Unlike that of any other replica.
    pub identity: String,
    /// How long it is held without a renewal.
    pub ttl: Duration,
}

/// Takes part in the election until told to stop, then gives the Lease back if it is ours.
pub async fn run(
    client: Client,
    options: LeaseOptions,
    leads: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    mut stop: oneshot::Receiver<()>,
) {
    let api: Api<Lease> = Api::namespaced(client, &options.namespace);
    let mut election = Election::new(options.identity.clone(), options.ttl);
    metrics.leading(&options.name, false);
    let limit = options.ttl / TIMEOUT_PART;
    loop {
        match tokio::time::timeout(limit, look(&api, &options, &mut election)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if is_conflict(&error) => {
                tracing::debug!("another replica wrote Lease {} first", options.name);
            }
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "Lease {}/{}", options.namespace, options.name);
            }
            Err(_) => tracing::warn!("no answer about Lease {} in time", options.name),
        }
        tell(&leads, &metrics, &options, election.leads(Instant::now()));
        let wait = election.interval();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = &mut stop => break,
        }
        // The wait itself may be longer than what leadership is good for.
        tell(&leads, &metrics, &options, election.leads(Instant::now()));
    }
    if election.leads(Instant::now()) {
        let released = tokio::time::timeout(limit, release(&api, &options)).await;
        if let Ok(Err(error)) = released {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "giving back Lease {}/{}", options.namespace, options.name);
        }
    }
    tell(&leads, &metrics, &options, false);
}

fn tell(leads: &watch::Sender<bool>, metrics: &Metrics, options: &LeaseOptions, now: bool) {
    let changed = leads.send_if_modified(|leads| std::mem::replace(leads, now) != now);
    if changed {
        let what = if now { "leading" } else { "no longer leading" };
        tracing::info!(lease = options.name, identity = options.identity, "{what}");
        metrics.leading(&options.name, now);
    }
}

fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409)
}

async fn look(
    api: &Api<Lease>,
    options: &LeaseOptions,
    election: &mut Election,
) -> Result<(), Error> {
    let lease = api.get_opt(&options.name).await?;
    let record = lease.as_ref().map(record);
    let asked = Instant::now();
    let step = election.step(record.as_ref(), asked);
    let now = MicroTime(Timestamp::now());
    let mut spec = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let written = match step {
        Step::Wait => return Ok(()),
        Step::Create => {
            spec = held(options, &now, 0);
            let metadata = ObjectMeta {
                name: Some(options.name.clone()),
                namespace: Some(options.namespace.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease { metadata, spec: Some(spec) };
            api.create(&PostParams::default(), &lease).await?
        }
        Step::Renew | Step::Take => {
            if step == Step::Take {
                let transitions = spec.lease_transitions.unwrap_or(0).saturating_add(1);
                spec = held(options, &now, transitions);
            }
            spec.renew_time = Some(now);
            // The resourceVersion that was read goes along: whoever wrote in between wins.
            let lease = Lease { spec: Some(spec), ..lease.unwrap_or_default() };
            api.replace(&options.name, &PostParams::default(), &lease).await?
        }
    };
    election.written(self::record(&written), asked, Instant::now());
    Ok(())
}

fn held(options: &LeaseOptions, now: &MicroTime, transitions: i32) -> LeaseSpec {
    let seconds = options.ttl.as_secs_f64().ceil();
    #[expect(clippy::cast_possible_truncation, reason = "a flag of at most some hours")]
    let seconds = seconds as i32;
    LeaseSpec {
        holder_identity: Some(options.identity.clone()),
        lease_duration_seconds: Some(seconds.max(1)),
        acquire_time: Some(now.clone()),
        renew_time: Some(now.clone()),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let text = |time: Option<MicroTime>| time.map(|time| time.0.to_string()).unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration_s: spec.lease_duration_seconds.unwrap_or(0),
        acquired: text(spec.acquire_time),
        renewed: text(spec.renew_time),
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}

/// Writes that nobody holds it, so that another replica need not wait.
async fn release(api: &Api<Lease>, options: &LeaseOptions) -> Result<(), Error> {
    let Some(mut lease) = api.get_opt(&options.name).await? else {
        return Ok(());
    };
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(&options.identity) {
        return Ok(());
    }
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(MicroTime(Timestamp::now()));
    api.replace(&options.name, &PostParams::default(), &lease).await.map(drop)
}
