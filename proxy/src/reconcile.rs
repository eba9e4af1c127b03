//! The loop: events in, operations out. The first change is applied at once, a burst after it in
//! one go; what the kernel refuses is read back and tried again.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::time;
use tracing::{error, info, warn};

use crate::{
    datapath::{
        Datapath as _, Error,
        kernel::{KernelDatapath, Programs},
        links::Attached,
    },
    index::{Change, Index},
    kube_proxy::Takeover,
    metrics::Metrics,
    model::Problem,
    plan::{
        self, Op,
        held::{Held, Limits},
    },
    serve::Health,
    sockets::Follower,
    source::{Event, Source},
};

/// Least time between two passes; what arrives in between shares the next one.
const BURST: Duration = Duration::from_millis(2);

/// How long to wait before trying again what the kernel refused.
const RETRY: Duration = Duration::from_secs(1);

/// When an EndpointSlice's cause happened, as its controller notes it.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Everything the loop works on.
pub struct Reconciler {
    /// The objects.
    pub index: Index,
    /// The maps.
    pub datapath: Arc<Mutex<KernelDatapath>>,
    /// The programs, attached after the first pass.
    pub programs: Programs,
    /// Where they are attached.
    pub cgroup: PathBuf,
    /// Health as load balancers see it.
    pub health: Health,
    /// Metrics.
    pub metrics: Metrics,
    /// Ends UDP sockets whose endpoint left.
    pub sockets: Follower,
    /// Removes kube-proxy's rules once the programs are attached.
    pub takeover: Option<Takeover>,
}

impl Reconciler {
    /// Runs until the source ends.
    ///
    /// # Errors
    /// If the programs cannot be attached.
    pub async fn run(self, source: Source) -> Result<(), Error> {
        let limits = lock(&self.datapath).limits();
        let mut state = State {
            reconciler: self,
            limits,
            held: None,
            attached: false,
            dirty: true,
            triggers: Vec::new(),
            source_problems: Vec::new(),
            reported: BTreeSet::new(),
        };
        state.run(source).await
    }
}

struct State {
    reconciler: Reconciler,
    limits: Limits,
    /// `None`: to be read from the maps.
    held: Option<Held>,
    attached: bool,
    dirty: bool,
    triggers: Vec<jiff::Timestamp>,
    source_problems: Vec<Problem>,
    reported: BTreeSet<Problem>,
}

impl State {
    async fn run(&mut self, mut source: Source) -> Result<(), Error> {
        let mut streams_missing = source.streams;
        let mut next_pass = time::Instant::now();
        loop {
            let event = if self.dirty && streams_missing == 0 {
                tokio::select! {
                    biased;
                    () = time::sleep_until(next_pass) => None,
                    event = source.events.recv() => match event {
                        Some(event) => Some(event),
                        None => return Ok(()),
                    },
                }
            } else {
                match source.events.recv().await {
                    Some(event) => Some(event),
                    None => return Ok(()),
                }
            };
            if let Some(event) = event {
                self.take(event, &mut streams_missing);
                while let Ok(event) = source.events.try_recv() {
                    self.take(event, &mut streams_missing);
                }
                continue;
            }
            next_pass = time::Instant::now() + BURST;
            match tokio::task::block_in_place(|| self.pass()) {
                Ok(()) => self.dirty = false,
                Err(error) if !self.attached => return Err(error),
                Err(error) => {
                    error!("cannot bring the kernel up to date, trying again: {}", chain(&error));
                    self.held = None;
                    next_pass = time::Instant::now() + RETRY;
                }
            }
        }
    }

    fn take(&mut self, event: Event, streams_missing: &mut usize) {
        match event {
            Event::Changes(changes) => {
                for change in changes {
                    self.take_change(change);
                }
                self.dirty = true;
                self.reconciler.health.queued();
            }
            Event::Synced => *streams_missing = streams_missing.saturating_sub(1),
            Event::Problems(problems) => {
                self.source_problems = problems;
                self.dirty = true;
            }
            Event::NodeEligible(eligible) => self.reconciler.health.set_node_eligible(eligible),
        }
    }

