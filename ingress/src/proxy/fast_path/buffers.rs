//! Room for what is read and written while a request is under way. Threads keep some of it for the next
//! request; connections that wait hold none.

use bytes::BytesMut;
use std::cell::RefCell;

/// Of the client's request, to begin with.
const CLIENT_BYTES: usize = 8 * 1024;
/// Of the endpoint's answer; the most that one read takes.
const ENDPOINT_BYTES: usize = 64 * 1024;
/// Of what is written, to begin with.
const OUT_BYTES: usize = 4 * 1024;
/// Grown beyond this, room is given back to the system.
const OUT_BYTES_KEPT: usize = 128 * 1024;
/// How many a thread keeps.
const KEPT_MAX: usize = 16;

thread_local! {
    static KEPT: RefCell<Vec<Buffers>> = const { RefCell::new(Vec::new()) };
}

/// The buffers of one request.
pub struct Buffers {
    /// Read from the client.
    pub client: BytesMut,
    /// Read from the endpoint.
    pub endpoint: BytesMut,
    /// To be written.
    pub out: Vec<u8>,
}

impl Buffers {
    /// Empty ones.
    pub fn take() -> Buffers {
        KEPT.with_borrow_mut(Vec::pop).unwrap_or_else(|| Buffers {
            client: BytesMut::with_capacity(CLIENT_BYTES),
            endpoint: BytesMut::with_capacity(ENDPOINT_BYTES),
            out: Vec::with_capacity(OUT_BYTES),
        })
    }

    /// Back to the thread.
    pub fn give_back(mut self) {
        self.client.clear();
        self.endpoint.clear();
        self.out.clear();
        if self.out.capacity() > OUT_BYTES_KEPT || self.endpoint.capacity() > 2 * ENDPOINT_BYTES {
            return;
        }
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(self);
            }
        });
    }
}
