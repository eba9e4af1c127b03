//! Upgrade without a dropped connection: a new process takes over the listening sockets of a running one.
//!
//! With `--upgrade-socket PATH` a running process listens at the path. A new one started with the same
//! path connects to it and receives the listening sockets themselves, so that connections wait in the
//! same backlog whoever accepts them. Once its first snapshot is in effect it accepts, tells the old
//! process to drain, and listens at the path in its place. Until that word the old process goes on as
//! ever: a new one that fails on its way does no harm. Sockets of addresses the new process was not
//! asked to serve are closed; addresses the old one did not have are opened.
//!
//! Only processes of the same user are let in: whoever has the sockets has the traffic.

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;

/// What goes with the sockets, and the words after it.
const SOCKETS: &[u8] = b"sockets\n";
const DRAIN: &[u8] = b"drain\n";
const DRAINING: &[u8] = b"draining\n";
/// As many as one message carries (`SCM_MAX_FD`).
const SOCKETS_MAX: usize = 253;
/// A running process answers at once or is none of ours.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why sockets were not handed over.
#[derive(Debug, Error)]
#[error("{what} {path}: {source}")]
pub struct HandoverError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HandoverError {
    move |source| HandoverError { what, path: path.into(), source }
}

/// The sockets of a running process, if there is one, and the way to tell it to drain.
#[derive(Default)]
pub struct Inheritance {
    sockets: HashMap<SocketAddr, TcpListener>,
    predecessor: Option<UnixStream>,
}

impl Inheritance {
    /// Asks the process at a path. Without one there is nothing to inherit.
    pub async fn ask(path: &Path) -> Result<Inheritance, HandoverError> {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            // Nobody is there, or somebody was.
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => {
                return Ok(Inheritance::default());
            }
            Err(error) => return Err(failed("connecting to", path)(error)),
        };
        let received = tokio::time::timeout(ANSWER_TIMEOUT, receive(&stream)).await;
        let sockets = received
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed("receiving sockets from", path))?;
        Ok(Inheritance { sockets, predecessor: Some(stream) })
    }

    /// There is a process to take over from.
    pub fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// The socket of an address, if it was inherited.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.sockets.remove(&address)
    }

    /// Tells the old process to drain, and waits until it accepts no more.
    pub async fn complete(self, path: &Path) -> Result<(), HandoverError> {
        let Some(mut predecessor) = self.predecessor else {
            return Ok(());
        };
        drop(self.sockets);
        let said = async {
            predecessor.write_all(DRAIN).await?;
            let mut answer = [0; DRAINING.len()];
            predecessor.read_exact(&mut answer).await.map(drop)
        };
        let said = tokio::time::timeout(ANSWER_TIMEOUT, said).await;
        said.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed("telling the running process to drain at", path))
    }
}

async fn receive(stream: &UnixStream) -> io::Result<HashMap<SocketAddr, TcpListener>> {
    let received = stream.async_io(Interest::READABLE, || receive_now(stream.as_raw_fd())).await?;
    let mut sockets = HashMap::new();
    for descriptor in received {
        let listener = std::net::TcpListener::from(descriptor);
        listener.set_nonblocking(true)?;
        sockets.insert(listener.local_addr()?, TcpListener::from_std(listener)?);
    }
    Ok(sockets)
}

fn receive_now(stream: RawFd) -> io::Result<Vec<OwnedFd>> {
    let mut text = [0; SOCKETS.len()];
    let mut slices = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([RawFd; SOCKETS_MAX]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(stream, &mut slices, Some(&mut space), flags)?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel made these descriptors for this message; nobody else has them.
            received.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    if text[..length] == *SOCKETS { Ok(received) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// A process that can be succeeded.
pub struct Succession {
    listener: UnixListener,
    sockets: Vec<OwnedFd>,
}

/// A successor that waits until this process accepts no more.
pub struct Successor(UnixStream);

impl Successor {
    /// Says that it does not.
    pub async fn release(mut self) {
        if let Err(error) = self.0.write_all(DRAINING).await {
            tracing::warn!("answering the new process: {error}");
        }
    }
}

impl Succession {
    /// Listens at a path, in place of whoever did. `sockets` is what there is to hand over.
    pub fn open(path: &Path, sockets: Vec<OwnedFd>) -> Result<Succession, HandoverError> {
        // Made beside it and moved there: the path never leads to nobody.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let open = || {
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&beside)?;
            std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
            std::fs::rename(&beside, path)?;
            Ok(listener)
        };
        let listener = open().map_err(failed("listening at", path))?;
        Ok(Succession { listener, sockets })
    }

    /// Hands the sockets to everybody who comes for them, until somebody takes over.
    pub async fn taken_over(self) -> Successor {
        let (ready, mut first) = mpsc::channel(1);
        let sockets = std::sync::Arc::new(self.sockets);
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!("accepting a new process: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                Some(successor) = first.recv() => return successor,
            };
            let (ready, sockets) = (ready.clone(), sockets.clone());
            tokio::spawn(async move {
                match hand_over(stream, &sockets).await {
                    Ok(successor) => drop(ready.send(successor).await),
                    Err(error) => tracing::warn!("a new process did not take over: {error}"),
                }
            });
        }
    }
}

async fn hand_over(mut stream: UnixStream, sockets: &[OwnedFd]) -> io::Result<Successor> {
    if stream.peer_cred()?.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let descriptors: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let send = || {
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let text = [IoSlice::new(SOCKETS)];
        let none: Option<&UnixAddr> = None;
        Ok(sendmsg(stream.as_raw_fd(), &text, &rights, MsgFlags::MSG_NOSIGNAL, none)?)
    };
    stream.async_io(Interest::WRITABLE, send).await?;
    tracing::info!(sockets = sockets.len(), "a new process got the sockets");
    let mut word = [0; DRAIN.len()];
    stream.read_exact(&mut word).await?;
    if word == *DRAIN { Ok(Successor(stream)) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[tokio::test]
    async fn sockets_change_hands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade");
        assert!(Inheritance::ask(&path).await.unwrap().predecessor.is_none());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let copy = listener.as_fd().try_clone_to_owned().unwrap();
        let succession = Succession::open(&path, vec![copy]).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let old = tokio::spawn(succession.taken_over());
        // One that gives up does no harm.
        drop(Inheritance::ask(&path).await.unwrap());
        let mut inheritance = Inheritance::ask(&path).await.unwrap();
        let taken = inheritance.take(address).unwrap();
        assert!(inheritance.take(address).is_none());
        let (done, _) = tokio::join!(inheritance.complete(&path), async {
            old.await.unwrap().release().await;
        });
        done.unwrap();
        drop(listener);
        let (client, accepted) =
            tokio::join!(tokio::net::TcpStream::connect(address), taken.accept());
        assert_eq!(client.unwrap().local_addr().unwrap(), accepted.unwrap().1);
        // Nobody listens any more, though the path is there.
        assert!(Inheritance::ask(&path).await.unwrap().predecessor.is_none());
    }
}
