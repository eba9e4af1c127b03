//! The thread that looks for sockets and ends them.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    io,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use aya::maps::MapError;
use podium_proxy_ebpf::{AddressPort, PeerKey, maps::SOCKET_PEERS};
use prometheus::IntCounter;
use tracing::{debug, error, info, warn};

use super::{
    departed::Departed,
    diag::{Connected, Diag},
    namespaces::{self, Namespace},
};
use crate::datapath::{batch, kernel::wait_for_readers, pinned, pins::PinDir};

/// When to look once more: a socket that was being connected had been given its endpoint, but the
/// kernel did not list it yet.
const AGAIN: Duration = Duration::from_secs(1);

/// Sockets ended so far.
pub fn counter() -> Result<IntCounter, prometheus::Error> {
    IntCounter::new(
        "podium_proxy_udp_sockets_destroyed_total",
        "Connected UDP sockets ended because their endpoint had left the service.",
    )
}

/// What is wrong with a sweep as a whole.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read map {SOCKET_PEERS}")]
    Peers(#[source] MapError),
    #[error(transparent)]
    Pins(#[from] crate::datapath::Error),
    #[error("cannot open the network namespace of the agent")]
    OwnNamespace(#[source] io::Error),
    #[error("cannot go back to the network namespace of the agent")]
    Back(#[source] io::Error),
}

/// Which sockets to end.
#[derive(Debug, Default)]
struct Wanted {
    /// Socket and endpoint.
    peers: HashSet<PeerKey>,
    /// Peers of sockets that nobody translated.
    untranslated: HashSet<AddressPort>,
    /// Of such sockets, only those made in these cgroups would be translated now.
    cgroup_ids: BTreeSet<u64>,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.untranslated.is_empty()
    }

    fn has(&self, socket: &Connected) -> bool {
        self.peers.contains(&peer_key(socket))
            || (self.untranslated.contains(&socket.peer)
                && socket.cgroup_id.is_some_and(|id| self.cgroup_ids.contains(&id)))
    }
}

fn peer_key(socket: &Connected) -> PeerKey {
    PeerKey { socket_cookie: socket.cookie, endpoint: socket.peer }
}

/// What the thread knows.
pub struct Sweeper {
    pins: PinDir,
    cgroup: PathBuf,
    destroyed: IntCounter,
    /// The kernel cannot end sockets, and this has been said.
    unable: bool,
}

impl Sweeper {
    /// For the programs pinned in `pins` and attached to `cgroup`.
    pub fn new(pins: PinDir, cgroup: PathBuf, destroyed: IntCounter) -> Self {
        Self { pins, cgroup, destroyed, unable: false }
    }

    /// Works until the queue is closed.
    pub fn run(mut self, queue: &Receiver<Departed>) {
        let mut again: VecDeque<(Instant, Wanted)> = VecDeque::new();
        loop {
            let received = match again.front() {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some((due, _)) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let result = match received {
                Ok(mut departed) => {
                    for more in queue.try_iter() {
                        departed.left.extend(more.left);
                        departed.appeared.extend(more.appeared);
                    }
                    self.wanted(&departed).and_then(|mut wanted| {
                        self.sweep(&mut wanted)?;
                        again.push_back((Instant::now() + AGAIN, wanted));
                        Ok(())
                    })
                }
                Err(RecvTimeoutError::Timeout) => match again.pop_front() {
                    Some((_, mut wanted)) => self.sweep(&mut wanted),
                    None => Ok(()),
                },
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = result {
                let error = anyhow::Error::from(error);
                error!("UDP sockets of endpoints that left stay connected: {error:#}");
            }
        }
    }

    fn wanted(&self, departed: &Departed) -> Result<Wanted, Error> {
        let mut wanted = Wanted::default();
        if !departed.appeared.is_empty() {
            wanted.untranslated = departed.appeared.iter().copied().collect();
            wanted.cgroup_ids = namespaces::cgroup_ids(&self.cgroup);
        }
        if departed.left.is_empty() {
            return Ok(wanted);
        }
        // A program that read the old list has noted its socket after this.
        wait_for_readers();
        let (set, _) = self.pins.current()?;
        let peers = pinned::hash::<PeerKey, AddressPort>(&set, SOCKET_PEERS)?;
        batch::walk(&peers, |key, service| {
            if departed.left.contains(&(service, key.endpoint)) {
                wanted.peers.insert(key);
            }
        })
        .map_err(Error::Peers)?;
        Ok(wanted)
    }

    /// Ends the sockets there are, and strikes them from the list: a program may connect the same
    /// socket again.
    fn sweep(&mut self, wanted: &mut Wanted) -> Result<(), Error> {
        if wanted.is_empty() || self.unable {
            return Ok(());
        }
        let home = namespaces::own().map_err(Error::OwnNamespace)?;
        let mut ended = 0;
        for namespace in namespaces::all() {
            match self.sweep_one(&namespace, wanted) {
                Ok(count) => ended += count,
                // Namespaces come and go.
                Err(error) => debug!("cannot look at {}: {error}", namespace.path.display()),
            }
            if self.unable {
                break;
            }
        }
        home.enter().map_err(Error::Back)?;
        if ended > 0 {
            info!("ended {ended} connected UDP sockets whose endpoint left its service");
        }
        Ok(())
    }

    fn sweep_one(&mut self, namespace: &Namespace, wanted: &mut Wanted) -> io::Result<u64> {
        namespace.enter()?;
        let mut diag = Diag::open()?;
        let mut ended = 0;
        for socket in diag.connected()? {
            if !wanted.has(&socket) {
                continue;
            }
            let to = socket.peer.socket_addr();
            match diag.destroy(&socket) {
                Ok(()) => {
                    wanted.peers.remove(&peer_key(&socket));
                    ended += 1;
                }
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    self.unable = true;
                    warn!(
                        "this kernel cannot end sockets (CONFIG_INET_DIAG_DESTROY is off): \
                         connected UDP sockets stay with endpoints that left"
                    );
                    break;
                }
                // Closed or connected anew in between.
                Err(error) => debug!("cannot end a socket connected to {to}: {error}"),
            }
        }
        self.destroyed.inc_by(ended);
        Ok(ended)
    }
}
