//! Memory with many routes, each with a host, a service and endpoints of its own, before and after load.

use serde_json::json;

use crate::bench::Bench;
use crate::bench::ingress::contender::{Contender, Kind};
use crate::bench::ingress::ground::Ground;
use crate::bench::ingress::load::{self, Case};
use crate::bench::report::{Figure, Promise, Report};
use crate::bench::stats::{Bar, Rounds};

/// At 5,000 routes.
const PODIUM_MIB_MAX: f64 = 40.0;
const MIB: f64 = 1024.0 * 1024.0;

/// What one contender holds, once for each start.
#[derive(Default)]
pub struct Memory {
    /// Each page counted once.
    idle: Rounds,
    /// All pages mapped in.
    idle_rss: Rounds,
    /// After requests to all routes at random.
    served: Rounds,
}

impl Memory {
    /// Looks at a contender that has just started.
    pub fn take_idle(&mut self, contender: &Contender) -> anyhow::Result<()> {
        self.idle.push(mib(contender, "Pss")?);
        self.idle_rss.push(mib(contender, "Rss")?);
        Ok(())
    }

    /// Looks at it after some load on all routes.
    pub fn take_served(
        &mut self,
        bench: &Bench,
        ground: &Ground,
        contender: &mut Contender,
        time_ms: u32,
    ) -> anyhow::Result<()> {
        contender.empty_log()?;
        let case = Case { tls: false, fresh: false, kib: 1 };
        let args = load::args(contender, case, time_ms, None);
        load::run(bench, ground, contender, &args)?;
        self.served.push(mib(contender, "Pss")?);
        Ok(())
    }
}

/// Figures of all, and the promise where the size is the one that it is about.
pub fn summarise(all: &[(Kind, Memory)], routes: u32, is_promised: bool, report: &mut Report) {
    let what = format!("memory with {routes} routes, each with its service");
    for (kind, memory) in all {
        report.figure(Figure {
            part: "ingress",
            what: what.clone(),
            contender: kind.name().to_owned(),
            unit: "MiB",
            value: memory.idle.clone(),
            ratio: None,
            more: json!({ "rss": memory.idle_rss.to_json() }),
        });
    }
    for (kind, memory) in all {
        report.figure(Figure {
            part: "ingress",
            what: format!("{what}, after load"),
            contender: kind.name().to_owned(),
            unit: "MiB",
            value: memory.served.clone(),
            ratio: None,
            more: json!({}),
        });
    }
    for (_, memory) in all.iter().filter(|(kind, _)| is_promised && *kind == Kind::Podium) {
        report.promise(Promise {
            what: format!("resident memory of podium-ingress with {routes} routes"),
            unit: "MiB",
            found: memory.idle_rss.clone(),
            bar: Bar::AtMost(PODIUM_MIB_MAX),
            spread_max: 0.05,
            steady: false,
        });
    }
    let bars: Vec<(String, f64)> =
        all.iter().map(|(kind, memory)| (kind.name().to_owned(), memory.idle.median())).collect();
    report.plot_bars("ingress-memory", &what, "MiB", &bars);
}

fn mib(contender: &Contender, field: &str) -> anyhow::Result<f64> {
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory fit a double exactly")]
    let bytes = contender.memory_bytes(field)? as f64;
    Ok(bytes / MIB)
}
