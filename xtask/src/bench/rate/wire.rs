//! The far end of a node's uplink, as a network card would see it: frames are made and counted by XDP
//! programs, so that hardly anything is spent on them outside of the node.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::Context;

// From `linux/bpf.h`.
const MAP_CREATE: i64 = 0;
const MAP_LOOKUP: i64 = 1;
const MAP_UPDATE: i64 = 2;
const PROG_LOAD: i64 = 5;
const TEST_RUN: i64 = 10;
const LINK_CREATE: i64 = 28;
const TYPE_ARRAY: u32 = 2;
const TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const IN_DRIVER: u32 = 1 << 2;
const LIVE_FRAMES: u32 = 1 << 1;

/// Bytes of a frame.
pub const FRAME_LEN: usize = 64;
/// Frames of one call into the kernel: fewer than the ring of a veth has places.
pub const BURST: u32 = 128;
/// Where the source port of UDP is.
const PORT_AT: i16 = 34;

/// What the next frames look like.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Template {
    /// All of the frame but its source port.
    pub frame: [u8; FRAME_LEN],
    /// Counts frames.
    pub number: u64,
    /// The bits of the number that are added to the first port.
    pub mask: u64,
}

/// First source port.
const PORT_FIRST: i32 = 1024;

/// The programs on a device, for as long as the value lives.
pub struct Wire {
    source: OwnedFd,
    template: OwnedFd,
    count: OwnedFd,
    _link: OwnedFd,
}

#[repr(C)]
struct MapCreate {
    words: [u32; 6],
}

#[repr(C)]
struct MapElement {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
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
    words: [u32; 4],
    rest: [u64; 12],
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    zero: u32,
}

impl Wire {
    /// On a device of the namespace that the calling thread is in.
    pub fn new(device: &str) -> anyhow::Result<Wire> {
        let name = CString::new(device).context("a device has no zero in its name")?;
        // SAFETY: a string that ends.
        let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let template = array(size_of::<Template>()).context("make a map")?;
        let count = array(size_of::<u64>()).context("make a map")?;
        let source = load(&source_code(&template, ifindex)).context("load the source of frames")?;
        let sink = load(&sink_code(&count)).context("load the counter of frames")?;
        let link =
            LinkCreate { words: [number(&sink), ifindex, ATTACH_XDP, IN_DRIVER], rest: [0; 12] };
        let link = open(LINK_CREATE, &link)
            .with_context(|| format!("attach an XDP program to {device}"))?;
        Ok(Wire { source, template, count, _link: link })
    }

    /// Sends a burst of frames to the other end. To be called in the device's namespace.
    pub fn send(&self, template: &Template) -> anyhow::Result<()> {
        element(MAP_UPDATE, &self.template, std::ptr::from_ref(template) as u64)
            .context("write the frame")?;
        let run = TestRun {
            prog_fd: number(&self.source),
            data_size_in: u32::try_from(FRAME_LEN)?,
            data_in: template.frame.as_ptr() as u64,
            repeat: BURST,
            flags: LIVE_FRAMES,
            batch_size: BURST / 2,
            ..TestRun::default()
        };
        bpf(TEST_RUN, &run).map(drop).context("send frames")
    }

    /// How many UDP packets came in.
    pub fn received(&self) -> anyhow::Result<u64> {
        let mut count = 0_u64;
        element(MAP_LOOKUP, &self.count, std::ptr::from_mut(&mut count) as u64)
            .context("read the count of frames")?;
        Ok(count)
    }
}

/// `struct bpf_insn`.
const fn instruction(opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    opcode as u64
        | ((to | (from << 4)) as u64) << 8
        | (offset.cast_unsigned() as u64) << 16
        | (immediate.cast_unsigned() as u64) << 32
}

/// The address of an array's only element, into register 9.
fn element_address(map: &OwnedFd) -> [u64; 2] {
    [instruction(0x18, 9, 2, 0, map.as_raw_fd()), 0]
}

/// Registers 7 and 8: where the frame begins and ends; ends with this verdict, if it is too short.
fn whole_frame(verdict: i32) -> [u64; 7] {
    [
        instruction(0x61, 7, 1, 0, 0),
        instruction(0x61, 8, 1, 4, 0),
        instruction(0xbf, 2, 7, 0, 0),
        instruction(0x07, 2, 0, 0, 60),
        instruction(0x3d, 8, 2, 2, 0),
        instruction(0xb7, 0, 0, 0, verdict),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

/// Makes the frame anew, as what went round is used again, and sends it out by the device.
fn source_code(template: &OwnedFd, ifindex: u32) -> Vec<u64> {
    let mut code = whole_frame(1).to_vec();
    code[3] = instruction(0x07, 2, 0, 0, 64);
    code.extend(element_address(template));
    for offset in (0_i16..64).step_by(8) {
        code.push(instruction(0x79, 1, 9, offset, 0));
        code.push(instruction(0x7b, 7, 1, offset, 0));
    }
    code.extend([
        instruction(0x79, 1, 9, 64, 0),
        instruction(0x79, 2, 9, 72, 0),
        instruction(0xbf, 3, 1, 0, 0),
        instruction(0x07, 3, 0, 0, 1),
        instruction(0x7b, 9, 3, 64, 0),
        instruction(0x5f, 1, 2, 0, 0), // number & mask
        instruction(0x07, 1, 0, 0, PORT_FIRST),
        instruction(0xdc, 1, 0, 0, 16), // big-endian
        instruction(0x6b, 7, 1, PORT_AT, 0),
        instruction(0xb7, 1, 0, 0, ifindex.cast_signed()),
        instruction(0xb7, 2, 0, 0, 0),
        instruction(0x85, 0, 0, 0, 23), // redirect
        instruction(0x95, 0, 0, 0, 0),
    ]);
    code
}

/// Counts UDP packets, drops them, and lets all else pass.
fn sink_code(count: &OwnedFd) -> Vec<u64> {
    let mut code = whole_frame(2).to_vec();
    code.extend([
        instruction(0x71, 1, 7, 23, 0),
        instruction(0x15, 1, 0, 2, 17), // UDP
        instruction(0xb7, 0, 0, 0, 2),
        instruction(0x95, 0, 0, 0, 0),
    ]);
    code.extend(element_address(count));
    code.extend([
        instruction(0xb7, 1, 0, 0, 1),
        instruction(0xdb, 9, 1, 0, 0), // add
        instruction(0xb7, 0, 0, 0, 1),
        instruction(0x95, 0, 0, 0, 0),
    ]);
    code
}

fn array(value_len: usize) -> io::Result<OwnedFd> {
    let value_len = u32::try_from(value_len).map_err(io::Error::other)?;
    open(MAP_CREATE, &MapCreate { words: [TYPE_ARRAY, 4, value_len, 1, 0, 0] })
}

fn load(code: &[u64]) -> io::Result<OwnedFd> {
    let insn_cnt = u32::try_from(code.len()).map_err(io::Error::other)?;
    let license = c"GPL".as_ptr() as u64;
    let insns = code.as_ptr() as u64;
    open(PROG_LOAD, &ProgLoad { prog_type: TYPE_XDP, insn_cnt, insns, license, rest: [0; 12] })
}

fn element(command: i64, map: &OwnedFd, value: u64) -> io::Result<()> {
    let key = 0_u32;
    let key = (&raw const key) as u64;
    bpf(command, &MapElement { map: number(map).into(), key, value, flags: 0 }).map(drop)
}

fn number(fd: &OwnedFd) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

fn open<T>(command: i64, attributes: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: i64, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are those of the command, zero behind what is set; what they point to
    // outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
