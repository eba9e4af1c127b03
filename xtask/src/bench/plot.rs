//! Plots as SVG text: lines over a logarithmic axis, and bars. Small enough to read in a diff.

use std::fmt::Write;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 216.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
/// Distinguishable without colour vision (Okabe and Ito).
const COLOURS: [&str; 7] =
    ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];

/// One line: its name and its points.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Positions and heights, both positive.
    pub points: Vec<(f64, f64)>,
}

/// What stands around a plot.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below it.
    pub x: &'a str,
    /// Beside it, with the unit.
    pub y: &'a str,
}

/// Lines over two logarithmic axes.
pub fn lines(frame: Frame<'_>, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x = Axis::over(all().map(|(x, _)| x), LEFT, WIDTH - RIGHT);
    let y = Axis::over(all().map(|(_, y)| y), HEIGHT - BOTTOM, TOP);
    let mut svg = open(frame);
    for tick in x.ticks() {
        let at = x.place(tick);
        let _ = writeln!(
            svg,
            r##"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{:.1}" stroke="#ddd"/><text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"##,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0,
            number(tick)
        );
    }
    for tick in y.ticks() {
        let at = y.place(tick);
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" y1="{at:.1}" x2="{:.1}" y2="{at:.1}" stroke="#ddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            number(tick)
        );
    }
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(at, height)| format!("{:.1},{:.1}", x.place(*at), y.place(*height)))
            .collect();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            points.join(" ")
        );
        for point in &points {
            let (cx, cy) = point.split_once(',').unwrap_or_default();
            let _ = writeln!(svg, r#"<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"/>"#);
        }
        legend(&mut svg, number, colour, &line.name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A bar for each name, from zero.
pub fn bars(frame: Frame<'_>, bars: &[(String, f64)]) -> String {
    let most = bars.iter().map(|(_, height)| *height).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = open(frame);
    let top = TOP + 6.0;
    #[expect(clippy::cast_precision_loss, reason = "a plot has a handful of bars")]
    let step = (HEIGHT - BOTTOM - top) / bars.len().max(1) as f64;
    let (left, right) = (LEFT + 130.0, WIDTH - 80.0);
    for (index, (name, height)) in bars.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a plot has a handful of bars")]
        let at = top + step * index as f64;
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text><rect x="{left:.1}" y="{at:.1}" width="{:.1}" height="{:.1}" fill="{}"/><text x="{:.1}" y="{:.1}">{}</text>"#,
            left - 8.0,
            at + step * 0.5 + 4.0,
            escape(name),
            (right - left) * height / most,
            step * 0.7,
            COLOURS[index % COLOURS.len()],
            left + (right - left) * height / most + 6.0,
            at + step * 0.5,
            number(*height)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A logarithmic axis between two places of the picture.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let (low, high) = values
            .filter(|value| value.is_finite() && *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        if high == 0.0 {
            return Axis { low: 0.0, high: 1.0, from, to };
        }
        // Room on both sides, so that a flat line is seen as flat and not as the frame.
        Axis { low: (low * 0.8).log10(), high: (high * 1.25).log10(), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(f64::MIN_POSITIVE).log10() - self.low) / (self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    /// 1, 2 and 5 of each decade; only 1 where there are many decades, more where there is hardly one.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = match self.high - self.low {
            decades if decades > 3.0 => &[1.0],
            decades if decades > 1.2 => &[1.0, 2.0, 5.0],
            _ => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
        };
        #[expect(clippy::cast_possible_truncation, reason = "decades of a plot are few")]
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|tick| (self.low..=self.high).contains(&tick.log10()))
            .collect()
    }
}

fn open(frame: Frame<'_>) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="{LEFT}" y="24" font-size="15">{}</text>
<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>
<text x="16" y="{:.1}" transform="rotate(-90 16 {:.1})" text-anchor="middle">{}</text>
"##,
        escape(frame.title),
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 14.0,
        escape(frame.x),
        HEIGHT / 2.0,
        HEIGHT / 2.0,
        escape(frame.y)
    )
}

fn legend(svg: &mut String, number: usize, colour: &str, name: &str) {
    #[expect(clippy::cast_precision_loss, reason = "a plot has a handful of lines")]
    let at = TOP + 12.0 + 20.0 * number as f64;
    let left = WIDTH - RIGHT + 14.0;
    let _ = writeln!(
        svg,
        r#"<rect x="{left:.1}" y="{:.1}" width="12" height="12" fill="{colour}"/><text x="{:.1}" y="{:.1}">{}</text>"#,
        at - 10.0,
        left + 18.0,
        at,
        escape(name)
    );
}

/// A number as short as it can be read.
fn number(value: f64) -> String {
    match value {
        value if value >= 1_000_000.0 => format!("{}M", short(value / 1_000_000.0)),
        value if value >= 1_000.0 => format!("{}k", short(value / 1_000.0)),
        value => short(value),
    }
}

fn short(value: f64) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame<'_> = Frame { title: "a < b", x: "services", y: "µs" };

    #[test]
    fn lines_stay_within_their_frame() {
        let line = Line { name: "one".to_owned(), points: vec![(1.0, 40.0), (10_000.0, 44.0)] };
        let svg = lines(FRAME, &[line]);
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"), "{svg}");
        for circle in svg.lines().filter(|line| line.starts_with("<circle")) {
            let value = |name: &str| -> f64 {
                let (_, rest) = circle.split_once(&format!("{name}=\"")).unwrap();
                rest.split_once('"').unwrap().0.parse().unwrap()
            };
            assert!((LEFT..=WIDTH - RIGHT).contains(&value("cx")), "{circle}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&value("cy")), "{circle}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(1.0, "1"), (0.5, "0.5"), (1500.0, "1.5k"), (250_011.0, "250k"), (2e6, "2M")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn bars_and_empty_plots_are_pictures() {
        assert!(bars(FRAME, &[("a".to_owned(), 3.0), ("b".to_owned(), 1.0)]).contains("<rect"));
        assert!(lines(FRAME, &[]).ends_with("</svg>\n"));
    }
}
