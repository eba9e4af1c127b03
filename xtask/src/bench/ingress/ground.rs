//! What contenders stand on: a network namespace with nothing but loopback, the server that is every
//! endpoint, a certificate, and which processor is whose.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use podium_tests::netns::Netns;
use podium_tests::process::{Launch, Process};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::bench::ingress::routes::{ENDPOINT_PORT, NAMESPACE};
use crate::build;

/// The ground.
pub struct Ground {
    /// Everybody's namespace.
    pub netns: Netns,
    /// The contenders' processor.
    pub contender_cpu: usize,
    /// Certificate and key, as PEM in one file.
    pub certificate: PathBuf,
    /// The same as a Secret.
    pub secret: Value,
    /// The processor of clients.
    pub client_cpu: usize,
    _server: Process,
}

impl Ground {
    /// Makes all of it.
    pub fn create(bench: &Bench) -> anyhow::Result<Ground> {
        let netns = Netns::create(&bench.workdir, "ingress")?;
        netns
            .run(|| {
                // A client with a connection for each request needs many ports.
                fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000")?;
                fs::write("/proc/sys/net/core/somaxconn", "4096")
            })?
            .context("set up the network namespace")?;
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cpu = |wanted: usize| wanted.min(cpus - 1);
        let (certificate, secret) = certify(bench.workdir.path())?;
        let server = pinned("endpoints", &bench.binaries.find("loadgen")?, cpu(2))
            .args(["http-serve", "--listen", &format!("0.0.0.0:{ENDPOINT_PORT}")])
            .inside(Some(netns.name()), None)?
            .spawn(&bench.workdir)?;
        Ok(Ground {
            netns,
            contender_cpu: cpu(0),
            certificate,
            secret,
            client_cpu: cpu(1),
            _server: server,
        })
    }

    /// A program that runs on one processor only.
    #[expect(clippy::unused_self, reason = "who has no ground starts nothing")]
    pub fn pinned(&self, name: &str, program: &Path, cpu: usize) -> Launch {
        pinned(name, program, cpu)
    }

    /// The load generator, ready to run.
    pub fn client(&self, bench: &Bench, args: &[String]) -> anyhow::Result<Launch> {
        let client = pinned("loadgen", &bench.binaries.find("loadgen")?, self.client_cpu);
        client.args(["http"]).args(args).inside(Some(self.netns.name()), None)
    }

    /// Runs the load generator; gives what it saw.
    pub fn generate(&self, bench: &Bench, args: &[String]) -> anyhow::Result<Value> {
        let text = self.client(bench, args)?.output()?;
        let seen: Value = serde_json::from_str(&text).context("read what the client saw")?;
        Self::check(&seen, args)?;
        Ok(seen)
    }

    /// Runs work on a thread in the namespace, on the clients' processor.
    pub fn on_client<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let cpu = self.client_cpu;
        self.netns.run(|| {
            let mut cpus = nix::sched::CpuSet::new();
            cpus.set(cpu).context("choose a processor")?;
            // Zero is the calling thread.
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus)
                .context("keep to a processor")?;
            work()
        })?
    }

    fn check(seen: &Value, args: &[String]) -> anyhow::Result<()> {
        ensure!(
            seen["failed"] == 0,
            "{}: {} of {} requests failed, the last one: {}",
            args.join(" "),
            seen["failed"],
            seen["asked"],
            seen["lastFailure"]
        );
        Ok(())
    }
}

fn pinned(name: &str, program: &Path, cpu: usize) -> Launch {
    Launch::new(name, "taskset".as_ref()).args(["-c", &cpu.to_string()]).args([program])
}

/// A certificate for all hosts, as a file and as a Secret.
fn certify(folder: &Path) -> anyhow::Result<(PathBuf, Value)> {
    let [certificate, key, both] = ["tls.crt", "tls.key", "tls.pem"].map(|name| folder.join(name));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-noenc", "-days", "30", "-subj", "/CN=bench.example"]);
    openssl.args(["-addext", "subjectAltName=DNS:*.bench.example"]);
    openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    build::output(&mut openssl)?;
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    fs::write(&both, read(&certificate)? + &read(&key)?)
        .with_context(|| format!("write {}", both.display()))?;
    let base64 =
        |path: &Path| build::output(Command::new("base64").args(["--wrap", "0"]).arg(path));
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "tls", "namespace": NAMESPACE, "uid": "secret-tls" },
        "data": { "tls.crt": base64(&certificate)?, "tls.key": base64(&key)? },
    });
    Ok((both, secret))
}
