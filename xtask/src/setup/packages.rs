//! Packages of the distribution: what is missing is looked for by its files, and installed with apt
//! without starting any service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::Unusable;
use crate::build;

/// Packages, and a program or a file that shows that one is there.
const PACKAGES: &[(&str, &str)] = &[
    ("gcc", "cc"),
    ("g++", "c++"),
    ("libc6-dev", "/usr/include/stdio.h"),
    ("make", "make"),
    ("cmake", "cmake"),
    ("protobuf-compiler", "protoc"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iproute2", "ip"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("util-linux", "nsenter"),
    // The tests of the ingress controller compare it with nginx and load it with h2load.
    ("nginx-light", "nginx"),
    ("libnginx-mod-http-headers-more-filter", HEADERS_MORE),
    ("nghttp2-client", "h2load"),
    // The benchmarks compare with both, and make virtual devices behave like real ones.
    ("iptables", "iptables-restore"),
    ("nftables", "nft"),
    ("ethtool", "ethtool"),
];

/// The module of nginx that ingress-nginx sets response headers with.
const HEADERS_MORE: &str = "/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so";

/// Tells maintainer scripts whether to start services (Debian Policy 9.3.3, invoke-rc.d).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whom benchmarks measure against.
const PEERS: &[(&str, &str)] = &[("nginx-light", "nginx"), ("haproxy", "haproxy")];

/// Installs what is missing.
pub fn ensure() -> anyhow::Result<()> {
    ensure_all(PACKAGES)
}

/// Installs what is missing of what benchmarks measure against.
pub fn ensure_peers() -> anyhow::Result<()> {
    ensure_all(PEERS)
}

fn ensure_all(packages: &[(&'static str, &'static str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|(_, sign)| !is_there(sign)).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_there("apt-get") {
        return Err(Unusable(format!(
            "the package manager is not apt: install {list} yourself (CNI plugins in \
             /usr/lib/cni), then run this again"
        ))
        .into());
    }
    eprintln!("==> installing with apt: {list}");
    apt_get(&["update", "--quiet"])?;
    let policy = NoServices::set()?;
    let mut args = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
    args.extend(&missing);
    let installed = apt_get(&args);
    policy.restore()?;
    installed
}

fn is_there(sign: &str) -> bool {
    if sign.starts_with('/') {
        return Path::new(sign).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Programs for root may not be on the path of who asks.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(sign).is_file())
}

fn apt_get(args: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    // A configuration file the machine's owner changed stays, and nothing asks.
    command.args(["-o", "Dpkg::Options::=--force-confold"]).args(args);
    build::run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Keeps packages from starting their services: nodes run a containerd of their own. A policy the
/// machine has already is left to decide.
struct NoServices {
    made: Option<PathBuf>,
}

impl NoServices {
    fn set() -> anyhow::Result<Self> {
        let path = PathBuf::from(POLICY);
        if path.exists() {
            return Ok(Self { made: None });
        }
        fs::write(&path, "#!/bin/sh\nexit 101\n").with_context(|| format!("write {POLICY}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {POLICY} executable"))?;
        Ok(Self { made: Some(path) })
    }

    fn restore(self) -> anyhow::Result<()> {
        match &self.made {
            Some(path) => fs::remove_file(path).with_context(|| format!("remove {POLICY}")),
            None => Ok(()),
        }
    }
}
