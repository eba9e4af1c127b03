//! Another service proxy on the same node: kube-proxy's rules are found, refused to run beside, and
//! removed on request once this one's programs are in place.
//!
//! Looked at are both backends of iptables, kube-proxy's nftables tables and its IPVS device, in
//! the network namespace of the agent. A kubelet's own chains are no sign of kube-proxy and stay.

mod iptables;
mod tools;

use std::{collections::BTreeSet, fmt, fs, io, thread, time::Duration};

use prometheus::IntGauge;
use tracing::{error, info, warn};

/// kube-proxy's table in nftables mode (`pkg/proxy/nftables`).
const NFT_TABLE: &str = "kube-proxy";

/// The device that holds service addresses in IPVS mode.
const IPVS_DEVICE: &str = "kube-ipvs0";

/// Tables kube-proxy writes to.
const TABLES: [&str; 3] = ["nat", "filter", "mangle"];

/// How long to wait for others that change iptables at the moment.
const LOCK_SECS: &str = "5";

/// When to look again whether the rules stayed away: a kube-proxy that still runs notices that its
/// canary is gone within 30 seconds.
const RECHECK: Duration = Duration::from_secs(60);
/// When to try again what failed.
const RETRY: Duration = Duration::from_secs(10);

/// One way to read and change iptables rules of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backend {
    /// As its tools are called.
    name: &'static str,
    save: &'static str,
    restore: &'static str,
    /// Lists the tables in use; nftables have no such list.
    names: Option<&'static str>,
}

const BACKENDS: [Backend; 4] = [
    Backend {
        name: "iptables-legacy",
        save: "iptables-legacy-save",
        restore: "iptables-legacy-restore",
        names: Some("/proc/net/ip_tables_names"),
    },
    Backend {
        name: "ip6tables-legacy",
        save: "ip6tables-legacy-save",
        restore: "ip6tables-legacy-restore",
        names: Some("/proc/net/ip6_tables_names"),
    },
    Backend {
        name: "iptables-nft",
        save: "iptables-nft-save",
        restore: "iptables-nft-restore",
        names: None,
    },
    Backend {
        name: "ip6tables-nft",
        save: "ip6tables-nft-save",
        restore: "ip6tables-nft-restore",
        names: None,
    },
];

/// What is on the node.
#[derive(Debug, Default)]
pub struct Found {
    /// Tables with chains of kube-proxy, by backend.
    rules: Vec<(Backend, iptables::Table)>,
    /// Families of its nftables tables.
    nft_families: Vec<String>,
    /// Whether there is its IPVS device.
    ipvs: bool,
    /// What could not be looked at, and why.
    pub unchecked: Vec<String>,
}

/// The agent does not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "kube-proxy's rules are on this node ({found}): stop kube-proxy and give --takeover, which \
     removes them as soon as services are balanced here, or --allow-kube-proxy to run beside them"
)]
pub struct Refusal {
    found: Found,
}

/// Looks for rules of kube-proxy in the agent's network namespace.
pub fn find() -> Found {
    let mut found = Found::default();
    for backend in BACKENDS {
        match tools::run(backend.save, &[], "") {
            Ok(saved) => found.add_rules(backend, &saved),
            Err(error) => {
                // Where no table is in use there is nothing to see.
                let in_use = backend.names.is_none_or(|names| {
                    fs::read_to_string(names).is_ok_and(|names| !names.trim().is_empty())
                });
                if in_use {
                    found.unchecked.push(format!("{} ({error})", backend.name));
                }
            }
        }
    }
    match tools::run("nft", &["-j", "list", "tables"], "") {
        Ok(json) => found.nft_families = nft_families(&json),
        Err(error) => found.unchecked.push(format!("nftables ({error})")),
    }
    found.ipvs = fs::read_to_string("/proc/net/dev").is_ok_and(|devices| {
        devices.lines().any(|line| line.trim_start().starts_with(&format!("{IPVS_DEVICE}:")))
    });
    found
}

/// Families that have a table of kube-proxy's, in what `nft -j list tables` prints.
fn nft_families(json: &str) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let objects = list["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    (objects.iter())
        .map(|object| &object["table"])
        .filter(|table| table["name"] == NFT_TABLE)
        .filter_map(|table| table["family"].as_str().map(str::to_owned))
        .collect()
}

/// Refuses to start beside kube-proxy. Says what could not be looked at.
///
/// # Errors
/// If there are rules of its.
pub fn refuse() -> Result<(), Refusal> {
    let found = find();
    for what in &found.unchecked {
        warn!("cannot tell whether there are rules of kube-proxy in {what}");
    }
    if found.is_empty() { Ok(()) } else { Err(Refusal { found }) }
}

impl Found {
    fn add_rules(&mut self, backend: Backend, saved: &str) {
        for line in saved.lines().filter(|line| line.contains("is incompatible")) {
            if TABLES.iter().any(|table| line.contains(&format!("`{table}'"))) {
                let line = line.trim_start_matches(['#', ' ']);
                self.unchecked.push(format!("{} ({line})", backend.name));
            }
        }
        let tables = iptables::parse(saved).into_iter();
        let tables = tables.filter(|table| TABLES.contains(&table.name.as_str()));
        let tables: Vec<_> = tables.collect();
        // One of them with evidence: what is no evidence by itself goes along from the others.
        if tables.iter().any(|table| table.evidence().next().is_some()) {
            self.rules.extend(tables.into_iter().map(|table| (backend, table)));
        }
    }

