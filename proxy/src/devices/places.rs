//! Brings the programs to the devices of a plan, and takes them off all others.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::net::if_::if_indextoname;

use super::{DeviceOptions, Place, Plan, Role, TcAttach, Xdp, claim::Claim, netlink::Socket};
use crate::datapath::{
    self,
    clsact::{self, Direction, Filter},
    links::{self, Attached, DeviceHook},
};

/// The programs that go on devices.
#[derive(Debug)]
pub struct Programs {
    /// For packets that come in from other machines.
    pub uplink_ingress: OwnedFd,
    /// For packets that come in from pods.
    pub pod_ingress: OwnedFd,
    /// For packets that go out.
    pub egress: OwnedFd,
    /// For packets that come in from other machines, in the driver.
    pub xdp: OwnedFd,
}

/// What went wrong with devices as a whole; what is wrong with one of them is a problem in an
/// [`Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A netlink call.
    #[error("cannot {action}")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two agents would remove each other's filters, which no folder of pins tells apart.
    #[error("another podium-proxy works on the devices of this network namespace: stop it first")]
    InUse,
    /// The pins.
    #[error(transparent)]
    Pins(#[from] datapath::Error),
    /// The kernel has no tcx.
    #[error("--tc-attach tcx needs Linux 6.6; auto or clsact work here")]
    NoTcx,
}

impl Error {
    pub(super) fn netlink(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Netlink { action, source }
    }
}

/// What a pass came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How often each thing happened to a hook; [`Attached::Unchanged`] is not counted.
    pub new: usize,
    /// Programs swung over.
    pub in_place: usize,
    /// Programs taken off, or links of devices that are gone.
    pub removed: usize,
    /// Devices the kernel refuses a program for, and why.
    pub problems: BTreeMap<String, String>,
    /// Devices that do without a program nobody insisted on, and why.
    pub notes: BTreeMap<String, String>,
}

/// Where the programs are kept.
#[derive(Debug)]
pub(super) struct Places {
    _claim: Claim,
    socket: Socket,
    links: PathBuf,
    programs: Programs,
    xdp: Xdp,
    uses_tcx: bool,
    /// Drivers that refused XDP: some restart the device before they do.
    xdp_refused: BTreeMap<u32, String>,
}

impl Places {
    pub(super) fn new(
        options: &DeviceOptions,
        links: &Path,
        programs: Programs,
    ) -> Result<Self, Error> {
        let uses_tcx = match options.tc_attach {
            TcAttach::Clsact => false,
            TcAttach::Auto => links::tcx_works(),
            TcAttach::Tcx if links::tcx_works() => true,
            TcAttach::Tcx => return Err(Error::NoTcx),
        };
        Ok(Self {
            _claim: Claim::new()?,
            socket: Socket::open().map_err(Error::netlink("open a netlink socket"))?,
            links: links.to_owned(),
            programs,
            xdp: options.xdp,
            uses_tcx,
            xdp_refused: BTreeMap::new(),
        })
    }

