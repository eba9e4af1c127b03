//! A network namespace for one test, with a folder for pins and programs of one instruction.
//! Everything goes with the value.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use podium_proxy::{
    datapath::links::{DeviceHook, DeviceLink, attach_device, attached_devices},
    devices::{self, DeviceOptions, Devices, Handle, Programs},
};

/// Long enough for a busy machine; a test that needs it all has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// `BPF_PROG_TYPE_SCHED_CLS`, `BPF_PROG_TYPE_XDP`, `TC_ACT_UNSPEC`, `XDP_PASS`.
const CLASSIFIER: u32 = 3;
const XDP: u32 = 6;
const UNSPEC: i32 = -1;
const PASS: i32 = 2;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    devices: DeviceOptions,
}

pub struct Namespace {
    pins: PathBuf,
    pub host_changes: Arc<AtomicUsize>,
}

impl Namespace {
    /// Moves the calling thread, and what it starts, into a new network namespace.
    pub fn new(test: &str) -> Self {
        assert!(geteuid().is_root(), "kernel tests need root; skip them by name: --skip kernel_");
        unshare(CloneFlags::CLONE_NEWNET).expect("cannot make a network namespace");
        let name = format!("podium_devices_{test}_{}", std::process::id());
        let pins = Path::new("/sys/fs/bpf").join(name);
        fs::create_dir_all(pins.join("links")).expect("no bpffs");
        ip("link set lo up");
        Self { pins, host_changes: Arc::default() }
    }

    pub fn pins(&self) -> &Path {
        &self.pins
    }

    pub fn links(&self) -> PathBuf {
        self.pins.join("links")
    }

    pub fn try_start(&self, flags: &str) -> Result<Handle, devices::Error> {
        let arguments = ["test"].into_iter().chain(flags.split_whitespace());
        let devices = Devices {
            options: Flags::parse_from(arguments).devices,
            links: self.links(),
            programs: programs(),
            node_ips: BTreeSet::new(),
        };
        let changes = Arc::clone(&self.host_changes);
        devices.start(move || {
            changes.fetch_add(1, Ordering::SeqCst);
        })
    }

    pub fn start(&self, flags: &str) -> Handle {
        self.try_start(flags).unwrap()
    }

    pub fn attached(&self) -> Vec<DeviceLink> {
        attached_devices(&self.links()).unwrap()
    }

    pub fn link(&self, hook: DeviceHook, device: &str) -> Option<DeviceLink> {
        let ifindex = index(device);
        self.attached().into_iter().find(|link| (link.hook, link.ifindex) == (hook, ifindex))
    }

    /// The name of the program at a hook, and where it is none yet, nothing.
    pub fn program(&self, hook: DeviceHook, device: &str) -> String {
        let Some(link) = self.link(hook, device) else { return String::new() };
        (aya::programs::loaded_programs().flatten())
            .find(|program| program.id() == link.program_id)
            .and_then(|program| program.name_as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// Whether the kernel still has some of these links, wherever they are.
    pub fn any_left(links: &[DeviceLink]) -> bool {
        (aya::programs::loaded_links().flatten())
            .any(|one| links.iter().any(|link| link.link_id == one.id()))
    }

    /// `device:hook …` of everything attached, devices by name.
    pub fn shown(&self) -> String {
        let names: Vec<_> = (self.attached().iter())
            .filter(|link| link.attached)
            .map(|link| format!("{}:{}", name(link.ifindex), link.hook.name()))
            .collect();
        names.join(" ")
    }

    /// A program that is not ours.
    pub fn foreign(&self, name: &str) -> Foreign {
        let links = self.pins.join(name);
        fs::create_dir(&links).unwrap();
        Foreign { program: program(name, CLASSIFIER, UNSPEC), links }
    }
}

pub struct Foreign {
    program: OwnedFd,
    links: PathBuf,
}

impl Foreign {
    pub fn attach(&self, device: &str) {
        for hook in [DeviceHook::TcxIngress, DeviceHook::TcxEgress] {
            attach_device(hook, self.program.as_fd(), index(device), &self.links).unwrap();
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// Runs `ip …`.
pub fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// Runs a command; its output.
pub fn run(command: &str, arguments: &str) -> String {
    let output = Command::new(command).args(arguments.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("kernel tests need {command}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {arguments}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn index(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap()
}

fn name(ifindex: u32) -> String {
    let name = nix::net::if_::if_indextoname(ifindex);
    name.map_or_else(|_| "gone".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A process in a network namespace of its own, which goes with it.
pub struct Elsewhere(std::process::Child);

impl Elsewhere {
    pub fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kernel tests need unshare");
        let mut ready = [0];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something to become true; how long that took.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_micros(200));
    }
    started.elapsed()
}

/// A program for each place; every one lets every packet pass.
fn programs() -> Programs {
    Programs {
        uplink_ingress: program("uplink_ingress", CLASSIFIER, UNSPEC),
        pod_ingress: program("pod_ingress", CLASSIFIER, UNSPEC),
        egress: program("egress", CLASSIFIER, UNSPEC),
        xdp: program("uplink_xdp", XDP, PASS),
    }
}

/// `r0 = answer; exit`.
fn program(name: &str, kind: u32, answer: i32) -> OwnedFd {
    /// The head of the attributes of `BPF_PROG_LOAD`.
    #[repr(C)]
    struct Attr {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    const BPF_PROG_LOAD: libc::c_long = 5;
    let [a, b, c, d] = answer.to_ne_bytes();
    let code: [u8; 16] = [0xb7, 0, 0, 0, a, b, c, d, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut short_name = [0; 16];
    short_name[..name.len()].copy_from_slice(name.as_bytes());
    let attr = Attr {
        kind,
        instruction_count: 2,
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: short_name,
    };
    // SAFETY: `attr` is the beginning of a `union bpf_attr` for this command; what it points to
    // outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Attr>()) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel just made this descriptor for us alone.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}
