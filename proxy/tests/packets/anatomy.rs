//! What the kernel tells about a loaded program: its instructions, and how much stack they use.

use std::{collections::BTreeSet, io, os::fd::BorrowedFd};

use crate::bpf::translated;

const FRAME_POINTER: u64 = 10;

/// Sizes of a program.
#[derive(Debug, PartialEq, Eq)]
pub struct Anatomy {
    /// Instructions as the verifier left them.
    pub instructions: usize,
    /// Bytes of machine code.
    pub machine_code_bytes: u32,
    /// Bytes of the deepest chain of calls, of 512 that there may be.
    pub stack_bytes: u64,
}

pub fn anatomy(program: BorrowedFd<'_>) -> io::Result<Anatomy> {
    let (code, machine_code_bytes) = translated(program)?;
    let stack_bytes = Functions::new(&code).deepest(0);
    Ok(Anatomy { instructions: code.len(), machine_code_bytes, stack_bytes })
}

/// Opcode, destination, source, offset, immediate: `struct bpf_insn`.
fn fields(word: u64) -> (u64, u64, u64, i16, i32) {
    let offset = ((word >> 16) as u16).cast_signed();
    let immediate = ((word >> 32) as u32).cast_signed();
    (word & 0xff, (word >> 8) & 0xf, (word >> 12) & 0xf, offset, immediate)
}

/// Where a call within the program leads.
fn callee(index: usize, word: u64) -> Option<usize> {
    let (opcode, _, source, offset, _) = fields(word);
    let is_call = opcode == 0x85 && source == 1;
    is_call.then(|| (index + 1).checked_add_signed(offset.into())).flatten()
}

struct Functions<'a> {
    code: &'a [u64],
    starts: Vec<usize>,
}

impl<'a> Functions<'a> {
    fn new(code: &'a [u64]) -> Self {
        let calls = code.iter().enumerate().filter_map(|(index, word)| callee(index, *word));
        let starts: BTreeSet<usize> = calls.chain([0, code.len()]).collect();
        Self { code, starts: starts.into_iter().collect() }
    }

    /// Bytes of a function's frame and of the deepest of those that it calls.
    fn deepest(&self, start: usize) -> u64 {
        let end = self.starts.iter().find(|other| **other > start).copied().unwrap_or(start);
        let (mut own, mut below) = (1, 0);
        for (index, word) in self.code.iter().enumerate().take(end).skip(start) {
            if let Some(callee) = callee(index, *word) {
                below = below.max(self.deepest(callee));
            }
            own = own.max(self.reached(index, *word));
        }
        // As the verifier counts for compiled programs.
        u64::from(own).next_multiple_of(16) + below
    }

    /// How far down the frame an instruction reaches.
    fn reached(&self, index: usize, word: u64) -> u32 {
        let (opcode, to, from, offset, _) = fields(word);
        let depth = match opcode & 7 {
            1 if from == FRAME_POINTER => offset.into(),
            2 | 3 if to == FRAME_POINTER => offset.into(),
            // The address of something in the frame: a copy of the pointer, from which is taken.
            7 if opcode == 0xbf && from == FRAME_POINTER => {
                let next = self.code.get(index + 1).map_or((0, 0, 0, 0, 0), |word| fields(*word));
                if (next.0, next.1) == (0x07, to) { next.4 } else { 0 }
            }
            _ => 0,
        };
        depth.min(0).unsigned_abs()
    }
}
