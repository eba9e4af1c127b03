//! All elements of a hash map, thousands in one system call.
//!
//! Neither a batch nor a single look through bpf(2) counts as use: walking an LRU map does not
//! change which of its entries goes next.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::{
    Pod,
    maps::{HashMap, IterableMap as _, MapData, MapError},
};

/// `BPF_MAP_LOOKUP_BATCH` of `linux/bpf.h`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Elements asked for at once. The kernel returns whole buckets, which are much shorter.
const BATCH_LEN: u32 = 4096;
/// What a batch may grow to, should a bucket be longer.
const BATCH_LEN_MAX: u32 = 1 << 20;

/// `ENOTSUPP`: kernel-internal, but bpf(2) lets it out.
const ENOTSUPP: i32 = 524;

/// The part of `union bpf_attr` for commands on batches.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Hands every element of a hash map out. Elements that come or go meanwhile may be missing; one
/// that stays is handed out once, unless another CPU moves it.
///
/// # Errors
/// If the map cannot be read.
pub fn walk<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    mut each: impl FnMut(K, V),
) -> Result<(), MapError> {
    match walk_batches(map.map().fd().as_fd(), &mut each) {
        Ok(()) => Ok(()),
        Err(BatchError::NotSupported) => {
            for element in map.iter() {
                let (key, value) = element?;
                each(key, value);
            }
            Ok(())
        }
        Err(BatchError::Io(error)) => Err(MapError::IoError(error)),
    }
}

enum BatchError {
    /// Nothing has been handed out.
    NotSupported,
    Io(io::Error),
}

fn walk_batches<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    each: &mut impl FnMut(K, V),
) -> Result<(), BatchError> {
    let mut batch_len = BATCH_LEN;
    let mut keys: Vec<K> = Vec::new();
    let mut values: Vec<V> = Vec::new();
    let mut from: Option<u32> = None;
    loop {
        keys.clear();
        values.clear();
        keys.reserve(batch_len as usize);
        values.reserve(batch_len as usize);
        let mut next = 0_u32;
        let mut attr = BatchAttr {
            in_batch: from.as_ref().map_or(0, |from| std::ptr::from_ref(from) as u64),
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: batch_len,
            map_fd: map.as_raw_fd().unsigned_abs(),
            elem_flags: 0,
            flags: 0,
        };
        let result = lookup_batch(&mut attr);
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        match errno {
            // The bucket that is next does not fit.
            Some(libc::ENOSPC) if batch_len < BATCH_LEN_MAX => {
                batch_len *= 2;
                continue;
            }
            Some(libc::EINVAL | ENOTSUPP) if from.is_none() => {
                return Err(BatchError::NotSupported);
            }
            // The end; elements may have come along.
            None | Some(libc::ENOENT) => {}
            Some(_) => return result.map_err(BatchError::Io),
        }
        let count = attr.count.min(batch_len) as usize;
        // SAFETY: the kernel wrote so many keys into the room reserved for at least that many.
        unsafe { keys.set_len(count) };
        // SAFETY: likewise.
        unsafe { values.set_len(count) };
        keys.iter().zip(&values).for_each(|(key, value)| each(*key, *value));
        if errno.is_some() {
            return Ok(());
        }
        from = Some(next);
    }
}

fn lookup_batch(attr: &mut BatchAttr) -> io::Result<()> {
    let size = size_of::<BatchAttr>();
    // SAFETY: `attr` is the beginning of a `union bpf_attr` for this command; the pointers in it
    // lead to room for `count` keys and values of the map's sizes, and for the position, which in
    // hash maps is a u32.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut *attr, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
