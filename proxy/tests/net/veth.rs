//! What a veth needs from its peer for XDP in the driver: no checksum left to a device, as XDP
//! cannot mend it, and a program on the other end, without which veth does not wake up the
//! receiver of what XDP sends back.

use std::{
    ffi::CString,
    io,
    net::UdpSocket,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use crate::netns::Netns;

/// `ETHTOOL_STXCSUM` of `linux/ethtool.h`.
const SET_TX_CHECKSUM: u32 = 0x17;

/// From `linux/bpf.h`.
const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const IN_DRIVER: u32 = 1 << 2;

/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

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

/// Has the kernel complete the checksums of what leaves through a device.
pub fn complete_checksums(netns: &Netns, device: &str) {
    netns.run(|| {
        let mut value = EthtoolValue { command: SET_TX_CHECKSUM, data: 0 };
        // SAFETY: all zero is a valid value of this C structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // SAFETY: the request and what it points to are valid for the call.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        assert_eq!(result, 0, "ethtool on {device}: {}", io::Error::last_os_error());
    });
}

/// Puts an XDP program on a device that passes everything, for as long as the value lives.
pub fn pass_all(netns: &Netns, device: &str) -> OwnedFd {
    let program = bpf(
        PROG_LOAD,
        &ProgLoad {
            prog_type: TYPE_XDP,
            insn_cnt: 2,
            insns: PASS.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            rest: [0; 12],
        },
    );
    netns.run(|| {
        let name = CString::new(device).unwrap();
        // SAFETY: a string that ends.
        let target_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let prog_fd = program.as_raw_fd().cast_unsigned();
        let flags = IN_DRIVER;
        let attach_type = ATTACH_XDP;
        bpf(LINK_CREATE, &LinkCreate { prog_fd, target_ifindex, attach_type, flags, rest: [0; 12] })
    })
}

/// A bpf(2) command that opens something.
fn bpf<T>(command: i64, attributes: &T) -> OwnedFd {
    // SAFETY: the attributes are those of the command, zero behind what is set.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    assert!(fd >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    // SAFETY: just opened, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}
