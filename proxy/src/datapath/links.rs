//! The programs in their places: attached to the cgroup and to network devices, pinned, replaced
//! in place. Which devices get which program is for [`crate::devices`] to say.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use super::{Error, bpf};

/// One program and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Name of the program, and of the pinned link.
    pub name: &'static str,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

/// Every hook. What only shows addresses comes first: from the moment a socket is sent to an
/// endpoint, its program is told the service address.
pub const HOOKS: [Hook; 8] = [
    Hook { name: "getpeername4", attach_type: 29 },
    Hook { name: "getpeername6", attach_type: 30 },
    Hook { name: "recvmsg4", attach_type: 19 },
    Hook { name: "recvmsg6", attach_type: 20 },
    Hook { name: "sendmsg4", attach_type: 14 },
    Hook { name: "sendmsg6", attach_type: 15 },
    Hook { name: "connect4", attach_type: 10 },
    Hook { name: "connect6", attach_type: 11 },
];

/// What attaching came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// There was no link.
    New,
    /// The link of an earlier agent now runs this program.
    InPlace,
    /// The link was on another cgroup or device, or on one that is gone.
    Moved,
    /// The link of an earlier agent runs this very program.
    Unchanged,
}

/// Puts a program in its place. Where a link is pinned already, it is swung over.
pub fn attach(
    hook: Hook,
    program: BorrowedFd<'_>,
    cgroup_path: &Path,
    links: &Path,
) -> Result<Attached, Error> {
    let cgroup = File::open(cgroup_path).map_err(Error::io("open cgroup", cgroup_path))?;
    // kernfs: the inode number of a cgroup's folder is its id.
    let cgroup_id = cgroup.metadata().map_err(Error::io("read", cgroup_path))?.ino();
    let pin = links.join(hook.name);
    let old = open_pinned(&pin)?;
    if let Some(old) = &old {
        let info = bpf::link_info(old.as_fd()).map_err(Error::io("inspect link", &pin))?;
        if info.cgroup_id() == cgroup_id {
            bpf::link_update(old.as_fd(), program).map_err(Error::io("update link", &pin))?;
            return Ok(Attached::InPlace);
        }
    }
    let link = bpf::link_create(program, cgroup.as_fd(), hook.attach_type)
        .map_err(Error::io("attach a program to cgroup", cgroup_path))?;
    replace_pin(&link, links, hook.name)?;
    Ok(if old.is_some() { Attached::Moved } else { Attached::New })
}

fn open_pinned(pin: &Path) -> Result<Option<OwnedFd>, Error> {
    match bpf::get(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open pinned link", pin)(error)),
    }
}

/// Pins a link in the place of the one of that name, if there is one, in a single step.
fn replace_pin(link: &OwnedFd, links: &Path, name: &str) -> Result<(), Error> {
    let pin = links.join(name);
    let fresh = links.join(format!("{name}_new"));
    let _ = fs::remove_file(&fresh);
    bpf::pin(link.as_fd(), &fresh).map_err(Error::io("pin link", &fresh))?;
    fs::rename(&fresh, &pin).map_err(Error::io("replace pinned link", &pin))
}

/// The program each pinned link runs, and whether its cgroup still exists.
pub fn attached(links: &Path) -> Vec<(Hook, u32, bool)> {
    (HOOKS.iter())
        .filter_map(|hook| {
            let link = bpf::get(&links.join(hook.name)).ok()?;
            let info = bpf::link_info(link.as_fd()).ok()?;
            Some((*hook, info.program_id, info.cgroup_id() != 0))
        })
        .collect()
}

/// A place for a program on a network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceHook {
    /// Packets that come in, behind the programs of others.
    TcxIngress,
    /// Packets that go out, before the programs of others: they see a packet as it is on the wire
    /// in both directions, as they would beside kube-proxy.
    TcxEgress,
    /// In the driver.
    XdpNative,
    /// Behind the driver, for all of them.
    XdpGeneric,
}

impl DeviceHook {
    /// Every one of them.
    pub const ALL: [Self; 4] =
        [Self::TcxIngress, Self::TcxEgress, Self::XdpNative, Self::XdpGeneric];

