//! The programs on network devices, each by itself for programs and a device a word for people.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::devices::{OnDevice, Skipped};

/// Devices that people are shown; the rest is a number.
const SHOWN_MAX: usize = 8;

/// One program on one device.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// Name of the device; its index where that is gone.
    pub device: String,
    /// `tcx_ingress`, `clsact_egress`, `xdp_native` …
    pub hook: &'static str,
    /// Name of the program.
    pub program: String,
    /// Its id, for bpftool.
    pub program_id: u32,
    /// Whether the device still exists, and nobody took the program off it.
    pub attached: bool,
}

impl From<OnDevice> for DeviceStatus {
    fn from(from: OnDevice) -> Self {
        let OnDevice { device, hook, program, program_id, attached } = from;
        Self { device, hook, program, program_id, attached }
    }
}

/// A device that can get no program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedDevice {
    /// Its name.
    pub device: String,
    /// Why.
    pub reason: &'static str,
    /// Whether traffic of services is likely to pass there, unseen.
    pub matters: bool,
}

impl From<(String, Skipped)> for SkippedDevice {
    fn from((device, Skipped { reason, matters }): (String, Skipped)) -> Self {
        Self { device, reason, matters }
    }
}

impl fmt::Display for SkippedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, reason, matters } = self;
        let effect = if *matters { ": what passes there is not translated" } else { "" };
        write!(f, "device {device}: {reason}{effect}")
    }
}

/// All devices in one line: what they lead to, how the programs are attached, and what is off.
pub(super) fn write_line(f: &mut fmt::Formatter<'_>, all: &[DeviceStatus]) -> fmt::Result {
    let of_devices = all.chunk_by(|a, b| a.device == b.device);
    // Uplinks are few and matter most; most are pods'.
    let mut texts: Vec<(bool, bool, String)> =
        of_devices.map(|of_one| (!is_uplink(of_one), is_pods(of_one), text(of_one))).collect();
    texts.sort_by_key(|(is_no_uplink, is_pods, _)| (*is_no_uplink, *is_pods));
    let shown: Vec<&str> = texts.iter().take(SHOWN_MAX).map(|(.., text)| text.as_str()).collect();
    match shown.as_slice() {
        [] => f.write_str("devices: none")?,
        shown => write!(f, "devices: {}", shown.join(", "))?,
    }
    match texts.len().saturating_sub(SHOWN_MAX) {
        0 => writeln!(f),
        more => writeln!(f, " and {more} more"),
    }
}

fn is_uplink(of_one: &[DeviceStatus]) -> bool {
    of_one.iter().any(|one| one.program.starts_with("uplink"))
}

fn is_pods(of_one: &[DeviceStatus]) -> bool {
    of_one.iter().any(|one| one.program.starts_with("pod"))
}

fn text(of_one: &[DeviceStatus]) -> String {
    let mut text = of_one.first().map_or_else(String::new, |one| one.device.clone());
    if is_uplink(of_one) {
        text.push_str(" uplink");
    } else if is_pods(of_one) {
        text.push_str(" pod");
    } else if of_one.iter().all(|one| one.hook.ends_with("egress")) {
        text.push_str(" egress only");
    }
    let mut ways: Vec<&str> = of_one
        .iter()
        .filter(|one| one.attached)
        .map(|one| one.hook.split_once('_').map_or(one.hook, |(way, _)| way))
        .collect();
    ways.sort_unstable();
    ways.dedup();
    if !ways.is_empty() {
        let _ = write!(text, " {}", ways.join("+"));
    }
    for off in of_one.iter().filter(|one| !one.attached) {
        let _ = write!(text, " (not attached: {})", off.hook);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Line<'a>(&'a [DeviceStatus]);

    impl fmt::Display for Line<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_line(f, self.0)
        }
    }

    fn on(device: &str, hook: &'static str, program: &str, attached: bool) -> DeviceStatus {
        let (device, program) = (device.to_owned(), program.to_owned());
        DeviceStatus { device, hook, program, program_id: 7, attached }
    }

    #[test]
    fn a_line_shows_uplinks_first_and_not_too_many() {
        let mut all = vec![
            on("veth1", "tcx_ingress", "pod_ingress", true),
            on("veth1", "tcx_egress", "egress", false),
            on("eth0", "tcx_ingress", "uplink_ingress", true),
            on("eth0", "tcx_egress", "egress", true),
            on("eth0", "xdp_native", "uplink_xdp", true),
        ];
        assert_eq!(
            Line(&all).to_string(),
            "devices: eth0 uplink tcx+xdp, veth1 pod tcx (not attached: tcx_egress)\n"
        );
        all.extend((2..12).map(|n| on(&format!("veth{n}"), "clsact_ingress", "pod_ingress", true)));
        all.push(on("vlan9", "clsact_egress", "egress", true));
        let line = Line(&all).to_string();
        assert!(line.contains("xdp, vlan9 egress only clsact, veth1 pod"), "{line}");
        assert!(line.ends_with("veth6 pod clsact and 5 more\n"), "{line}");
        assert_eq!(Line(&[]).to_string(), "devices: none\n");
    }
}
