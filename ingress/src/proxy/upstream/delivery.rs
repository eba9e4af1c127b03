//! Whether a request that failed on a kept connection ever reached the endpoint.
//!
//! An endpoint may close a kept connection at the very moment it is used again. A request that must not
//! be done twice may then go elsewhere only if nobody can have seen it, and TCP knows: bytes that the
//! other end's kernel never acknowledged were never there for a program to read.

use pingora::protocols::l4::ext::get_tcp_info;
use pingora::{Error, ErrorType};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The state of a kept connection before a request went out on it.
pub struct Delivery {
    socket: OwnedFd,
    sent: u64,
    acknowledged: u64,
}

impl Delivery {
    /// Remembers how much was acknowledged so far.
    pub fn watch(fd: RawFd) -> Option<Delivery> {
        if fd < 0 {
            return None;
        }
        // SAFETY: the connection is open and owned by whoever calls; the borrow ends on this line.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        // The connection is closed before its failure is looked into; its state outlives it here.
        let socket = borrowed.try_clone_to_owned().ok()?;
        let before = get_tcp_info(socket.as_raw_fd()).ok()?;
        Some(Delivery {
            socket,
            sent: before.tcpi_bytes_sent,
            acknowledged: before.tcpi_bytes_acked,
        })
    }

    /// Whether nothing of what was sent since can have been read.
    pub fn never_arrived(&self, error: &Error) -> bool {
        self.is_unseen(saw_fin(error))
    }

    fn is_unseen(&self, saw_fin: bool) -> bool {
        let Ok(now) = get_tcp_info(self.socket.as_raw_fd()) else {
            return false;
        };
        if now.tcpi_bytes_sent == self.sent {
            return true;
        }
        // A FIN carries the acknowledgement of all that came before it. A reset does not: after one alone
        // nothing is certain.
        saw_fin && now.tcpi_bytes_acked == self.acknowledged
    }
}

/// Whether the error is that of a connection that the endpoint ended before it refused more.
fn saw_fin(error: &Error) -> bool {
    match error.etype() {
        ErrorType::ConnectionClosed => true,
        // Linux says so where the reset comes after a FIN (tcp_reset in CLOSE_WAIT).
        ErrorType::WriteError | ErrorType::ReadError => {
            let cause = error.root_cause().downcast_ref::<io::Error>();
            cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    /// A connection on which one request was already answered.
    fn kept() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut proxy = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut endpoint, _) = listener.accept().unwrap();
        let mut buffer = [0; 8];
        proxy.write_all(b"request").unwrap();
        assert_eq!(endpoint.read(&mut buffer).unwrap(), 7);
        endpoint.write_all(b"answer").unwrap();
        assert_eq!(proxy.read(&mut buffer).unwrap(), 6);
        (proxy, endpoint)
    }

    fn watch(proxy: &TcpStream) -> Delivery {
        Delivery::watch(proxy.as_raw_fd()).unwrap()
    }

    fn error_of(result: io::Result<usize>) -> Box<Error> {
        match result {
            Ok(count) => {
                assert_eq!(count, 0);
                Error::new(ErrorType::ConnectionClosed)
            }
            Err(error) => Error::because(ErrorType::ReadError, "reading", error),
        }
    }

    #[test]
    fn what_was_sent_after_the_end_never_arrived() {
        let (mut proxy, endpoint) = kept();
        let delivery = watch(&proxy);
        drop(endpoint);
        thread::sleep(Duration::from_millis(50));
        proxy.write_all(b"POST").unwrap();
        thread::sleep(Duration::from_millis(50));
        let error = error_of(proxy.read(&mut [0; 8]));
        drop(proxy);
        assert!(delivery.never_arrived(&error));
    }

    #[test]
    fn what_was_never_sent_never_arrived() {
        let (proxy, endpoint) = kept();
        let delivery = watch(&proxy);
        drop((proxy, endpoint));
        assert!(delivery.never_arrived(&Error::new(ErrorType::WriteError)));
    }

    #[test]
    fn what_was_read_or_may_have_been_did_arrive() {
        for read in [true, false] {
            let (mut proxy, mut endpoint) = kept();
            let delivery = watch(&proxy);
            proxy.write_all(b"POST").unwrap();
            if read {
                assert_eq!(endpoint.read(&mut [0; 8]).unwrap(), 4);
            } else {
                // Closed with something unread: a reset, which says nothing.
                thread::sleep(Duration::from_millis(50));
            }
            drop(endpoint);
            let error = error_of(proxy.read(&mut [0; 8]));
            assert!(!delivery.never_arrived(&error), "{read}");
        }
    }
}
