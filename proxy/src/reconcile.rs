//! The loop: events in, operations out. The first change is applied at once, a burst after it in
//! one go; what the kernel refuses is read back and tried again.

mod arrivals;
mod known_node;
mod reports;

use std::{
    future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use podium_proxy_ebpf::Protocol;
use tokio::{sync::mpsc, time};
use tracing::{error, info, warn};

use crate::{
    datapath::{
        self, Datapath as _, Error,
        kernel::{KernelDatapath, Programs},
        links::Attached,
    },
    devices::{self, DeviceOptions, Devices},
    health_checks::HealthChecks,
    index::{Index, local_node::NodeSettings},
    kube_proxy::Takeover,
    metrics::Metrics,
    model::Problem,
    plan::{
        self, Limit,
        held::{Held, Limits},
        shortages::Shortages,
    },
    serve::Health,
    sockets::Follower,
    source::{Event, Source, host},
};
use arrivals::Arrivals;
use known_node::KnownNode;
use reports::Reports;

/// Least time between two passes; what arrives in between shares the next one.
const BURST: Duration = Duration::from_millis(2);

/// How long to wait before trying again what the kernel refused.
const RETRY: Duration = Duration::from_secs(1);

/// How often the addresses of the host are read again, should nobody tell of a change.
const HOST_REREAD: Duration = Duration::from_secs(30);

/// How often everything is compared, should what changed not tell all that did.
const COMPARISON: Duration = Duration::from_secs(60);

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
    /// On which devices they go as well.
    pub devices: DeviceOptions,
    /// Health as load balancers see it.
    pub health: Health,
    /// Metrics.
    pub metrics: Metrics,
    /// Ends UDP sockets whose endpoint left.
    pub sockets: Follower,
    /// Removes kube-proxy's rules once the programs are attached.
    pub takeover: Option<Takeover>,
    /// What the command line says of this node.
    pub node_settings: NodeSettings,
}

impl Reconciler {
    /// Runs until the source ends.
    ///
    /// # Errors
    /// If the programs cannot be attached.
    pub async fn run(self, source: Source) -> Result<(), Error> {
        let limits = lock(&self.datapath).limits();
        let (health_checks, failures) = HealthChecks::new(self.health.clone());
        // One signal that waits is enough: everything is read anew then.
        let (host_changed, host_changes) = mpsc::channel(1);
        let reports = Reports::new(source.problems.clone(), self.metrics.problems.clone());
        let mut state = State {
            reconciler: self,
            devices: None,
            host_changed,
            health_checks,
            limits,
            held: None,
            attached: false,
            dirty: true,
            node: KnownNode::default(),
            node_dirty: true,
            compare_all: false,
            problems_dirty: true,
            arrivals: Arrivals::default(),
            source_problems: Vec::new(),
            reports,
        };
        state.read_host();
        state.run(source, failures, host_changes).await
    }
}

struct State {
    reconciler: Reconciler,
    /// Follows devices, once the programs are attached.
    devices: Option<devices::Handle>,
    host_changed: mpsc::Sender<()>,
    health_checks: HealthChecks,
    limits: Limits,
    /// `None`: to be read from the maps.
    held: Option<Held>,
    attached: bool,
    dirty: bool,
    node: KnownNode,
    /// The datapath is yet to be told of the node.
    node_dirty: bool,
    /// The next pass takes no hint of what changed.
    compare_all: bool,
    /// Something else may be wrong than what was said.
    problems_dirty: bool,
    arrivals: Arrivals,
    source_problems: Vec<Problem>,
    reports: Reports,
}

