//! The programs in their places: attached to the cgroup, pinned, replaced in place.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
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
    /// The link was on another cgroup, or on one that is gone.
    Moved,
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
    let old = match bpf::get(&pin) {
        Ok(link) => Some(link),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("open pinned link", pin)(error)),
    };
    if let Some(old) = &old {
        let info = bpf::link_info(old.as_fd()).map_err(Error::io("inspect link", &pin))?;
        if info.cgroup_id == cgroup_id {
            bpf::link_update(old.as_fd(), program).map_err(Error::io("update link", &pin))?;
            return Ok(Attached::InPlace);
        }
    }
    let link = bpf::link_create(program, cgroup.as_fd(), hook.attach_type)
        .map_err(Error::io("attach a program to cgroup", cgroup_path))?;
    let fresh = links.join(format!("{}_new", hook.name));
    let _ = fs::remove_file(&fresh);
    bpf::pin(link.as_fd(), &fresh).map_err(Error::io("pin link", &fresh))?;
    fs::rename(&fresh, &pin).map_err(Error::io("replace pinned link", &pin))?;
    Ok(if old.is_some() { Attached::Moved } else { Attached::New })
}

/// The program each pinned link runs, and whether its cgroup still exists.
pub fn attached(links: &Path) -> Vec<(Hook, u32, bool)> {
    (HOOKS.iter())
        .filter_map(|hook| {
            let link = bpf::get(&links.join(hook.name)).ok()?;
            let info = bpf::link_info(link.as_fd()).ok()?;
            Some((*hook, info.program_id, info.cgroup_id != 0))
        })
        .collect()
}
