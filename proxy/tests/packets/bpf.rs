//! The bpf(2) calls of the tests: BPF_PROG_TEST_RUN, and the program that hangs a VLAN tag on a
//! packet's metadata, where a device leaves it and where no other way of the test run puts it.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// Commands and numbers of `linux/bpf.h`.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// What a wrapper returns when its tail call did not happen.
const NO_TAIL_CALL: i32 = 0x77;

/// Largest packet that comes back.
const OUTPUT_LEN: usize = 4096;

/// What a program gets besides the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A packet buffer that came in through (or is about to leave through) a device.
    Buffer { ifindex: u32 },
    /// A frame that a driver has just received.
    Frame { ifindex: u32 },
}

#[repr(C)]
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

/// Runs a program once on a packet: its verdict, and the packet it left.
pub fn test_run(
    program: BorrowedFd<'_>,
    context: Context,
    packet: &[u8],
) -> io::Result<(i32, Vec<u8>)> {
    let mut output = vec![0_u8; OUTPUT_LEN];
    let ran = run(program, context, packet, &mut output, 1)?;
    output.truncate(ran.data_size_out as usize);
    Ok((ran.retval.cast_signed(), output))
}

/// Runs a program so often, each time on what the last run left of the packet: the verdict of the
/// last run, and the nanoseconds of a run by the kernel's own count.
pub fn time_runs(
    program: BorrowedFd<'_>,
    context: Context,
    packet: &[u8],
    repeat: u32,
) -> io::Result<(i32, u32)> {
    let ran = run(program, context, packet, &mut vec![0_u8; OUTPUT_LEN], repeat)?;
    Ok((ran.retval.cast_signed(), ran.duration))
}

fn run(
    program: BorrowedFd<'_>,
    context: Context,
    packet: &[u8],
    output: &mut [u8],
    repeat: u32,
) -> io::Result<TestRun> {
    let packet_len = u32::try_from(packet.len()).map_err(io::Error::other)?;
    // The heads of `struct __sk_buff` and `struct xdp_md`.
    let words: Vec<u32> = match context {
        Context::Buffer { ifindex } => vec![0, 0, 0, 0, 0, 0, 0, 0, 0, ifindex, ifindex, 0],
        Context::Frame { ifindex } => vec![0, packet_len, 0, ifindex, 0, 0],
    };
    let mut attr = TestRun {
        prog_fd: number(program),
        retval: 0,
        data_size_in: packet_len,
        data_size_out: output.len() as u32,
        data_in: packet.as_ptr() as u64,
        data_out: output.as_mut_ptr() as u64,
        repeat,
        duration: 0,
        ctx_size_in: (words.len() * 4) as u32,
        ctx_size_out: 0,
        ctx_in: words.as_ptr() as u64,
        ctx_out: 0,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        zero: 0,
    };
    call(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(attr)
}

/// A program that puts a VLAN tag on the packet's metadata and goes on into another program.
pub struct Tagged {
    program: OwnedFd,
    _programs: OwnedFd,
}

impl Tagged {
    pub fn new(program: BorrowedFd<'_>, tag_control: u16) -> io::Result<Self> {
        let programs = prog_array(program)?;
        let fd = u64::from(number(programs.as_fd()));
        let instructions: [u64; 11] = [
            instruction(0xbf, 6, 1, 0),                      // r6 = r1
            instruction(0xb7, 2, 0, 0x0081),                 // r2 = htons(0x8100)
            instruction(0xb7, 3, 0, i32::from(tag_control)), // r3 = tag
            instruction(0x85, 0, 0, 18),                     // skb_vlan_push
            instruction(0xbf, 1, 6, 0),                      // r1 = r6
            instruction(0x18, 2, 1, 0) | (fd << 32),         // r2 = array, first half
            0,
            instruction(0xb7, 3, 0, 0),  // r3 = 0
            instruction(0x85, 0, 0, 12), // tail_call
            instruction(0xb7, 0, 0, NO_TAIL_CALL),
            instruction(0x95, 0, 0, 0), // exit
        ];
        let program = load_classifier(&instructions)?;
        Ok(Self { program, _programs: programs })
    }

    /// As [`test_run`]; the tag itself stays in the metadata and is not part of the packet.
    pub fn run(&self, context: Context, packet: &[u8]) -> io::Result<(i32, Vec<u8>)> {
        let ran = test_run(self.program.as_fd(), context, packet)?;
        assert_ne!(ran.0, NO_TAIL_CALL, "the tail call into the program did not happen");
        Ok(ran)
    }
}

/// A classifier that lets everything pass: for tests of the harness itself.
pub fn passing_classifier() -> io::Result<OwnedFd> {
    load_classifier(&[instruction(0xb7, 0, 0, -1), instruction(0x95, 0, 0, 0)])
}

/// `struct bpf_insn`: opcode, destination and source register, offset 0, immediate.
pub fn instruction(opcode: u8, to: u8, from: u8, immediate: i32) -> u64 {
    u64::from(opcode)
        | (u64::from(to | (from << 4)) << 8)
        | (u64::from(immediate.cast_unsigned()) << 32)
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

fn load_classifier(instructions: &[u64]) -> io::Result<OwnedFd> {
    load(BPF_PROG_TYPE_SCHED_CLS, 0, instructions)
}

/// Loads a program of instructions, for a place of this kind.
pub fn load(prog_type: u32, attach_type: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        prog_type,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type: attach_type,
    };
    let fd = call(BPF_PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    zero: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The array for a tail call to the only program it holds.
pub fn prog_array(only: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let array = create_map(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1)?;
    update(array.as_fd(), &0_u32.to_ne_bytes(), &number(only).to_ne_bytes())?;
    Ok(array)
}

/// A map of this kind and of these sizes.
pub fn create_map(kind: u32, key: u32, value: u32, len: u32) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: kind,
        key_size: key,
        value_size: value,
        max_entries: len,
        map_flags: 0,
        zero: 0,
    };
    let fd = call(BPF_MAP_CREATE, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes an element of a map; key and value must be as long as the map's are.
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = MapUpdate {
        map_fd: number(map),
        zero: 0,
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    call(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// A program's instructions as the verifier left them, and the bytes of its machine code.
pub fn translated(program: BorrowedFd<'_>) -> io::Result<(Vec<u64>, u32)> {
    // The first call tells how many there are.
    let mut info = ProgInfo::default();
    obj_info(program, &mut info)?;
    let mut code = vec![0_u64; info.xlated_len as usize / 8];
    let (xlated_len, xlated) = (info.xlated_len, code.as_mut_ptr() as u64);
    let mut again = ProgInfo { xlated_len, xlated, ..ProgInfo::default() };
    obj_info(program, &mut again)?;
    Ok((code, info.jited_len))
}

fn obj_info(program: BorrowedFd<'_>, info: &mut ProgInfo) -> io::Result<()> {
    let mut attr = ObjInfo {
        fd: number(program),
        len: size_of::<ProgInfo>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    call(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
}

#[repr(C)]
struct ObjInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// The number of a descriptor, as instructions and attributes name it.
pub fn number(fd: BorrowedFd<'_>) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

fn call<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: `attr` is the beginning of a `union bpf_attr` for this command, `size` its length;
    // every pointer in it is to memory that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
