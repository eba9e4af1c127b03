//! UDP that follows: connected UDP sockets whose endpoint is gone are ended, so that their programs
//! connect again and reach another one.
//!
//! Datagrams of unconnected sockets get an endpoint each, TCP connections end with their endpoint;
//! a connected UDP socket knows neither, and would send to nobody for ever. After each pass the
//! reconciler tells what left ([`departed`]); a thread of its own looks for the sockets (`sweep`)
//! in every network namespace of the node (`namespaces`) and ends them (`diag`). Their next call
//! fails with ECONNABORTED.

pub mod departed;
mod diag;
mod namespaces;
mod sweep;

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, sync::mpsc, thread};

use podium_proxy_ebpf::Protocol;
use prometheus::IntCounter;

use crate::{
    datapath::{Datapath as _, Error, kernel::KernelDatapath, pins::PinDir},
    model::{PortName, ServicePort},
    plan::held::Held,
};
use departed::Departed;

/// The UDP service ports the kernel was last seen to hold.
type Known = BTreeMap<PortName, Arc<ServicePort>>;

/// Notes what leaves, and hands it to the thread that ends sockets.
#[derive(Debug)]
pub struct Follower {
    /// `None` before the first pass, where no agent was before.
    known: Option<Known>,
    jobs: mpsc::Sender<Departed>,
    /// Sockets ended so far.
    pub destroyed: IntCounter,
}

impl Follower {
    /// Starts the thread. It works for the programs pinned in `pins` and attached to `cgroup`.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(pins: PinDir, cgroup: PathBuf) -> io::Result<Self> {
        let destroyed = sweep::counter().map_err(io::Error::other)?;
        // The set in use may not be the one that this agent goes over to, which holds nothing yet.
        let known = left_by_earlier_agent(&pins).ok();
        let (jobs, queue) = mpsc::channel();
        let sweeper = sweep::Sweeper::new(pins, cgroup, destroyed.clone());
        // Not a task: setns(2) moves a thread, and the runtime's threads are shared.
        thread::Builder::new().name("sockets".to_owned()).spawn(move || sweeper.run(&queue))?;
        Ok(Self { known, jobs, destroyed })
    }

    /// What the kernel holds before the first pass: left by an earlier agent, whose sockets live
    /// on.
    pub fn begin(&mut self, held: &Held) {
        if self.known.is_none() {
            self.known = Some(datagram_ports(held));
        }
    }

    /// What the kernel holds after a pass.
    pub fn passed(&mut self, held: &Held) {
        let new = datagram_ports(held);
        let old = self.known.replace(new).unwrap_or_default();
        let new = self.known.as_ref().unwrap_or(&old);
        let departed = departed::between(&old, new);
        if !departed.is_empty() {
            // The thread ends only with this sender.
            let _ = self.jobs.send(departed);
        }
    }
}

fn left_by_earlier_agent(pins: &PinDir) -> Result<Known, Error> {
    let datapath = KernelDatapath::open_current(pins)?;
    Ok(datagram_ports(&Held::rebuild(&datapath.snapshot()?, datapath.limits())))
}

fn datagram_ports(held: &Held) -> Known {
    (held.ports.iter())
        .filter(|(name, _)| name.protocol == Protocol::Udp)
        .map(|(name, port)| (name.clone(), Arc::clone(&port.content)))
        .collect()
}
