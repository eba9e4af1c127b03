//! Follows the kernel's devices, addresses and default routes: on each notification, and on a
//! timer in any case, everything is listed anew and brought to what it shall be.

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    net::IpAddr,
    path::PathBuf,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    io::unix::AsyncFd,
    runtime::{self, Runtime},
    sync::watch,
    time,
};
use tracing::{debug, info, warn};

use super::{
    Device, DeviceOptions, Plan, classify, listing,
    netlink::Socket,
    places::{Error, Outcome, Places, Programs, chain},
};
use crate::model::Problem;

/// A full pass is made this often even if nothing was heard.
const RELIST: Duration = Duration::from_secs(30);

/// How long to wait before trying again what failed as a whole.
const RETRY: Duration = Duration::from_secs(1);

/// The most a pass may be put off after a long one.
const REST_MAX: Duration = Duration::from_secs(1);

/// What the programs on devices depend on.
#[derive(Debug)]
pub struct Devices {
    /// The command line.
    pub options: DeviceOptions,
    /// Where links are pinned.
    pub links: PathBuf,
    /// The programs.
    pub programs: Programs,
    /// The addresses this node is known by.
    pub node_ips: BTreeSet<IpAddr>,
}

/// Keeps the following going; it ends with this value, and the programs stay where they are.
#[derive(Debug)]
pub struct Handle {
    node_ips: Option<watch::Sender<BTreeSet<IpAddr>>>,
    problems: watch::Receiver<BTreeSet<Problem>>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Other addresses of this node.
    pub fn set_node_ips(&self, ips: &BTreeSet<IpAddr>) {
        if let Some(sender) = &self.node_ips {
            sender.send_if_modified(|held| {
                let differs = held != ips;
                held.clone_from(ips);
                differs
            });
        }
    }
}

impl Handle {
    /// Devices that get no programs or not all, and why.
    pub fn problems(&self) -> BTreeSet<Problem> {
        self.problems.borrow().clone()
    }

