//! One of those who proxy: started with the routes on a processor of its own, in a cgroup of its own that
//! tells what it used.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use podium_tests::cgroup::Cgroup;
use podium_tests::process::{Launch, Process};
use podium_tests::wait::wait_until;
use podium_tests::workdir::Workdir;

use crate::bench::Bench;
use crate::bench::ingress::asking::Asker;
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
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Podium => "podium",
            Kind::Nginx => "nginx",
            Kind::NginxByLine => "nginx, log by line",
            Kind::Haproxy => "haproxy",
        }
    }

    fn role(self) -> &'static str {
        match self {
            Kind::Podium => "podium",
            Kind::Nginx => "nginx",
            Kind::NginxByLine => "nginx-by-line",
            Kind::Haproxy => "haproxy",
        }
    }

    fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 16, 0, 1 + self as u8)
    }
}

/// One that runs.
pub struct Contender {
    /// Which.
    pub kind: Kind,
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
    ) -> anyhow::Result<Contender> {
        let role = kind.role();
        let folder = bench.workdir.path().join(role);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let cgroup = Cgroup::create(&bench.workdir, role)?;
        let certificate = &ground.certificate;
        let place = Place { address: kind.address(), folder: &folder, certificate };
        let (program, args) = prepare(bench, ground, kind, place, routes)?;
        let launch = ground.pinned(role, &program, ground.contender_cpu).args(args);
        let process = launch.inside(Some(ground.netns.name()), Some(&cgroup))?;
        let process = process.spawn(&bench.workdir)?;
        let log = match kind {
            Kind::Nginx | Kind::NginxByLine => folder.join("access.log"),
            Kind::Podium | Kind::Haproxy => bench.workdir.log(role),
        };
        let mut contender = Contender { kind, process, cgroup, folder, log };
        contender.wait_ready(ground, routes)?;
        Ok(contender)
    }

    fn wait_ready(&mut self, ground: &Ground, routes: Routes) -> anyhow::Result<()> {
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
        SocketAddr::new(self.kind.address().into(), 80)
    }

    /// Where it serves HTTPS.
    pub fn https(&self) -> SocketAddr {
        SocketAddr::new(self.kind.address().into(), 443)
    }

    /// Of `podium-ingress`: where its metrics are.
    pub fn status(&self) -> SocketAddr {
        SocketAddr::new(self.kind.address().into(), 10254)
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

    /// Memory of all its processes, each page counted once, in bytes.
    pub fn memory_bytes(&self) -> anyhow::Result<u64> {
        let path = self.cgroup.dir().join("cgroup.procs");
        let pids = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut bytes = 0;
        for pid in pids.lines() {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = pss.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            bytes += kib.with_context(|| format!("no Pss in {path}"))? * 1024;
        }
        Ok(bytes)
    }

    /// Fails unless it still runs and has logged this many requests since the last call.
    pub fn check_log(&mut self, requests: u64) -> anyhow::Result<()> {
        self.process.check_alive()?;
        let what = format!("{} has logged {requests} requests", self.kind.name());
        let log = &self.log;
        wait_until(&what, Duration::from_secs(5), || {
            let bytes = fs::read(log).map_err(|error| error.to_string())?;
            #[expect(clippy::naive_bytecount, reason = "once a run")]
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            if lines >= requests { Ok(()) } else { Err(format!("{lines} lines")) }
        })?;
        let file = fs::File::options().write(true).open(log);
        let emptied = file.and_then(|file| file.set_len(0));
        emptied.with_context(|| format!("empty {}", log.display()))
    }
}

/// Writes the configuration; gives program and arguments.
fn prepare(
    bench: &Bench,
    ground: &Ground,
    kind: Kind,
    place: Place<'_>,
    routes: Routes,
) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let write = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = place.folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.display().to_string())
    };
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
    match kind {
        Kind::Podium => {
            let (certificate, key) = (&ground.certificate_base64, &ground.key_base64);
            write("routes.yaml", &routes.manifests(certificate, key))?;
            let folder = place.folder.display().to_string();
            let at = |port: u16| format!("{}:{port}", place.address);
            let args = [
                "run",
                "--manifests",
                &folder,
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
