//! What a packet costs: each kernel program in each case, by BPF_PROG_TEST_RUN, beside an empty program
//! and one with a single look-up in a hash; and how large the programs are. The measuring itself is a
//! test of the proxy (`proxy/tests/packets/cost.rs`), which has packets, services and maps at hand.

use anyhow::Context;
use serde_json::{Value, json};

use crate::bench::report::{Figure, Promise, Report};
use crate::bench::stats::{Bar, ROUNDS_MIN, Rounds};
use crate::bench::{Bench, Progress};
use crate::build;

/// Established flow by XDP, at most so many times an empty XDP program with one look-up.
const ESTABLISHED_MAX: f64 = 3.0;
/// Rounds that differ by more than this share of their median tell nothing near the bar.
const SPREAD_MAX: f64 = 0.15;

/// Measures, and adds what it found to the report.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut progress = Progress::new("packets", 1);
    let found = costs(bench)?;
    progress.step();
    let cases = found["cases"].as_array().context("read the costs of cases")?;
    let baseline = |kind: &str, name: &str| {
        let of = |case: &&Value| case["kind"] == kind && case["baseline"] == name;
        cases.iter().find(of).map(rounds).with_context(|| format!("find {kind} {name}"))
    };
    let (mut bars, mut promises) = (Vec::new(), Vec::new());
    for (kind, title) in [("xdp", "XDP"), ("tcx", "tcx")] {
        let what = format!("nanoseconds of a packet, {title}");
        let lookup = baseline(kind, "lookup")?;
        let mut figure = |contender: String, value: Rounds, more: Value| {
            let ratio = Some(("empty + one look-up", value.over(&lookup)));
            let what = what.clone();
            report.figure(Figure {
                part: "packets",
                what,
                contender,
                unit: "ns",
                value,
                ratio,
                more,
            });
        };
        figure("empty program".to_owned(), baseline(kind, "empty")?, Value::Null);
        figure("empty program + one look-up".to_owned(), lookup.clone(), Value::Null);
        for case in cases.iter().filter(|case| case["kind"] == kind && case["baseline"].is_null()) {
            let text = |field: &str| case[field].as_str().unwrap_or_default();
            let contender = format!("{}, {}, {}", text("at"), text("case"), text("family"));
            bars.push((contender.clone(), rounds(case).median()));
            figure(contender, rounds(case), Value::Null);
            if kind == "xdp" && text("case").starts_with("established flow") {
                promises.push(Promise {
                    what: format!(
                        "XDP, {}, {}: ÷ (empty + one look-up)",
                        text("case"),
                        text("family")
                    ),
                    unit: "×",
                    found: rounds(case).over(&lookup),
                    bar: Bar::AtMost(ESTABLISHED_MAX),
                    spread_max: SPREAD_MAX,
                    steady: true,
                });
            }
        }
    }
    report.plot_bars("packets", "nanoseconds of a packet", "ns", &bars);
    promises.into_iter().for_each(|promise| report.promise(promise));
    sizes(&found["programs"], report);
    Ok(())
}

/// Runs the measuring test; gives what it wrote.
fn costs(bench: &Bench) -> anyhow::Result<Value> {
    let path = bench.workdir.path().join("costs.json");
    let rounds = if bench.quick { ROUNDS_MIN } else { 2 * ROUNDS_MIN + 1 };
    let args = ["test", "--quiet", "-p", "podium-proxy", "--test", "packets", "--", "--ignored"];
    let mut cargo = bench.project.cargo(&args);
    cargo.args(["--exact", "cost::packet_costs"]);
    cargo.env("PODIUM_COSTS", &path).env("PODIUM_COSTS_ROUNDS", rounds.to_string());
    build::output(&mut cargo).context("measure what packets cost")?;
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("read {}: was the test run?", path.display()))?;
    serde_json::from_str(&text).context("read the costs of packets")
}

fn rounds(case: &Value) -> Rounds {
    let mut rounds = Rounds::default();
    for ns in case["ns"].as_array().into_iter().flatten() {
        rounds.push(ns.as_f64().unwrap_or(f64::NAN));
    }
    rounds
}

/// Instructions and stack, which are the same in every round.
fn sizes(programs: &Value, report: &mut Report) {
    for program in programs.as_array().into_iter().flatten() {
        let mut value = Rounds::default();
        value.push(program["instructions"].as_f64().unwrap_or(f64::NAN));
        report.figure(Figure {
            part: "packets",
            what: "instructions of a program".to_owned(),
            contender: format!(
                "{}: {} B of stack, {} instructions to verify",
                program["name"].as_str().unwrap_or_default(),
                program["stackBytes"],
                program["verified"]
            ),
            unit: "instructions",
            value,
            ratio: None,
            more: json!({ "program": program }),
        });
    }
}
