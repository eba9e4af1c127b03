//! `cargo xtask down`: removes whatever a demo, a test or a benchmark left behind, from their
//! records.

use std::fs;
use std::path::PathBuf;

use podium_tests::down::down;

use crate::build::Project;

/// Work folders of the benchmarks.
pub const BENCH_DIRS: [&str; 2] = ["bench-work", "bench-work-api"];

/// Work folder of the demo.
pub fn demo_dir(project: &Project) -> PathBuf {
    project.target_dir().join("demo")
}

/// Takes everything down; says what there was.
pub fn run(project: &Project) -> anyhow::Result<()> {
    let tests = fs::read_dir(project.binaries().tests_dir()).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = tests.map(|entry| entry.path()).collect();
    dirs.push(demo_dir(project));
    dirs.extend(BENCH_DIRS.map(|name| project.target_dir().join(name)));
    dirs.retain(|dir| dir.is_dir());
    if dirs.is_empty() {
        println!("nothing to take down");
    }
    let mut result = Ok(());
    for dir in dirs {
        println!("taking down {}", dir.display());
        if let Err(error) = down(&dir) {
            result = Err(error);
        }
    }
    result
}
