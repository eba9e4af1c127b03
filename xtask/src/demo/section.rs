//! A part of the demo's report: what was seen, and what has to hold.

/// A title, lines, and checks.
pub struct Section {
    title: &'static str,
    lines: Vec<String>,
    checks: Vec<(bool, String)>,
}

impl Section {
    /// An empty one.
    pub fn new(title: &'static str) -> Self {
        Self { title, lines: Vec::new(), checks: Vec::new() }
    }

    /// Adds what was seen.
    pub fn line(&mut self, text: impl Into<String>) {
        self.lines.push(text.into());
    }

    /// Adds what has to hold.
    pub fn check(&mut self, holds: bool, what: impl Into<String>) {
        self.checks.push((holds, what.into()));
    }

    /// Whether all that has to hold does.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|(holds, _)| *holds)
    }

    /// Prints it.
    pub fn print(&self) {
        println!("\n── {} ──", self.title);
        for line in &self.lines {
            println!("  {line}");
        }
        for (holds, what) in &self.checks {
            println!("  {} {what}", if *holds { "✓" } else { "✗" });
        }
    }
}
