//! The harness: nodes, namespaces and whole clusters on one machine, for tests and for the demo.
//! Real programs, real kernel, real kubectl; nothing here knows what is being tested.
//!
//! Whatever is created is written to the record of its [`workdir::Workdir`] first, so that
//! [`down::down`] can remove it also after a crash.

pub mod binaries;
pub mod cgroup;
pub mod cluster;
pub mod down;
pub mod fabric;
pub mod image;
pub mod kubectl;
pub mod machine;
pub mod netns;
pub mod process;
pub mod wait;
pub mod workdir;