    /// Its name, also in pins.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcxIngress => "tcx_ingress",
            Self::TcxEgress => "tcx_egress",
            Self::XdpNative => "xdp_native",
            Self::XdpGeneric => "xdp_generic",
        }
    }

    /// `enum bpf_attach_type`.
    const fn attach_type(self) -> u32 {
        match self {
            Self::TcxIngress => 46,
            Self::TcxEgress => 47,
            Self::XdpNative | Self::XdpGeneric => 37,
        }
    }

    /// `BPF_F_AFTER` and `BPF_F_BEFORE` with no program named: the last and the first place;
    /// `XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE`.
    const fn flags(self) -> u32 {
        match self {
            Self::TcxIngress => 1 << 4,
            Self::TcxEgress => 1 << 3,
            Self::XdpNative => 1 << 2,
            Self::XdpGeneric => 1 << 1,
        }
    }

    /// Whether it is one of the places for XDP programs, of which a device has one at a time.
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::XdpNative | Self::XdpGeneric)
    }

    fn pin_name(self, ifindex: u32) -> String {
        format!("{}_{ifindex}", self.name())
    }

    fn of_pin(name: &str) -> Option<(Self, u32)> {
        let (hook, ifindex) = name.rsplit_once('_')?;
        let hook = Self::ALL.into_iter().find(|one| one.name() == hook)?;
        Some((hook, ifindex.parse().ok()?))
    }
}

/// A pinned link to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceLink {
    /// Index of the device.
    pub ifindex: u32,
    /// Where on it.
    pub hook: DeviceHook,
    /// Id of the link.
    pub link_id: u32,
    /// Id of the program it runs.
    pub program_id: u32,
    /// Whether the device still exists, and nobody took the program off it.
    pub attached: bool,
}

/// Whether the kernel has tcx (6.6 and later).
pub fn tcx_works() -> bool {
    /// `lo` is there in every network namespace, under this index.
    const LOOPBACK: u32 = 1;
    bpf::device_links(LOOPBACK, DeviceHook::TcxIngress.attach_type()).is_ok()
}

/// Puts a program in its place on a device of this thread's network namespace. Where a link is
/// pinned already, it is swung over.
pub fn attach_device(
    hook: DeviceHook,
    program: BorrowedFd<'_>,
    ifindex: u32,
    links: &Path,
) -> Result<Attached, Error> {
    let name = hook.pin_name(ifindex);
    let pin = links.join(&name);
    let old = open_pinned(&pin)?;
    if let Some(old) = &old {
        let info = bpf::link_info(old.as_fd()).map_err(Error::io("inspect link", &pin))?;
        if is_on(&info, hook, ifindex) {
            let wanted = bpf::program_id(program).map_err(Error::io("inspect program", &name))?;
            if info.program_id == wanted {
                return Ok(Attached::Unchanged);
            }
            bpf::link_update(old.as_fd(), program).map_err(Error::io("update link", &pin))?;
            return Ok(Attached::InPlace);
        }
    }
    let link = bpf::device_link_create(program, ifindex, hook.attach_type(), hook.flags())
        .map_err(Error::io("attach", &name))?;
    replace_pin(&link, links, &name)?;
    Ok(if old.is_some() { Attached::Moved } else { Attached::New })
}

/// Whether a link is on the device that has this index here and now. A device that was moved to
/// another network namespace keeps its links and may keep its index.
fn is_on(info: &bpf::LinkInfo, hook: DeviceHook, ifindex: u32) -> bool {
    info.ifindex() == ifindex
        && (hook.is_xdp()
            || bpf::device_links(ifindex, hook.attach_type())
                .is_ok_and(|ids| ids.contains(&info.id)))
}

/// Every pinned link to a device.
pub fn attached_devices(links: &Path) -> Result<Vec<DeviceLink>, Error> {
    let mut found = Vec::new();
    for (hook, ifindex) in pinned_devices(links)? {
        let pin = links.join(hook.pin_name(ifindex));
        let Some(link) = open_pinned(&pin)? else { continue };
        let info = bpf::link_info(link.as_fd()).map_err(Error::io("inspect link", &pin))?;
        found.push(DeviceLink {
            ifindex,
            hook,
            link_id: info.id,
            program_id: info.program_id,
            attached: info.ifindex() == ifindex,
        });
    }
    Ok(found)
}

/// The names of pins alone.
pub fn pinned_devices(links: &Path) -> Result<Vec<(DeviceHook, u32)>, Error> {
    let entries = match fs::read_dir(links) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", links)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", links))?;
        found.extend(entry.file_name().to_str().and_then(DeviceHook::of_pin));
    }
    found.sort_by_key(|(hook, ifindex)| (*ifindex, *hook));
    Ok(found)
}

/// Takes a program off a device.
pub fn detach_device(hook: DeviceHook, ifindex: u32, links: &Path) -> Result<(), Error> {
    let pin = links.join(hook.pin_name(ifindex));
    if let Some(link) = open_pinned(&pin)? {
        // Fails if the device is gone: then so is the program.
        let _ = bpf::link_detach(link.as_fd());
    }
    match fs::remove_file(&pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("unpin", pin)(error))
        }
        _ => Ok(()),
    }
}
