//! An XDP program that passes everything: a veth does not wake up the receiver of what XDP sends back
//! unless that one has a program too, where a network card would just send.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::Context;
use podium_tests::netns::Netns;

// From `linux/bpf.h`.
const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const IN_DRIVER: u32 = 1 << 2;

/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u64; 12],
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 12],
}

/// Puts the program on a device, for as long as the value lives.
pub fn pass_all(netns: &Netns, device: &str) -> anyhow::Result<OwnedFd> {
    let load = ProgLoad {
        prog_type: TYPE_XDP,
        insn_cnt: 2,
        insns: PASS.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        rest: [0; 12],
    };
    let program = bpf(PROG_LOAD, &load).context("load an XDP program")?;
    let name = CString::new(device).context("a device has no zero in its name")?;
    let attach = || {
        // SAFETY: a string that ends.
        let target_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let prog_fd = program.as_raw_fd().cast_unsigned();
        let link = LinkCreate {
            prog_fd,
            target_ifindex,
            attach_type: ATTACH_XDP,
            flags: IN_DRIVER,
            rest: [0; 12],
        };
        bpf(LINK_CREATE, &link)
    };
    netns.run(attach)?.with_context(|| format!("attach an XDP program to {device}"))
}

/// A bpf(2) command that opens something.
fn bpf<T>(command: i64, attributes: &T) -> std::io::Result<OwnedFd> {
    // SAFETY: the attributes are those of the command, zero behind what is set.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    let Ok(fd @ 0..) = i32::try_from(fd) else { return Err(std::io::Error::last_os_error()) };
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