    pub(super) const fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Brings every device to what the plan says. The kernel is asked what is there, never memory.
    pub(super) fn apply(&mut self, plan: &Plan) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let filters = self.filters()?;
        let wanted = self.wanted_links(plan);
        // Native and generic XDP exclude each other: the old one goes first.
        self.unpin(&mut outcome, |hook, index| hook.is_xdp() && !wanted.contains(&(hook, index)))?;
        let mut failed = BTreeSet::new();
        for place in &plan.places {
            if let Err(reason) = self.serve(place, &filters, &mut outcome)
                && if_indextoname(place.index).is_ok()
            {
                outcome.problems.insert(place.name.clone(), reason);
                failed.insert(place.index);
            }
        }
        // Where the new way failed the old one stays.
        self.unpin(&mut outcome, |hook, index| {
            !wanted.contains(&(hook, index)) && !failed.contains(&index)
        })?;
        let is_wanted = |filter: &Filter| {
            let is_planned = plan.places.iter().any(|place| {
                place.index == filter.ifindex
                    && self.programs.of(filter.direction, place.role).is_some()
            });
            (is_planned && !self.uses_tcx) || failed.contains(&filter.ifindex)
        };
        let unwanted: Vec<Filter> =
            filters.iter().filter(|filter| !is_wanted(filter)).cloned().collect();
        outcome.removed += unwanted.len();
        clsact::detach(&mut self.socket, &unwanted)
            .map_err(Error::netlink("remove filters from devices"))?;
        Ok(outcome)
    }

    fn filters(&mut self) -> Result<Vec<Filter>, Error> {
        clsact::filters(&mut self.socket).map_err(Error::netlink("list filters of devices"))
    }

    fn wanted_links(&self, plan: &Plan) -> BTreeSet<(DeviceHook, u32)> {
        let mut wanted = BTreeSet::new();
        for place in &plan.places {
            if self.uses_tcx {
                let directions = [Direction::Ingress, Direction::Egress].into_iter();
                let used = directions.filter(|one| self.programs.of(*one, place.role).is_some());
                wanted.extend(used.map(|direction| (tcx_hook(direction), place.index)));
            }
            wanted.extend(self.xdp_hook(place).map(|hook| (hook, place.index)));
        }
        wanted
    }

    const fn xdp_hook(&self, place: &Place) -> Option<DeviceHook> {
        match (place.role, self.xdp) {
            (Role::Overlay | Role::Pod | Role::Other, _) | (Role::Uplink, Xdp::Off) => None,
            (Role::Uplink, Xdp::Native | Xdp::Auto) => Some(DeviceHook::XdpNative),
            (Role::Uplink, Xdp::Generic) => Some(DeviceHook::XdpGeneric),
        }
    }

    /// Removes the pins for which `unwanted` holds.
    fn unpin(
        &self,
        outcome: &mut Outcome,
        unwanted: impl Fn(DeviceHook, u32) -> bool,
    ) -> Result<(), Error> {
        for (hook, index) in links::pinned_devices(&self.links)? {
            if unwanted(hook, index) {
                links::detach_device(hook, index, &self.links)?;
                outcome.removed += 1;
            }
        }
        Ok(())
    }

    /// Puts the programs of one device in their places; else says why not. Egress comes first:
    /// from the moment a packet is translated, its answer is translated back.
    fn serve(
        &mut self,
        place: &Place,
        filters: &[Filter],
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        self.attach_tc(Direction::Egress, place, filters, outcome)?;
        self.attach_tc(Direction::Ingress, place, filters, outcome)?;
        let Some(hook) = self.xdp_hook(place) else { return Ok(()) };
        if let Some(reason) = self.xdp_refused.get(&place.index) {
            return refused(self.xdp, place, reason.clone(), outcome);
        }
        match links::attach_device(hook, self.programs.xdp.as_fd(), place.index, &self.links) {
            Ok(how) => {
                outcome.count(how);
                Ok(())
            }
            Err(error) => {
                let reason = reason_of_xdp(&error);
                self.xdp_refused.insert(place.index, reason.clone());
                refused(self.xdp, place, reason, outcome)
            }
        }
    }

    fn attach_tc(
        &mut self,
        direction: Direction,
        place: &Place,
        filters: &[Filter],
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let Some((name, program)) = self.programs.of(direction, place.role) else { return Ok(()) };
        let how = if self.uses_tcx {
            links::attach_device(tcx_hook(direction), program, place.index, &self.links)
                .map_err(|error| chain(&error))?
        } else {
            clsact::attach(&mut self.socket, filters, direction, place.index, program, name)
                .map_err(|error| format!("cannot set {name} at {}: {error}", direction.name()))?
        };
        outcome.count(how);
        Ok(())
    }
}

impl Programs {
    /// Those of the datapath; they last longer than that does.
    ///
    /// # Errors
    /// If one is missing.
    pub fn loaded(from: &datapath::programs::Programs) -> Result<Self, datapath::Error> {
        let fd = |name| {
            let fd = from.fd(name)?.try_clone_to_owned();
            fd.map_err(datapath::Error::io("keep kernel program", name))
        };
        Ok(Self {
            uplink_ingress: fd("uplink_ingress")?,
            pod_ingress: fd("pod_ingress")?,
            egress: fd("egress")?,
            xdp: fd("uplink_xdp")?,
        })
    }