impl State {
    async fn run(
        &mut self,
        mut source: Source,
        mut health_check_failures: mpsc::Receiver<()>,
        mut host_changes: mpsc::Receiver<()>,
    ) -> Result<(), Error> {
        let mut streams_missing = source.streams;
        let mut next_pass = time::Instant::now();
        let mut host_reread = time::interval_at(next_pass + HOST_REREAD, HOST_REREAD);
        let mut comparison = time::interval_at(next_pass + COMPARISON, COMPARISON);
        loop {
            let is_due = self.dirty && streams_missing == 0;
            let event = tokio::select! {
                biased;
                // Asked for the time first: the timer's is a millisecond late.
                () = until(next_pass), if is_due => None,
                event = source.events.recv() => match event {
                    Some(event) => Some(event),
                    None => return Ok(()),
                },
                Some(()) = health_check_failures.recv() => {
                    self.problems_changed();
                    continue;
                }
                () = device_problems_changed(&mut self.devices) => {
                    self.problems_changed();
                    continue;
                }
                _ = comparison.tick() => {
                    (self.compare_all, self.dirty) = (true, true);
                    continue;
                }
                Some(()) = host_changes.recv() => Some(Event::HostChanged),
                _ = host_reread.tick() => Some(Event::HostChanged),
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
                Ok(makes_room) => self.dirty = makes_room,
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
            Event::Changes { changes, arrived } => {
                self.arrivals.begin(arrived, !self.attached);
                for change in changes {
                    self.arrivals.take(&change, !self.attached, &self.reconciler.metrics);
                    self.reconciler.index.apply(change);
                }
                self.dirty = true;
                self.reconciler.health.queued();
            }
            Event::Synced => {
                *streams_missing = streams_missing.saturating_sub(1);
                if *streams_missing == 0 {
                    self.arrivals.complete(&self.reconciler.metrics);
                }
            }
            Event::Problems(problems) => {
                self.source_problems = problems;
                self.problems_changed();
            }
            Event::Node(object) => {
                let is_eligible = object.as_ref().is_some_and(|object| object.is_eligible);
                self.reconciler.health.set_node_eligible(is_eligible);
                self.node.set_object(object);
                self.node_changed();
            }
            Event::ServiceCidrs(blocks) => {
                self.node.set_service_cidrs(blocks);
                self.node_changed();
            }
            Event::HostChanged => self.read_host(),
        }
    }

    fn read_host(&mut self) {
        match host::addresses() {
            Ok(addresses) => {
                self.node.set_host(addresses);
                self.node_changed();
            }
            Err(error) => warn!("cannot read the addresses of this host, they stay: {error}"),
        }
    }

    fn node_changed(&mut self) {
        let Reconciler { index, node_settings, .. } = &mut self.reconciler;
        if let Some(node) = self.node.settle(node_settings, index.local_node()) {
            if let Some(devices) = &self.devices {
                devices.set_node_ips(&node.nodeport_ips);
            }
            index.set_local_node(node);
            self.node_dirty = true;
            self.problems_changed();
        }
    }

    const fn problems_changed(&mut self) {
        (self.problems_dirty, self.dirty) = (true, true);
    }

    /// Brings the kernel to what is wanted. Tells whether that made room for what had none.
    fn pass(&mut self) -> Result<bool, Error> {
        let started = Instant::now();
        let changed = self.reconciler.index.update();
        let index = &self.reconciler.index;
        if changed.health_checks {
            // Before the kernel, which may be slow or refuse: balancers need to know right away.
            self.health_checks.set(&index.desired().health_checks);
        }
        let mut datapath = lock(&self.reconciler.datapath);
        if self.node_dirty {
            datapath.set_node(index.local_node())?;
        }
        let known = self.held.take();
        let is_rebuilt = known.is_none();
        let mut held = match known {
            Some(held) => held,
            None => datapath::take_over(&mut *datapath, self.limits)?,
        };
        self.reconciler.sockets.begin(&held);
        let plan = if std::mem::take(&mut self.compare_all) {
            plan::plan(&mut held, index.desired())
        } else {
            plan::plan_changed(&mut held, index.desired(), &changed.ports, &changed.cluster_ips)
        };
        let ops = plan.ops.len();
        for op in &plan.ops {
            datapath.execute(op)?;
        }
        drop(datapath);
        let done = Instant::now();
        if !self.attached {
            self.attach(&held)?;
        }
        // That looks at every port, which is for nothing where none of its protocol is another.
        if is_rebuilt || plan.ports.iter().any(|name| name.protocol == Protocol::Udp) {
            self.reconciler.sockets.passed(&held);
        }
        self.node_dirty = false;
        let metrics = &self.reconciler.metrics;
        metrics.synced(&held, (!is_rebuilt).then_some(&plan.ports), started.elapsed());
        self.reconciler.health.synced();
        self.arrivals.done(done, metrics);
        metrics.operations_total.inc_by(u64::try_from(ops).unwrap_or(u64::MAX));
        tracing::debug!(ops, took = ?started.elapsed(), "kernel up to date");
        let has_news = changed.problems || changed.health_checks || plan.shortages_changed;
        if std::mem::take(&mut self.problems_dirty) || is_rebuilt || has_news {
            self.report(&held.shortages);
        }
        self.held = Some(held);
        Ok(plan.makes_room)
    }

    fn attach(&mut self, held: &Held) -> Result<(), Error> {
        let mut devices = None;
        let done = self.reconciler.programs.attach_with(&self.reconciler.cgroup, || {
            devices = Some(self.start_devices()?);
            Ok(())
        })?;
        self.devices = devices;
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

    fn start_devices(&self) -> Result<devices::Handle, Error> {
        let reconciler = &self.reconciler;
        let host_changed = self.host_changed.clone();
        let devices = Devices {
            options: reconciler.devices.clone(),
            links: reconciler.programs.links(),
            programs: devices::Programs::loaded(&reconciler.programs)?,
            node_ips: reconciler.index.local_node().nodeport_ips.clone(),
        };
        let started = devices.start(move || {
            let _ = host_changed.try_send(());
        });
        started.map_err(|error| Error::Devices(Box::new(error)))
    }

    /// A node without room for all Services should not get their traffic. Without room for a table
    /// of the consistent choice they are all served, at random.
    fn report(&mut self, shortages: &Shortages) {
        let full = shortages.full();
        self.reconciler.health.set_overflow(full.iter().any(|limit| *limit != Limit::Maglev));
        self.reports.full(full);
        let problems = (self.reconciler.index.problems().cloned())
            .chain(self.source_problems.iter().cloned())
            .chain(self.node.problems().iter().cloned())
            .chain(self.health_checks.problems())
            .chain(self.devices.iter().flat_map(devices::Handle::problems))
            .collect();
        self.reports.problems(problems, &shortages.problems());
    }
}

async fn device_problems_changed(devices: &mut Option<devices::Handle>) {
    match devices {
        Some(devices) => devices.problems_changed().await,
        None => future::pending().await,
    }
}

/// Waits, unless it is that late already.
async fn until(moment: time::Instant) {
    if time::Instant::now() < moment {
        time::sleep_until(moment).await;
    }
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
