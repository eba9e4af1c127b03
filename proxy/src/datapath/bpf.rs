//! The few bpf(2) calls that aya 0.14 has no function for: links that are pinned, inspected and
//! swung to another program in place.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Commands, attribute layouts and numbers of `linux/bpf.h`.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// How many links of one hook of one device are looked through; the kernel allows no more.
const LINKS_MAX: u32 = 64;

/// The head of `struct bpf_link_info` for a link to a cgroup or a device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkInfo {
    kind: u32,
    /// The link's own id.
    pub id: u32,
    /// The program it runs.
    pub program_id: u32,
    padding: u32,
    target: u64,
    attach_type: u32,
    padding_end: u32,
}

impl LinkInfo {
    /// The cgroup it is on; 0 when that is gone.
    pub const fn cgroup_id(&self) -> u64 {
        self.target
    }

    /// Index of the device it is on, in that device's network namespace; 0 when it is gone.
    pub const fn ifindex(&self) -> u32 {
        let [a, b, c, d, ..] = self.target.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
}

/// The head of the attributes of `BPF_PROG_QUERY`, as far as links are asked for.
#[repr(C)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Attaches a program to a cgroup, beside others.
pub fn link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    link_create_on(program, number(cgroup), attach_type, 0)
}

/// Attaches a program to a device of this thread's network namespace.
pub fn device_link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    link_create_on(program, ifindex, attach_type, flags)
}

fn link_create_on(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let attr = LinkCreateAttr { prog_fd: number(program), target, attach_type, flags };
    let fd = call(BPF_LINK_CREATE, &attr)?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The ids of the links on one hook of a device, in the order their programs run. Kernels without
/// tcx know no such attach type and answer EINVAL.
pub fn device_links(ifindex: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut programs = [0_u32; LINKS_MAX as usize];
    let mut links = [0_u32; LINKS_MAX as usize];
    let mut attr = QueryAttr {
        target: ifindex,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: (&raw mut programs) as u64,
        count: LINKS_MAX,
        padding: 0,
        prog_attach_flags: 0,
        link_ids: (&raw mut links) as u64,
        link_attach_flags: 0,
        revision: 0,
    };
    call_mut(BPF_PROG_QUERY, &mut attr)?;
    Ok(links.into_iter().take(attr.count as usize).collect())
}

/// The id of a program.
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = ProgInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: number(program),
        info_len: len::<ProgInfo>(),
        info: (&raw mut info) as u64,
    };
    call_mut(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.id)
}

/// Swings a link to another program; at no moment is there none.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdateAttr {
        link_fd: number(link),
        new_prog_fd: number(program),
        flags: 0,
        old_prog_fd: 0,
    };
    call(BPF_LINK_UPDATE, &attr).map(drop)
}

/// Takes a link's program off its place at once. Without this a link goes some time after its last
/// pin.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    call(BPF_LINK_DETACH, &number(link)).map(drop)
}

/// What a link does.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: number(link),
        info_len: len::<LinkInfo>(),
        info: (&raw mut info) as u64,
    };
    call_mut(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Pins an object under a path on a bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjAttr { pathname: path.as_ptr() as u64, bpf_fd: number(object), file_flags: 0 };
    call(BPF_OBJ_PIN, &attr).map(drop)
}

/// Opens a pinned object.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = call(BPF_OBJ_GET, &attr)?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn len<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

fn call<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: `attr` is the beginning of a `union bpf_attr` for this command, `size` its length;
    // every pointer in it is to memory that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size) };
    answer(result)
}

/// For commands that write their answer into the attributes.
fn call_mut<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: as in `call`, and the kernel writes no more than `size` bytes to `attr`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    answer(result)
}

fn answer(result: libc::c_long) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
