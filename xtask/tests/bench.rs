//! The benchmarks work, and what they promise whatever the machine does holds: a smoke run of all parts.

use std::process::Command;

#[test]
fn bench_quick_keeps_its_steady_promises() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["bench", "all", "--quick"])
        .output()
        .expect("run the benchmarks");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
}