    fn of(&self, direction: Direction, role: Role) -> Option<(&'static str, BorrowedFd<'_>)> {
        Some(match (direction, role) {
            (Direction::Egress, _) => ("egress", self.egress.as_fd()),
            (Direction::Ingress, Role::Uplink | Role::Overlay) => {
                ("uplink_ingress", self.uplink_ingress.as_fd())
            }
            (Direction::Ingress, Role::Pod) => ("pod_ingress", self.pod_ingress.as_fd()),
            (Direction::Ingress, Role::Other) => return None,
        })
    }
}

const fn tcx_hook(direction: Direction) -> DeviceHook {
    match direction {
        Direction::Ingress => DeviceHook::TcxIngress,
        Direction::Egress => DeviceHook::TcxEgress,
    }
}

impl Outcome {
    const fn count(&mut self, how: Attached) {
        match how {
            Attached::New | Attached::Moved => self.new += 1,
            Attached::InPlace => self.in_place += 1,
            Attached::Unchanged => {}
        }
    }

    /// Whether the kernel was changed.
    pub const fn changed(&self) -> bool {
        self.new + self.in_place + self.removed > 0
    }
}

fn refused(xdp: Xdp, place: &Place, reason: String, outcome: &mut Outcome) -> Result<(), String> {
    if xdp == Xdp::Auto {
        outcome.notes.insert(place.name.clone(), reason);
        return Ok(());
    }
    Err(reason)
}

fn reason_of_xdp(error: &datapath::Error) -> String {
    let datapath::Error::Io { source, .. } = error else { return chain(error) };
    match source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "its driver has no native XDP".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => {
            "an XDP program that is not ours is attached to it".to_owned()
        }
        _ => chain(error),
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A program on a device, for people to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDevice {
    /// Name of the device; its index where that is gone.
    pub device: String,
    /// `tcx_ingress`, `clsact_egress`, `xdp_native` …
    pub hook: &'static str,
    /// Name of the program; empty if the kernel does not tell.
    pub program: String,
    /// Its id, for bpftool.
    pub program_id: u32,
    /// Whether the device still exists, and nobody took the program off it.
    pub attached: bool,
}

/// Every program of ours on a device of this network namespace, and the links left of others.
///
/// # Errors
/// If pins or filters cannot be read.
pub fn attached(links: &Path) -> Result<Vec<OnDevice>, Error> {
    let mut socket = Socket::open().map_err(Error::netlink("open a netlink socket"))?;
    let filters =
        clsact::filters(&mut socket).map_err(Error::netlink("list filters of devices"))?;
    let names: BTreeMap<u32, String> = aya::programs::loaded_programs()
        .flatten()
        .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
        .collect();
    let program = |id| names.get(&id).cloned().unwrap_or_default();
    let linked = links::attached_devices(links)?.into_iter().map(|link| OnDevice {
        device: device_name(link.ifindex),
        hook: link.hook.name(),
        program: program(link.program_id),
        program_id: link.program_id,
        attached: link.attached,
    });
    let filtering = filters.iter().map(|filter| OnDevice {
        device: device_name(filter.ifindex),
        hook: filter.direction.name(),
        program: program(filter.program_id),
        program_id: filter.program_id,
        attached: true,
    });
    let mut found: Vec<OnDevice> = linked.chain(filtering).collect();
    found.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(found)
}

fn device_name(index: u32) -> String {
    let name = if_indextoname(index);
    name.map_or_else(|_| index.to_string(), |name| name.to_string_lossy().into_owned())
}

/// Takes every program of ours off every device of this network namespace. Returns whether there
/// was any.
///
/// # Errors
/// If an agent runs, or a link or filter cannot be removed.
pub fn cleanup(links: &Path) -> Result<bool, Error> {
    let _claim = Claim::new()?;
    let pinned = links::pinned_devices(links)?;
    for (hook, index) in &pinned {
        links::detach_device(*hook, *index, links)?;
    }
    let mut socket = Socket::open().map_err(Error::netlink("open a netlink socket"))?;
    let filters =
        clsact::filters(&mut socket).map_err(Error::netlink("list filters of devices"))?;
    clsact::detach(&mut socket, &filters).map_err(Error::netlink("remove filters from devices"))?;
    Ok(!pinned.is_empty() || !filters.is_empty())
}
