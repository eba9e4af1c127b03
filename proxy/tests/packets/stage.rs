//! Programs for measurements: empty ones, ones with a single look-up in a map, and one that puts a
//! packet's headers back to what they were before it goes on into another, as a program that is run
//! again and again is given what it left itself.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use crate::bpf::{Context, create_map, instruction, load, number, prog_array, update};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_LRU_HASH: u32 = 9;

/// Bytes of headers that are put back; a packet has to have them.
pub const HEADERS_LEN: usize = 80;

/// What an empty program returns, and one whose tail call did not happen.
const PASS: i32 = 2;
const NO_TAIL_CALL: i32 = 0x77;

/// Instructions, one or two words at a time.
struct Assembly(Vec<u64>);

impl Assembly {
    fn add(&mut self, opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> &mut Self {
        let word = instruction(opcode, to, from, immediate);
        self.0.push(word | (u64::from(offset.cast_unsigned()) << 16));
        self
    }

    /// An address: of a map (`kind` 1), or of the first element of an array (2).
    fn address(&mut self, to: u8, kind: u8, map: BorrowedFd<'_>) -> &mut Self {
        self.add(0x18, to, kind, 0, number(map).cast_signed());
        self.0.push(0);
        self
    }

    fn end(&mut self, verdict: i32) -> &mut Self {
        self.add(0xb7, 0, 0, 0, verdict).add(0x95, 0, 0, 0, 0)
    }
}

/// Kind of a program and of its place; where its context says that the packet begins and ends
/// (`linux/bpf.h`).
struct Layout {
    kind: u32,
    attach_type: u32,
    begin: i16,
    end: i16,
}

impl Layout {
    const fn new(context: Context) -> Self {
        match context {
            Context::Buffer { .. } => Self { kind: 3, attach_type: 0, begin: 76, end: 80 },
            Context::Frame { .. } => Self { kind: 6, attach_type: 37, begin: 0, end: 4 },
        }
    }

    fn load(&self, code: &Assembly) -> io::Result<OwnedFd> {
        load(self.kind, self.attach_type, &code.0)
    }
}

/// A program that does nothing.
pub fn empty(context: Context) -> io::Result<OwnedFd> {
    Layout::new(context).load(Assembly(vec![]).end(PASS))
}

/// A program that finds one element of an LRU hash of these sizes.
pub fn one_lookup(context: Context, key: u32, value: u32, len: u32) -> io::Result<OwnedFd> {
    let map = create_map(BPF_MAP_TYPE_LRU_HASH, key, value, len)?;
    let words = key / 8;
    // The key is 1, 2, 3 … in words of eight bytes.
    let bytes: Vec<u8> = (1..=u64::from(words)).flat_map(u64::to_ne_bytes).collect();
    update(map.as_fd(), &bytes, &vec![0; value as usize])?;
    let mut code = Assembly(vec![]);
    for word in 0..words {
        let offset = (word as i16 - words as i16) * 8;
        code.add(0x7a, 10, 0, offset, word as i32 + 1); // the key, on the stack
    }
    code.address(1, 1, map.as_fd())
        .add(0xbf, 2, 10, 0, 0)
        .add(0x07, 2, 0, 0, -(words as i32 * 8))
        .add(0x85, 0, 0, 0, 1) // map_lookup_elem
        .add(0x15, 0, 0, 2, 0) // nothing there: another verdict
        .end(PASS)
        .end(NO_TAIL_CALL);
    Layout::new(context).load(&code)
}

/// Puts the headers of a packet back, then runs another program on it.
pub struct Stage {
    program: OwnedFd,
    // An array of programs is emptied once nobody has it open.
    _programs: OwnedFd,
}

impl Stage {
    /// With `port_at`, the offset of the source port, each run is given the next port number.
    pub fn new(
        program: BorrowedFd<'_>,
        context: Context,
        packet: &[u8],
        port_at: Option<usize>,
    ) -> io::Result<Self> {
        let layout = Layout::new(context);
        let headers = create_map(BPF_MAP_TYPE_ARRAY, 4, HEADERS_LEN as u32 + 8, 1)?;
        let mut value = packet[..HEADERS_LEN].to_vec();
        let port = port_at.map_or(0, |at| u16::from_be_bytes([packet[at], packet[at + 1]]));
        value.extend(u64::from(port).to_ne_bytes());
        update(headers.as_fd(), &[0; 4], &value)?;
        let programs = prog_array(program)?;
        let mut code = Assembly(vec![]);
        code.add(0xbf, 6, 1, 0, 0) // r6 = context
            .add(0x61, 7, 6, layout.begin, 0) // r7 = begin
            .add(0x61, 8, 6, layout.end, 0) // r8 = end
            .add(0xbf, 2, 7, 0, 0)
            .add(0x07, 2, 0, 0, HEADERS_LEN as i32)
            .add(0x3d, 8, 2, 2, 0) // long enough
            .end(NO_TAIL_CALL)
            .address(9, 2, headers.as_fd());
        for offset in (0..HEADERS_LEN as i16).step_by(8) {
            code.add(0x79, 1, 9, offset, 0).add(0x7b, 7, 1, offset, 0);
        }
        if let Some(at) = port_at {
            code.add(0x79, 1, 9, HEADERS_LEN as i16, 0)
                .add(0x07, 1, 0, 0, 1)
                .add(0x7b, 9, 1, HEADERS_LEN as i16, 0)
                .add(0xdc, 1, 0, 0, 16) // big-endian
                .add(0x6b, 7, 1, at as i16, 0);
        }
        code.add(0xbf, 1, 6, 0, 0)
            .address(2, 1, programs.as_fd())
            .add(0xb7, 3, 0, 0, 0)
            .add(0x85, 0, 0, 0, 12) // tail_call
            .end(NO_TAIL_CALL);
        let program = layout.load(&code)?;
        Ok(Self { program, _programs: programs })
    }

    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}
