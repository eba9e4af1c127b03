//! `podium-proxy monitor`: decisions of the kernel programs as they are made, a line each.
//!
//! Nothing is told unless somebody listens. A listener leases the programs' attention for two
//! seconds at a time, so that one that was killed costs nothing for long. Decisions that find the
//! ring buffer full are not told; nothing waits for the listener.

mod line;

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use clap::{Args, ValueEnum};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    net::if_::if_indextoname,
};
use podium_proxy_ebpf::{
    Event, Monitor, Outcome, ServiceName,
    maps::{EVENTS, MONITOR, NAMES},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time,
};

use crate::{
    datapath::{self, flows::monotonic_ns, pinned, pins::PinDir},
    model::{ObjectName, PortName},
};
use line::{Known, Line};

/// How long decisions are told after the last word of the listener.
const LEASE: Duration = Duration::from_secs(2);
/// When the lease is renewed.
const RENEW: Duration = Duration::from_secs(1);
/// How often the buffer is emptied: it holds 2,000 decisions.
const LOOK: Duration = Duration::from_millis(10);
/// After so many the lease and signals are looked after.
const SHOWN_AT_ONCE: u32 = 4096;

/// What to show, and how.
#[derive(Clone, Debug, Args)]
pub struct MonitorArgs {
    /// Take one decision in so many, at random.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    one_in: u32,
    /// Show those of one Service only.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_name)]
    service: Option<ObjectName>,
    /// Show those with this outcome only, such as socket-connected or no-endpoints.
    #[arg(long, value_parser = line::parse_outcome)]
    outcome: Option<Outcome>,
    /// How to show them.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// End after so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// A line each.
    #[default]
    Text,
    /// An object each.
    Json,
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("is not NAMESPACE/NAME".to_owned()),
    }
}

/// Why there is nothing to listen to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The maps.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// The ring buffer has one reader.
    #[error("another podium-proxy monitor listens already")]
    Busy,
    /// A system call.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

/// Shows decisions until it is told to end, or has shown enough.
///
/// # Errors
/// If nothing is pinned, somebody else listens, or the output is closed.
pub fn run(pins: &PinDir, args: &MonitorArgs) -> Result<(), Error> {
    let (set, _) = pins.current()?;
    let _only_one = lock(&pins.links())?;
    let names = pinned::hash(&set, NAMES)?;
    let mut events = MapData::from_pin(set.join(EVENTS))
        .and_then(Map::from_map_data)
        .and_then(RingBuf::try_from)
        .map_err(datapath::Error::map("open", EVENTS))?;
    // What an earlier listener left.
    while events.next().is_some() {}
    let mut lease = Lease { monitor: pinned::array(&set, MONITOR)?, one_in: args.one_in };
    lease.renew()?;
    let mut shown = Shown { args, names, clock: Clock::read()?, count: 0 };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))?;
    runtime.block_on(async {
        let mut terminate =
            signal(SignalKind::terminate()).map_err(Error::io("wait for SIGTERM"))?;
        let mut renewed = Instant::now();
        let mut look = time::interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                _ = terminate.recv() => return Ok(()),
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
            if renewed.elapsed() >= RENEW {
                lease.renew()?;
                renewed = Instant::now();
            }
            for _ in 0..SHOWN_AT_ONCE {
                let Some(item) = events.next() else {
                    break;
                };
                match shown.show(&item) {
                    Ok(false) => {}
                    Ok(true) => return Ok(()),
                    // The reader of a pipe has seen enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(error) => return Err(Error::io("write")(error)),
                }
            }
        }
    })
}

fn lock(links: &Path) -> Result<Flock<File>, Error> {
    let folder = File::open(links).map_err(Error::io("open the folder of links"))?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => Error::Busy,
        errno => Error::io("lock the folder of links")(errno.into()),
    })
}

/// The programs' attention; given back when it goes.
struct Lease {
    monitor: Array<MapData, Monitor>,
    one_in: u32,
}

impl Lease {
    fn renew(&mut self) -> Result<(), Error> {
        let now_ns = monotonic_ns().map_err(Error::io("read CLOCK_MONOTONIC"))?;
        let lease_ns = u64::try_from(LEASE.as_nanos()).unwrap_or(0);
        let monitor = Monitor { until_ns: now_ns + lease_ns, one_in: u64::from(self.one_in) };
        (self.monitor.set(0, monitor, 0)).map_err(datapath::Error::map("write", MONITOR))?;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Should it fail, the lease runs out.
        let _ = self.monitor.set(0, Monitor::default(), 0);
    }
}

/// From the clock of the programs to that of people.
#[derive(Clone, Copy)]
struct Clock {
    /// Wall clock when the other stood at zero.
    started_ns: i128,
}

impl Clock {
    fn read() -> Result<Self, Error> {
        let now_ns = monotonic_ns().map_err(Error::io("read CLOCK_MONOTONIC"))?;
        Ok(Self { started_ns: jiff::Timestamp::now().as_nanosecond() - i128::from(now_ns) })
    }

    fn at(self, at_ns: u64) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(self.started_ns + i128::from(at_ns)).unwrap_or_default()
    }
}

struct Shown<'a> {
    args: &'a MonitorArgs,
    names: HashMap<MapData, u32, ServiceName>,
    clock: Clock,
    count: u64,
}

impl Shown<'_> {
    /// Whether that was enough.
    fn show(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let Some(event) = line::read(bytes) else {
            return Ok(false);
        };
        let line = Line::new(&event, self.known(&event));
        let args = self.args;
        if args.outcome.is_some_and(|outcome| outcome as u8 != event.outcome)
            || args.service.as_ref().is_some_and(|service| !line.is_of(service))
        {
            return Ok(false);
        }
        let mut out = io::stdout().lock();
        match args.output {
            Format::Text => writeln!(out, "{line}")?,
            Format::Json => writeln!(out, "{}", serde_json::to_string(&line)?)?,
        }
        out.flush()?;
        self.count += 1;
        Ok(args.count.is_some_and(|count| self.count >= count))
    }

    fn known(&self, event: &Event) -> Known {
        let name = (event.has_service != 0).then(|| self.names.get(&event.service_id, 0).ok());
        Known {
            at: self.clock.at(event.at_ns),
            service: name.flatten().as_ref().and_then(PortName::from_abi),
            device: (event.ifindex != 0)
                .then(|| if_indextoname(event.ifindex).ok())
                .flatten()
                .map(|name| name.to_string_lossy().into_owned()),
        }
    }
}
