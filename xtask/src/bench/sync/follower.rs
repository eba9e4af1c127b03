//! The outside view: a client in a pod's cgroup that connects to a service over and over, and when it
//! was answered by whom.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use podium_tests::cgroup::Cgroup;
use podium_tests::cluster::Cluster;
use podium_tests::process::{Launch, Process};

const LIMIT: Duration = Duration::from_secs(120);

/// The client; ended when dropped.
pub struct Follower {
    process: Process,
    /// What of the log is of the clients before.
    skip: usize,
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Follower {
    /// Starts to connect to an address.
    pub fn start(cluster: &Cluster, cgroup: &Cgroup, target: &str) -> anyhow::Result<Follower> {
        let netns = cluster.control.netns.name();
        let log = cluster.workdir().log("reach-follow");
        let skip = std::fs::metadata(&log).map_or(0, |log| usize::try_from(log.len()).unwrap_or(0));
        let process = Launch::new("reach-follow", &cluster.binaries().find("reach")?)
            .args(["follow", "--to", target])
            .inside(Some(netns), Some(cgroup))?
            .spawn(cluster.workdir())?;
        Ok(Follower { process, skip })
    }

    /// Waits for the first answer by this port after a moment, and gives when it came, in seconds
    /// since 1970.
    pub fn wait(&mut self, port: u16, after: f64) -> anyhow::Result<f64> {
        let started = Instant::now();
        loop {
            let log = self.process.log();
            let lines = log.get(self.skip..).unwrap_or("").lines();
            let mut seen = lines.filter_map(|line| {
                let (at_ns, shown) = line.split_once(' ')?;
                let at = at_ns.parse::<f64>().ok()? / 1e9;
                (shown.parse() == Ok(port) && at > after).then_some(at)
            });
            if let Some(at) = seen.next() {
                return Ok(at);
            }
            self.process.check_alive()?;
            let waited = started.elapsed();
            ensure!(waited < LIMIT, "no answer by port {port}: {}", self.process.log_tail());
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The endpoints: a server at every address of their block.
pub fn serve(cluster: &Cluster, block: &str, ports: &[u16]) -> anyhow::Result<Process> {
    let netns = &cluster.control.netns;
    netns.ip(&["route", "add", "local", block, "dev", "lo"])?;
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    Launch::new("reach-serve", &cluster.binaries().find("reach")?)
        .args(["serve", "--ports", &ports.join(",")])
        .inside(Some(netns.name()), None)?
        .spawn(cluster.workdir())
        .context("start the server of all endpoints")
}
