//! One of those who proxy: started with the routes on a processor of its own, in a cgroup of its own that
//! tells what it used.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use podium_tests::cgroup::Cgroup;
use podium_tests::process::Process;
use podium_tests::wait::wait_until;
use podium_tests::workdir::Workdir;
use serde_json::json;

use crate::bench::Bench;
use crate::bench::ingress::asking::Asker;
use crate::bench::ingress::cluster::Cluster;
use crate::bench::ingress::ground::Ground;
use crate::bench::ingress::routes::{Place, Routes};

const READY_LIMIT: Duration = Duration::from_secs(120);

/// Who proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `podium-ingress` with default flags.
    Podium,
    /// nginx that collects its log for as long as Podium does.
    Nginx,
    /// nginx that writes each line of its log by itself, as it does unless told otherwise.
    NginxByLine,
    /// haproxy.
    Haproxy,
}

impl Kind {
    /// In the order in which they take turns.
    pub const ALL: [Kind; 4] = [Kind::Podium, Kind::Nginx, Kind::NginxByLine, Kind::Haproxy];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Podium => "podium",
            Kind::Nginx => "nginx",
            Kind::NginxByLine => "nginx, log by line",
            Kind::Haproxy => "haproxy",
        }
    }

    /// For names of files.
    fn role(self) -> &'static str {
        match self {
            Kind::Podium => "podium",
            Kind::Nginx => "nginx",
            Kind::NginxByLine => "nginx-by-line",
            Kind::Haproxy => "haproxy",
        }
    }
}

/// Where Podium's objects come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A folder, as files.
    Folder,
    /// An API.
    Cluster(&'a Cluster),
}

/// One that runs.
pub struct Contender {
    /// Which.
    pub kind: Kind,
    /// What it serves.
    pub routes: Routes,
    address: Ipv4Addr,
    process: Process,
    cgroup: Cgroup,
    folder: PathBuf,
    log: PathBuf,
}

impl Contender {
    /// Starts one with these routes and waits until it serves them.
    pub fn start(
        bench: &Bench,
        ground: &Ground,
        kind: Kind,
        routes: Routes,
        source: Source<'_>,
    ) -> anyhow::Result<Contender> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 16, 0, 0)) + number);
        let role = &*format!("{}-{}-{number}", kind.role(), routes.count());
        let folder = bench.workdir.path().join(role);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let cgroup = Cgroup::create(&bench.workdir, role)?;
        let certificate = &ground.certificate;
        let place = Place { address, folder: &folder, certificate };
        let (program, args) = prepare(bench, ground, kind, place, routes, source)?;
        let launch = ground.pinned(role, &program, ground.contender_cpu).args(args);
        let process = launch.inside(Some(ground.netns.name()), Some(&cgroup))?;
        let process = process.spawn(&bench.workdir)?;
        let log = match kind {
            Kind::Nginx | Kind::NginxByLine => folder.join("access.log"),
            Kind::Podium | Kind::Haproxy => bench.workdir.log(role),
        };
        let mut contender = Contender { kind, routes, address, process, cgroup, folder, log };
        contender.wait_ready(ground)?;
        Ok(contender)
    }

    fn wait_ready(&mut self, ground: &Ground) -> anyhow::Result<()> {
        let routes = self.routes;
        let last = routes.hosts - 1;
        let host = format!("h{last}.bench.example");
        let what = format!("{} serves {} routes", self.kind.name(), routes.count());
        let (http, process) = (self.http(), &mut self.process);
        ground.netns.run(|| {
            wait_until(&what, READY_LIMIT, || {
                if let Err(error) = process.check_alive() {
                    return Ok(Err(error));
                }
                let mut asker = Asker::new(http);
                match asker.ask(&host, "/p0/1") {
                    Ok(answer) if answer.status == 200 => Ok(Ok(())),
                    Ok(answer) => Err(format!("it answers {}", answer.status)),
                    Err(error) => Err(error.to_string()),
                }
            })
        })??
    }

    /// Where it serves HTTP.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), 80)
    }

    /// Where it serves HTTPS.
    pub fn https(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), 443)
    }

    /// Of `podium-ingress`: where its metrics are.
    pub fn status(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), 10254)
    }

    /// Its folder; of `podium-ingress` the one of its manifests.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Processor time of all its processes so far, in microseconds.
    pub fn cpu_us(&self) -> anyhow::Result<u64> {
        let path = self.cgroup.dir().join("cpu.stat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        used.with_context(|| format!("no usage_usec in {}", path.display()))
    }

    /// Memory of all its processes in bytes, by a field of `smaps_rollup`.
    pub fn memory_bytes(&self, field: &str) -> anyhow::Result<u64> {
        let path = self.cgroup.dir().join("cgroup.procs");
        let pids = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut bytes = 0;
        for pid in pids.lines() {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            bytes += kib.with_context(|| format!("no {field} in {path}"))? * 1024;
        }
        Ok(bytes)
    }

    /// Sends its first process a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
        let sent = nix::sys::signal::kill(self.process.pid(), signal);
        sent.with_context(|| format!("signal {}", self.kind.name()))
    }

    /// Fails unless it still runs and has logged this many requests since the last call.
    pub fn check_log(&mut self, requests: u64) -> anyhow::Result<()> {
        self.process.check_alive()?;
        // Lines are collected for a moment.
        std::thread::sleep(Duration::from_millis(20));
        let what = format!("{} has logged {requests} requests", self.kind.name());
        let log = &self.log;
        wait_until(&what, Duration::from_secs(5), || {
            let bytes = fs::read(log).map_err(|error| error.to_string())?;
            #[expect(clippy::naive_bytecount, reason = "once a run")]
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            if lines >= requests { Ok(()) } else { Err(format!("{lines} lines")) }
        })?;
        self.empty_log()
    }

    /// Forgets what it has logged.
    pub fn empty_log(&self) -> anyhow::Result<()> {
        let file = fs::File::options().write(true).open(&self.log);
        let emptied = file.and_then(|file| file.set_len(0));
        emptied.with_context(|| format!("empty {}", self.log.display()))
    }
}