    /// Whether there is nothing of kube-proxy.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.nft_families.is_empty() && !self.ipvs
    }

    /// Chains, tables and devices there are.
    pub fn len(&self) -> usize {
        let chains: usize = self.rules.iter().map(|(_, table)| table.evidence().count()).sum();
        chains + self.nft_families.len() + usize::from(self.ipvs)
    }

    /// Removes all of it, one transaction a table, and says what went. What fails does not keep the
    /// rest from being removed.
    fn remove(&self) -> (Vec<String>, Vec<tools::Error>) {
        let (mut done, mut errors) = (Vec::new(), Vec::new());
        for (backend, table) in &self.rules {
            let Some(removal) = table.removal() else {
                continue;
            };
            if !removal.kept.is_empty() {
                let (kept, name) = (removal.kept.join(", "), &table.name);
                warn!("{}: {name}: {kept} stay, as rules of others use them", backend.name);
            }
            let args = ["--noflush", "-w", LOCK_SECS];
            match tools::run(backend.restore, &args, &removal.text) {
                Ok(_) => done.push(format!(
                    "{} chains and the jumps to them from {} table {}",
                    removal.chains.len(),
                    backend.name,
                    table.name
                )),
                Err(error) => errors.push(error),
            }
        }
        for family in &self.nft_families {
            match tools::run("nft", &["delete", "table", family, NFT_TABLE], "") {
                Ok(_) => done.push(format!("nftables table {family} {NFT_TABLE}")),
                Err(error) => errors.push(error),
            }
        }
        if self.ipvs {
            match tools::run("ip", &["link", "delete", IPVS_DEVICE], "") {
                Ok(_) => done.push(format!(
                    "device {IPVS_DEVICE} (virtual servers and ipsets stay, without addresses)"
                )),
                Err(error) => errors.push(error),
            }
        }
        (done, errors)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for backend in BACKENDS {
            let mut chains = BTreeSet::new();
            for (_, table) in self.rules.iter().filter(|(of, _)| *of == backend) {
                chains.extend(table.evidence());
            }
            // The one that leads to all others, if it is there.
            let first = chains.get("KUBE-SERVICES").or(chains.first());
            if let Some(first) = first {
                parts.push(format!("{}: {} chains such as {first}", backend.name, chains.len()));
            }
        }
        let tables = self.nft_families.iter();
        parts.extend(tables.map(|family| format!("nftables: table {family} {NFT_TABLE}")));
        if self.ipvs {
            parts.push(format!("IPVS: device {IPVS_DEVICE}"));
        }
        f.write_str(&parts.join("; "))
    }
}

/// Removes kube-proxy's rules.
#[derive(Debug)]
pub struct Takeover {
    /// Chains, tables and devices of kube-proxy at the last look.
    pub remaining: IntGauge,
}

impl Takeover {
    /// Nothing is done yet.
    ///
    /// # Errors
    /// If the metric has no valid name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let remaining = IntGauge::new(
            "podium_proxy_kube_proxy_remaining",
            "Chains, tables and devices of kube-proxy that --takeover has yet to remove.",
        )?;
        Ok(Self { remaining })
    }

    /// Starts a thread that removes what there is, tries again what failed, and ends when nothing
    /// came back.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(self) -> io::Result<()> {
        let thread = thread::Builder::new().name("takeover".to_owned());
        thread.spawn(move || self.run()).map(drop)
    }

    fn run(self) {
        let mut again = false;
        loop {
            let found = find();
            self.remaining.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
            for what in found.unchecked.iter().filter(|_| !again) {
                warn!("rules of kube-proxy in {what}, if there are any, are not removed");
            }
            if found.is_empty() {
                return;
            }
            let (done, errors) = found.remove();
            if again && !done.is_empty() && errors.is_empty() {
                warn!(
                    "rules of kube-proxy were there again: a kube-proxy still runs here, stop it"
                );
            }
            for what in done {
                info!("taken over from kube-proxy: removed {what}");
            }
            if errors.is_empty() {
                self.remaining.set(0);
            }
            for error in &errors {
                error!("rules of kube-proxy are still there, trying again: {error}");
            }
            again = true;
            thread::sleep(if errors.is_empty() { RECHECK } else { RETRY });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nft_tables_by_name() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "ip", "name": "nat"}},
            {"table": {"family": "ip", "name": "kube-proxy"}},
            {"table": {"family": "ip6", "name": "kube-proxy"}}]}"#;
        assert_eq!(nft_families(json), ["ip", "ip6"]);
        assert!(nft_families("").is_empty());
        assert!(nft_families("{}").is_empty());
    }

    #[test]
    fn what_is_found_in_one_sentence() {
        let mut found = Found::default();
        found.add_rules(
            BACKENDS[2],
            "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\nCOMMIT\n\
             *raw\n:KUBE-SERVICES - [0:0]\nCOMMIT\n",
        );
        found.nft_families.push("ip6".to_owned());
        found.ipvs = true;
        assert_eq!(found.len(), 4);
        assert_eq!(
            found.to_string(),
            "iptables-nft: 2 chains such as KUBE-SERVICES; nftables: table ip6 kube-proxy; \
             IPVS: device kube-ipvs0"
        );
    }

    #[test]
    fn a_table_that_iptables_cannot_read_is_said() {
        let mut found = Found::default();
        found.add_rules(BACKENDS[2], "# Table `nat' is incompatible, use 'nft' tool.\n");
        assert_eq!(
            found.unchecked,
            ["iptables-nft (Table `nat' is incompatible, use 'nft' tool.)"]
        );
        found.add_rules(BACKENDS[2], "# Table `kube-proxy' is incompatible, use 'nft' tool.\n");
        assert_eq!(found.unchecked.len(), 1, "that one nft is asked for");
    }
}