    /// Waits until these are others.
    pub async fn problems_changed(&mut self) {
        if self.problems.changed().await.is_err() {
            // Nobody follows devices any more.
            future::pending::<()>().await;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.node_ips.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Devices {
    /// Attaches the programs to the devices there are, then follows changes in a thread of its own,
    /// in the network namespace of the caller. `host_changed` is called there when the host's
    /// addresses are others; it may block.
    ///
    /// # Errors
    /// If devices cannot be listed. A device that refuses its programs is a problem ([`Handle::problems`])
    /// and tried again.
    pub fn start(self, host_changed: impl Fn() + Send + 'static) -> Result<Handle, Error> {
        // Before the first listing, so that no change falls in between.
        let notifications = Socket::subscribe(listing::GROUPS)
            .map_err(Error::netlink("subscribe to changes of devices"))?;
        let places = Places::new(&self.options, &self.links, self.programs)?;
        let (sender, node_ips) = watch::channel(self.node_ips);
        let (told, problems) = watch::channel(BTreeSet::new());
        let mut follower = Follower {
            places,
            options: self.options,
            node_ips,
            notifications: Some(notifications),
            addresses: None,
            without_routes: BTreeSet::new(),
            told,
            said: BTreeMap::new(),
            host_changed: Box::new(host_changed),
        };
        follower.pass()?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::netlink("set up a thread for devices"))?;
        let thread = thread::Builder::new()
            .name("devices".to_owned())
            .spawn(move || follower.run(&runtime))
            .map_err(Error::netlink("start a thread for devices"))?;
        Ok(Handle { node_ips: Some(sender), problems, thread: Some(thread) })
    }
}

struct Follower {
    places: Places,
    options: DeviceOptions,
    node_ips: watch::Receiver<BTreeSet<IpAddr>>,
    notifications: Option<Socket>,
    /// Of the host, when they were last listed.
    addresses: Option<BTreeSet<IpAddr>>,
    /// Devices whose first route matters.
    without_routes: BTreeSet<u32>,
    /// What is wrong; the receiver says so.
    told: watch::Sender<BTreeSet<Problem>>,
    /// Notes on devices that are in the log.
    said: BTreeMap<String, String>,
    host_changed: Box<dyn Fn() + Send>,
}

impl Follower {
    fn run(mut self, runtime: &Runtime) {
        let notifications = {
            let _context = runtime.enter();
            self.notifications.take().map(|socket| {
                // SAFETY: the socket owns its descriptor, which stays the same and open.
                unsafe { AsyncFd::register(socket) }
            })
        };
        let mut notifications = match notifications {
            Some(Ok(notifications)) => notifications,
            other => {
                warn!("cannot follow changes of devices: {other:?}");
                return;
            }
        };
        let (mut rest, mut next) = (Duration::ZERO, RELIST);
        loop {
            // Outside of the runtime: what a pass calls may block.
            let goes_on = runtime.block_on(async {
                time::sleep(rest).await;
                let Self { node_ips, without_routes, .. } = &mut self;
                trigger(&mut notifications, without_routes, node_ips, next).await
            });
            if !goes_on {
                return;
            }
            // A storm of changes takes half of one CPU at most. To attach takes longer, but most of
            // that is waiting in the kernel.
            (rest, next) = match self.pass() {
                Ok(took) => (took.min(REST_MAX), RELIST),
                Err(error) => {
                    // Of the rest nothing is known that is not said already.
                    self.told.send_if_modified(|told| {
                        told.insert(problem("devices of this node".to_owned(), chain(&error)))
                    });
                    (Duration::ZERO, RETRY)
                }
            };
        }
    }

    /// Lists and decides, which takes the time returned, and attaches.
    fn pass(&mut self) -> Result<Duration, Error> {
        let started = Instant::now();
        let devices =
            listing::list(self.places.socket()).map_err(Error::netlink("list devices"))?;
        self.without_routes = listing::without_routes(&devices);
        let plan = classify(&devices, &self.options, &self.node_ips.borrow_and_update());
        let decided = started.elapsed();
        let outcome = self.places.apply(&plan)?;
        self.report(&plan, &outcome);
        if outcome.changed() {
            info!(
                devices = plan.places.len(),
                new = outcome.new,
                in_place = outcome.in_place,
                removed = outcome.removed,
                "programs are on their devices"
            );
        }
        debug!(devices = devices.len(), took = ?started.elapsed(), "devices up to date");
        let addresses = addresses(&devices);
        if self.addresses.replace(addresses.clone()).is_some_and(|before| before != addresses) {
            (self.host_changed)();
        }
        Ok(decided)
    }

    fn report(&mut self, plan: &Plan, outcome: &Outcome) {
        for (name, why) in &outcome.notes {
            if self.said.get(name) != Some(why) {
                info!("device {name} does without XDP: {why}");
            }
        }
        self.said.clone_from(&outcome.notes);
        let problems: BTreeSet<Problem> = (plan.skipped.iter())
            .filter(|(_, skipped)| skipped.matters)
            .map(|(name, skipped)| (name, format!("gets no programs: {}", skipped.reason)))
            .chain(outcome.problems.iter().map(|(name, why)| (name, why.clone())))
            .map(|(name, message)| problem(format!("device {name}"), message))
            .collect();
        self.told.send_if_modified(|told| {
            let differs = *told != problems;
            *told = problems;
            differs
        });
    }
}

const fn problem(object: String, message: String) -> Problem {
    Problem { object, field: String::new(), message }
}

fn addresses(devices: &[Device]) -> BTreeSet<IpAddr> {
    devices.iter().flat_map(|device| device.addresses.iter().copied()).collect()
}

/// Waits until there is something to do; false when nobody wants it any more.
async fn trigger(
    notifications: &mut AsyncFd<Socket>,
    without_routes: &BTreeSet<u32>,
    node_ips: &mut watch::Receiver<BTreeSet<IpAddr>>,
    relist_after: Duration,
) -> bool {
    let relist = time::sleep(relist_after);
    tokio::pin!(relist);
    loop {
        tokio::select! {
            changed = node_ips.changed() => return changed.is_ok(),
            () = &mut relist => return true,
            heard = heard(notifications, without_routes) => {
                if heard {
                    return true;
                }
            }
        }
    }
}

/// Whether something that matters was heard, or may have been missed.
async fn heard(notifications: &mut AsyncFd<Socket>, without_routes: &BTreeSet<u32>) -> bool {
    let Ok(mut ready) = notifications.readable_mut().await else { return true };
    let mut matters = false;
    loop {
        match ready.try_io(|socket| socket.get_mut().notifications()) {
            Ok(Ok(messages)) => {
                matters |= messages.iter().any(|one| listing::matters(one, without_routes));
            }
            Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => matters = true,
            Ok(Err(error)) => {
                warn!("cannot read changes of devices: {error}");
                return true;
            }
            Err(_would_block) => return matters,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::{
        sched::{CloneFlags, unshare},
        sys::socket::{setsockopt, sockopt},
    };

    use super::*;

    #[test]
    fn kernel_lost_notifications_count_as_heard() {
        unshare(CloneFlags::CLONE_NEWNET).expect("kernel tests need root: --skip kernel_");
        let socket = Socket::subscribe(listing::GROUPS).unwrap();
        // The kernel makes the least it allows of it.
        setsockopt(&socket, sockopt::RcvBuf, &1).unwrap();
        for name in ["a0", "a1", "a2", "a3"] {
            let made = Command::new("ip").args(["link", "add", name, "type", "veth"]).status();
            assert!(made.unwrap().success());
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        // SAFETY: the socket owns its descriptor, which stays the same and open.
        let mut socket = unsafe { AsyncFd::register(socket) }.unwrap();
        let error = socket.get_mut().notifications().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "told once that some are lost");
        for name in ["b0", "b1", "b2", "b3"] {
            let made = Command::new("ip").args(["link", "add", name, "type", "veth"]).status();
            assert!(made.unwrap().success());
        }
        assert!(runtime.block_on(heard(&mut socket, &BTreeSet::new())));
        let mut requests = Socket::open().unwrap();
        let names: Vec<_> = (listing::list(&mut requests).unwrap().into_iter())
            .filter(|device| device.kind.as_deref() == Some("veth"))
            .map(|device| device.name)
            .collect();
        assert_eq!(names.len(), 16, "{names:?}");
    }
}
