//! An array map as memory: written with plain stores, read by the kernel's programs.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

use podium_proxy_ebpf::{Endpoint, StreamPeer, choice::SLOTS_PER_BLOCK};

/// One element of the `MAGLEV` array.
pub type MaglevBlock = [u16; SLOTS_PER_BLOCK as usize];

/// What an element of a mapped array may be.
///
/// # Safety
/// Every bit pattern is a value, and the size is a multiple of 8, as the kernel lays elements out.
pub unsafe trait Element: Copy {}

// SAFETY: plain bytes without padding, as its `aya::Pod` says; 24 bytes.
unsafe impl Element for Endpoint {}
// SAFETY: plain bytes without padding, as its `aya::Pod` says; 64 bytes.
unsafe impl Element for StreamPeer {}
// SAFETY: numbers; 8 bytes.
unsafe impl Element for MaglevBlock {}

/// A shared mapping of a whole array map.
#[derive(Debug)]
pub struct Mapping<T: Element> {
    first: NonNull<T>,
    len: u32,
}

// SAFETY: the mapping is owned by this value and not tied to a thread.
unsafe impl<T: Element> Send for Mapping<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Element> Sync for Mapping<T> {}

impl<T: Element> Mapping<T> {
    const MULTIPLE_OF_8: () = assert!(size_of::<T>().is_multiple_of(8));

    /// Maps an array of `len` elements, made with `BPF_F_MMAPABLE`.
    pub fn map(fd: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        const { Self::MULTIPLE_OF_8 };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::bytes(len),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { first, len })
    }

    /// Number of elements.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Stores elements from `start` on; `false`, and nothing stored, if they do not fit.
    pub fn write(&mut self, start: u32, elements: &[T]) -> bool {
        let start = start as usize;
        if start.checked_add(elements.len()).is_none_or(|end| end > self.len as usize) {
            return false;
        }
        for (offset, element) in elements.iter().enumerate() {
            // SAFETY: within the mapping, as checked above.
            let slot = unsafe { self.first.add(start + offset) };
            // SAFETY: a valid, aligned element; no program looks at it before an entry does.
            unsafe { slot.write_volatile(*element) };
        }
        // The entry that will point here is set by a system call; this keeps the order visible.
        fence(Ordering::Release);
        true
    }

    /// The elements from `start` on; `None` if there are not that many.
    pub fn read(&self, start: u32, len: u32) -> Option<Vec<T>> {
        let end = start.checked_add(len)?;
        if end > self.len {
            return None;
        }
        let read_one = |index: u32| {
            // SAFETY: within the mapping, as checked above.
            let slot = unsafe { self.first.add(index as usize) };
            // SAFETY: a valid, aligned element.
            unsafe { slot.read_volatile() }
        };
        Some((start..end).map(read_one).collect())
    }

    const fn bytes(len: u32) -> usize {
        len as usize * size_of::<T>()
    }
}

impl<T: Element> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, with its length.
        unsafe { libc::munmap(self.first.as_ptr().cast(), Self::bytes(self.len)) };
    }
}

/// A table for the consistent choice in blocks; the last one is filled up with zeros, which no
/// program reads.
pub fn blocks(slots: &[u16]) -> Vec<MaglevBlock> {
    (slots.chunks(SLOTS_PER_BLOCK as usize))
        .map(|chunk| {
            let mut block = MaglevBlock::default();
            block[..chunk.len()].copy_from_slice(chunk);
            block
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_in_blocks() {
        assert!(blocks(&[]).is_empty());
        assert_eq!(blocks(&[1, 2, 3, 4, 5]), [[1, 2, 3, 4], [5, 0, 0, 0]]);
    }
}
