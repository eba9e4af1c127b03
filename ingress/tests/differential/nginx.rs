//! Debian's nginx with a configuration of its own, in one process that ends with the test.

use crate::configuration::{self, Places};
use crate::description::World;
use crate::harness::{own_address, wait_until};
use crate::locations;
use crate::recorder::Recorder;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub struct Nginx {
    pub address: SocketAddr,
    process: Child,
    folder: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Nginx {
    pub fn start(world: &World, recorder: &Recorder) -> Nginx {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::new(own_address(), 8080);
        let places =
            Places { folder: folder.path(), listen: address, endpoints: &recorder.addresses };
        let text = configuration::write(&locations::servers(world), &places);
        std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
        std::fs::write(folder.path().join("proxy.conf"), configuration::PROXY).unwrap();
        let mut process = run(folder.path());
        wait_until("nginx listens", || {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("nginx ended with {status}:\n{}", texts(folder.path()));
            }
            TcpStream::connect(address).is_ok()
        });
        Nginx { address, process, folder }
    }

    /// What it was told, for reports of differences.
    pub fn configuration(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("nginx.conf")).unwrap()
    }
}

fn run(folder: &Path) -> Child {
    Command::new("nginx")
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-e")
        .arg(folder.join("error.log"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx is needed: cargo xtask setup")
}

fn texts(folder: &Path) -> String {
    let read = |name| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    format!("{}\n{}", read("error.log"), read("nginx.conf"))
}