/// Writes the configuration; gives program and arguments.
fn prepare(
    bench: &Bench,
    ground: &Ground,
    kind: Kind,
    place: Place<'_>,
    routes: Routes,
    source: Source<'_>,
) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let write = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = place.folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.display().to_string())
    };
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
    match kind {
        Kind::Podium => {
            let (flag, value) = match source {
                Source::Folder => {
                    let objects = routes.objects(&ground.secret);
                    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
                    write("routes.json", &list.to_string())?;
                    ("--manifests", place.folder.display().to_string())
                }
                Source::Cluster(cluster) => {
                    ("--kubeconfig", write("kubeconfig", &cluster.kubeconfig())?)
                }
            };
            let at = |port: u16| format!("{}:{port}", place.address);
            let args = [
                "run",
                flag,
                &value,
                "--http-bind-address",
                &at(80),
                "--https-bind-address",
                &at(443),
                "--status-bind-address",
                &at(10254),
            ];
            Ok((bench.binaries.find("podium-ingress")?, words(&args)))
        }
        Kind::Nginx | Kind::NginxByLine => {
            let log = if kind == Kind::Nginx { " buffer=1m flush=10ms" } else { "" };
            let path = write("nginx.conf", &routes.nginx(place, log))?;
            Ok(("nginx".into(), words(&["-c", &path])))
        }
        Kind::Haproxy => {
            let (text, map) = routes.haproxy(place);
            write("routes.map", &map)?;
            let path = write("haproxy.cfg", &text)?;
            Ok(("haproxy".into(), words(&["-db", "-f", &path])))
        }
    }
}

/// Keeps logs from being written where there is no room for them.
pub fn check_room(workdir: &Workdir) -> anyhow::Result<()> {
    let stat = nix::sys::statvfs::statvfs(workdir.path());
    let stat = stat.with_context(|| format!("look at {}", workdir.path().display()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    ensure!(free > 1 << 30, "{}: less than 1 GiB free for logs", workdir.path().display());
    Ok(())
}
