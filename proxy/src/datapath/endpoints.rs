//! The endpoints array as memory: written with plain stores, read by the kernel's programs.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

use podium_proxy_ebpf::Endpoint;

/// A shared mapping of the whole map.
#[derive(Debug)]
pub struct Endpoints {
    first: NonNull<Endpoint>,
    len: u32,
}

// SAFETY: the mapping is owned by this value and not tied to a thread.
unsafe impl Send for Endpoints {}
// SAFETY: shared access only reads.
unsafe impl Sync for Endpoints {}

impl Endpoints {
    /// Maps an array of `len` elements, made with `BPF_F_MMAPABLE`.
    pub fn map(fd: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes(len),
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
    pub fn write(&mut self, start: u32, elements: &[Endpoint]) -> bool {
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
    pub fn read(&self, start: u32, len: u32) -> Option<Vec<Endpoint>> {
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
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, with its length.
        unsafe { libc::munmap(self.first.as_ptr().cast(), bytes(self.len)) };
    }
}

const fn bytes(len: u32) -> usize {
    len as usize * size_of::<Endpoint>()
}
