//! The report for people: a line for each Ingress, and below it what its users should know.

use super::{Finding, IngressReport, Report, State};
use std::fmt::Write;

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Works => "works",
            State::Harmless => "harmless",
            State::Differs => "differs",
            State::Refused => "refused",
        }
    }
}

/// Writes a report.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let name = |ingress: &IngressReport| format!("{}/{}", ingress.namespace, ingress.name);
    let wide = report.ingresses.iter().map(|i| name(i).chars().count()).max().unwrap_or(0).max(7);
    let class = |ingress: &IngressReport| ingress.class.clone().unwrap_or_else(|| "-".into());
    let class_wide =
        report.ingresses.iter().map(|i| class(i).chars().count()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "{:wide$}  {:class_wide$}  STATE", "INGRESS", "CLASS");
    for ingress in &report.ingresses {
        let state = match (ingress.selected, ingress.closed) {
            (false, _) => "not ours".to_string(),
            (true, true) => format!("{}, answers 503", ingress.state.word()),
            // What is harmless is no reason to look.
            (true, false) => ingress.state.max(State::Works).word().replace("harmless", "works"),
        };
        let _ = writeln!(text, "{:wide$}  {:class_wide$}  {state}", name(ingress), class(ingress));
        findings(&mut text, &ingress.findings, ingress.selected);
    }
    if !report.options.is_empty() {
        text.push_str("\nOPTIONS\n");
        findings(&mut text, &report.options, true);
    }
    if !report.others.is_empty() {
        text.push_str("\nOTHER OBJECTS\n");
        findings(&mut text, &report.others, true);
    }
    summary(&mut text, report);
    text
}

fn findings(text: &mut String, all: &[Finding], with_state: bool) {
    for finding in all.iter().filter(|finding| finding.state != State::Works) {
        let state = if with_state { finding.state.word() } else { "" };
        let _ = writeln!(text, "    {state:8}  {}: {}", finding.about, finding.detail);
    }
    let works: Vec<&str> =
        all.iter().filter(|f| f.state == State::Works).map(|f| f.about.as_str()).collect();
    if !works.is_empty() {
        let _ = writeln!(text, "    {:8}  {}", State::Works.word(), works.join(", "));
    }
}

fn summary(text: &mut String, report: &Report) {
    let count = |test: &dyn Fn(&IngressReport) -> bool| {
        report.ingresses.iter().filter(|ingress| test(ingress)).count()
    };
    let ours = count(&|ingress| ingress.selected);
    let refused = count(&|ingress| ingress.selected && ingress.state == State::Refused);
    let differ = count(&|ingress| ingress.selected && ingress.state == State::Differs);
    let _ = writeln!(
        text,
        "\n{ours} Ingresses: {} work, {differ} work with differences, {refused} have something refused; \
         {} of other controllers",
        ours - refused - differ,
        report.ingresses.len() - ours
    );
}