    fn take_change(&mut self, change: Change) {
        let metrics = &self.reconciler.metrics;
        match &change {
            Change::Service(..) => {
                metrics.service_changes_total.inc();
                metrics.service_changes_pending.inc();
            }
            Change::Slice(_, slice) => {
                metrics.endpoint_changes_total.inc();
                metrics.endpoint_changes_pending.inc();
                // Before the first pass these are old news, which would only distort the figure.
                if self.attached {
                    self.triggers.extend(slice.as_deref().and_then(trigger_time));
                }
            }
            Change::Endpoints(..) => {
                metrics.endpoint_changes_total.inc();
                metrics.endpoint_changes_pending.inc();
            }
        }
        self.reconciler.index.apply(change);
    }

    fn pass(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let (desired, mut problems) = self.reconciler.index.desired();
        let mut datapath = lock(&self.reconciler.datapath);
        let mut held = match self.held.take() {
            Some(held) => held,
            None => {
                // What an agent gave up a moment ago looks free in the maps.
                datapath.execute(&Op::WaitForReaders)?;
                Held::rebuild(&datapath.snapshot()?, self.limits)
            }
        };
        self.reconciler.sockets.begin(&held);
        let plan = plan::plan(&mut held, &desired);
        problems.extend(plan.problems);
        let ops = plan.ops.len();
        for op in &plan.ops {
            datapath.execute(op)?;
        }
        drop(datapath);
        if !self.attached {
            self.attach(&held)?;
        }
        self.reconciler.sockets.passed(&held);
        let reconciler = &self.reconciler;
        reconciler.metrics.synced(&held, started.elapsed());
        reconciler.health.synced();
        let now = jiff::Timestamp::now();
        for trigger in self.triggers.drain(..) {
            let waited = now.duration_since(trigger).as_secs_f64();
            reconciler.metrics.network_programming_duration.observe(waited.max(0.0));
        }
        tracing::debug!(ops, took = ?started.elapsed(), "kernel up to date");
        self.held = Some(held);
        problems.extend(self.source_problems.iter().cloned());
        self.report(problems);
        Ok(())
    }

    fn attach(&mut self, held: &Held) -> Result<(), Error> {
        let done = self.reconciler.programs.attach(&self.reconciler.cgroup)?;
        self.attached = true;
        let taken_over = done.iter().filter(|(_, how)| *how == Attached::InPlace).count();
        info!(
            cgroup = %self.reconciler.cgroup.display(),
            service_ports = held.ports.len(),
            programs = done.len(),
            taken_over,
            "services are balanced in the kernel"
        );
        if let Some(takeover) = self.reconciler.takeover.take() {
            takeover.start().map_err(Error::io("start a thread", "takeover"))?;
        }
        Ok(())
    }

    /// Says each problem once, and once more that it is solved.
    fn report(&mut self, problems: Vec<Problem>) {
        let problems: BTreeSet<Problem> = problems.into_iter().collect();
        for problem in problems.difference(&self.reported) {
            warn!("{problem}");
        }
        for problem in self.reported.difference(&problems) {
            info!("solved: {problem}");
        }
        let count = i64::try_from(problems.len()).unwrap_or(i64::MAX);
        self.reconciler.metrics.problems.set(count);
        self.reported = problems;
    }
}

fn trigger_time(slice: &EndpointSlice) -> Option<jiff::Timestamp> {
    slice.metadata.annotations.as_ref()?.get(TRIGGER_TIME)?.parse().ok()
}

fn lock(datapath: &Mutex<KernelDatapath>) -> std::sync::MutexGuard<'_, KernelDatapath> {
    datapath.lock().unwrap_or_else(PoisonError::into_inner)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
