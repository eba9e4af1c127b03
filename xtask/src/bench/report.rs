//! What a run found: tables for people, JSON for programs, Markdown with plots for both.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::bench::plot::{self, Frame, Line};
use crate::bench::stats::{Bar, Rounds, Verdict};

/// One figure of one contender.
#[derive(Debug)]
pub struct Figure {
    /// The part of the benchmark.
    pub part: &'static str,
    /// What was measured, with its size.
    pub what: String,
    /// Whose figure it is.
    pub contender: String,
    /// Of the figure.
    pub unit: &'static str,
    /// Once for each round.
    pub value: Rounds,
    /// Against whom, and by how much.
    pub ratio: Option<(&'static str, Rounds)>,
    /// Further figures, for the JSON.
    pub more: Value,
}

/// A promise, and what was found.
#[derive(Debug)]
pub struct Promise {
    /// What it is about.
    pub what: String,
    /// Of the figure: `×` for a ratio.
    pub unit: &'static str,
    /// Once for each round.
    pub found: Rounds,
    /// What was promised.
    pub bar: Bar,
    /// A likely range of the median with the bar in it tells nothing if it is wider than this share of it.
    pub spread_max: f64,
    /// Whether it comes out the same on a busy machine: a smoke run fails for no other.
    pub steady: bool,
}

impl Promise {
    fn verdict(&self) -> Verdict {
        self.bar.judge(&self.found, self.spread_max)
    }

    /// Verdict, median, where that is likely to be, bar.
    fn row(&self) -> [String; 4] {
        let (sign, bar) = match self.bar {
            Bar::AtMost(bar) => ("≤", bar),
            Bar::AtLeast(bar) => ("≥", bar),
        };
        let verdict = self.verdict();
        // A figure that says nothing is not shown as if it did.
        let median = match verdict {
            Verdict::CannotTell => "–".to_owned(),
            _ => format!("{} {}", figure(self.found.median()), self.unit),
        };
        let (from, to) = self.found.likely();
        let rounds = format!("{}–{}", figure(from), figure(to));
        [verdict.as_str().to_owned(), median, rounds, format!("{sign} {}", figure(bar))]
    }
}

/// A line of a plot.
#[derive(Debug)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// Positions and heights.
    pub points: Vec<(f64, f64)>,
}

/// A plot with its file name.
#[derive(Debug)]
struct Plot {
    file: String,
    title: String,
    svg: String,
}

/// Everything found.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
    promises: Vec<Promise>,
    plots: Vec<Plot>,
}

impl Report {
    /// Adds a figure.
    pub fn figure(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Adds a promise.
    pub fn promise(&mut self, promise: Promise) {
        self.promises.push(promise);
    }

    /// Adds a plot of bars.
    pub fn plot_bars(&mut self, name: &str, title: &str, unit: &str, bars: &[(String, f64)]) {
        let svg = plot::bars(Frame { title, x: unit, y: "" }, bars);
        self.plots.push(Plot { file: format!("{name}.svg"), title: title.to_owned(), svg });
    }

    /// Adds a plot of lines.
    pub fn plot(&mut self, name: &str, title: &str, x: &str, y: &str, series: Vec<Series>) {
        let lines: Vec<Line> =
            series.into_iter().map(|one| Line { name: one.name, points: one.points }).collect();
        let svg = plot::lines(Frame { title, x, y }, &lines);
        self.plots.push(Plot { file: format!("{name}.svg"), title: title.to_owned(), svg });
    }

    /// Promises that were broken; of a smoke run only the steady ones.
    pub fn broken(&self, quick: bool) -> impl Iterator<Item = &Promise> {
        let counts = move |promise: &&Promise| promise.steady || !quick;
        self.promises.iter().filter(counts).filter(|promise| promise.verdict() == Verdict::Missed)
    }

    /// Prints tables.
    pub fn print(&self) {
        let mut last = "";
        for figure in &self.figures {
            if figure.what != last {
                println!("\n{}", figure.what);
                last = &figure.what;
            }
            println!("  {}", figure.row().join("  "));
        }
        println!();
        for promise in &self.promises {
            let [verdict, median, rounds, bar] = promise.row();
            println!("{verdict:<18} {median:>12} ({rounds}), bar {bar}: {}", promise.what);
        }
    }

    /// Writes `report.json`, `report.md` and the plots into a folder.
    pub fn write(&self, folder: &Path, machine: &Value) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        let text = serde_json::to_string_pretty(&self.to_json(machine)).context("write JSON")?;
        write("report.json", &text)?;
        write("report.md", &self.to_markdown(machine))?;
        for plot in &self.plots {
            write(&plot.file, &plot.svg)?;
        }
        Ok(())
    }

    fn to_json(&self, machine: &Value) -> Value {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                json!({
                    "part": figure.part, "what": figure.what, "contender": figure.contender,
                    "unit": figure.unit, "value": figure.value.to_json(),
                    "ratio": figure.ratio.as_ref().map(|(to, ratio)| json!({
                        "to": to, "found": ratio.to_json(),
                    })),
                    "more": figure.more,
                })
            })
            .collect();
        let promises: Vec<Value> = self
            .promises
            .iter()
            .map(|promise| {
                json!({ "what": promise.what, "unit": promise.unit, "found": promise.found.to_json(),
                        "bar": promise.row()[3], "verdict": promise.verdict().as_str() })
            })
            .collect();
        json!({ "machine": machine, "figures": figures, "promises": promises })
    }

    fn to_markdown(&self, machine: &Value) -> String {
        let mut text = format!("# Benchmarks\n\n`{machine}`\n\n## Bars\n\n");
        text.push_str("| | median | 95 % likely within | bar | |\n|---|---|---|---|---|\n");
        for promise in &self.promises {
            let [verdict, median, rounds, bar] = promise.row();
            let what = &promise.what;
            let _ = writeln!(text, "| {what} | {median} | {rounds} | {bar} | {verdict} |");
        }
        for plot in &self.plots {
            let _ = write!(text, "\n![{}]({})\n", plot.title, plot.file);
        }
        let mut last = "";
        for figure in &self.figures {
            if figure.what != last {
                let _ = write!(
                    text,
                    "\n### {}\n\n| | ratio | median | rounds |\n|---|---|---|---|\n",
                    figure.what
                );
                last = &figure.what;
            }
            let _ = writeln!(text, "| {} |", figure.row().join(" | "));
        }
        text
    }
}

impl Figure {
    /// Contender, ratio, median, ends.
    fn row(&self) -> [String; 4] {
        let ratio = match &self.ratio {
            Some((to, ratio)) => format!("{:>7} × {to}", figure(ratio.median())),
            None => String::new(),
        };
        [
            format!("{:<32}", self.contender),
            ratio,
            format!("{:>10} {}", figure(self.value.median()), self.unit),
            format!("{}–{}", figure(self.value.min()), figure(self.value.max())),
        ]
    }
}

/// Three places that count, and no more than the figure has.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}
