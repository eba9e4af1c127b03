//! kube-proxy's part of an iptables rule set, and how to remove just that. Pure: text of
//! `iptables-save` in, text for `iptables-restore --noflush` out.

use std::collections::{BTreeMap, BTreeSet};

/// Chains that only kube-proxy makes, in any of its modes and versions
/// (`pkg/proxy/iptables/cleanup.go`, `pkg/proxy/ipvs/cleanup.go`).
const CHAINS: [&str; 12] = [
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-LOAD-BALANCER",
    "KUBE-NODE-PORT",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-CANARY",
    "KUBE-PROXY-FIREWALL",
    "KUBE-SERVICES",
    "KUBE-SOURCE-RANGES-FIREWALL",
    MARK_MASQ,
];

/// One chain for each service port or endpoint.
const PREFIXES: [&str; 6] =
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-", "KUBE-XLB-"];

/// Sets the mark that [`POSTROUTING`] masquerades by. Kubelets before 1.28 made both too, and port
/// mappers of container runtimes may use them: on their own they are no sign of kube-proxy.
const MARK_MASQ: &str = "KUBE-MARK-MASQ";
const POSTROUTING: &str = "KUBE-POSTROUTING";

fn is_kube_proxys(chain: &str) -> bool {
    chain == POSTROUTING
        || CHAINS.contains(&chain)
        || PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

/// A table of a rule set.
#[derive(Debug, Default)]
pub struct Table {
    /// `nat`, `filter`, `mangle` …
    pub name: String,
    /// Name, and whether it is a built-in one.
    chains: BTreeMap<String, bool>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    chain: String,
    /// The chain it goes on in, or its target.
    to: Option<String>,
    /// All after `-A `.
    text: String,
}

/// How kube-proxy's part of a table is removed.
#[derive(Debug, PartialEq, Eq)]
pub struct Removal {
    /// The chains that go.
    pub chains: Vec<String>,
    /// Chains of kube-proxy that rules of others lead to: they stay.
    pub kept: Vec<String>,
    /// One transaction.
    pub text: String,
}

/// Reads what `iptables-save` printed.
pub fn parse(saved: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table { name: name.to_owned(), ..Table::default() });
        }
        let Some(table) = tables.last_mut() else {
            continue;
        };
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            if let (Some(name), Some(policy)) = (words.next(), words.next()) {
                table.chains.insert(name.to_owned(), policy != "-");
            }
        } else if let Some(text) = line.strip_prefix("-A ") {
            let words = words(text);
            let to = (words.windows(2))
                .find(|pair| ["-j", "-g"].contains(&pair[0].as_str()))
                .map(|pair| pair[1].clone());
            let chain = words.first().cloned().unwrap_or_default();
            table.rules.push(Rule { chain, to, text: text.to_owned() });
        }
    }
    tables
}

/// Splits a rule at its spaces, save those in quotes, as `-j` may stand in a comment.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for char in text.chars() {
        let word = match words.last_mut() {
            Some(word) if char != ' ' || quoted => word,
            _ => {
                words.push(String::new());
                continue;
            }
        };
        match char {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => {
                quoted = !quoted;
                // So that a quoted word is never taken for an option.
                word.push('"');
            }
            char => {
                word.push(char);
                escaped = false;
            }
        }
    }
    words
}

impl Table {
    /// Chains that show that a kube-proxy is or was here.
    pub fn evidence(&self) -> impl Iterator<Item = &str> {
        (self.chains.keys().map(String::as_str))
            .filter(|chain| is_kube_proxys(chain) && ![MARK_MASQ, POSTROUTING].contains(chain))
    }

    /// How to remove kube-proxy's chains, with the jumps to them from the built-in ones; `None` if
    /// there are none.
    pub fn removal(&self) -> Option<Removal> {
        let kept = self.kept();
        let chains: Vec<&str> = (self.chains.keys().map(String::as_str))
            .filter(|chain| is_kube_proxys(chain) && !kept.contains(chain))
            .collect();
        if chains.is_empty() {
            return None;
        }
        let mut text = format!("*{}\n", self.name);
        // Naming a chain empties it, so that none leads to another any more.
        for chain in &chains {
            text += &format!(":{chain} - [0:0]\n");
        }
        for rule in &self.rules {
            let to = rule.to.as_deref().unwrap_or_default();
            if chains.contains(&to) && !is_kube_proxys(&rule.chain) {
                text += &format!("-D {}\n", rule.text);
            }
        }
        for chain in &chains {
            text += &format!("-X {chain}\n");
        }
        text += "COMMIT\n";
        let owned = |chain: &&str| (*chain).to_owned();
        Some(Removal {
            chains: chains.iter().map(owned).collect(),
            kept: kept.iter().map(owned).collect(),
            text,
        })
    }

    /// Chains of kube-proxy that chains of others lead to, and what those lead to in turn.
    fn kept(&self) -> BTreeSet<&str> {
        let leads = |from: &dyn Fn(&Rule) -> bool| -> Vec<&str> {
            (self.rules.iter())
                .filter(|rule| from(rule))
                .filter_map(|rule| rule.to.as_deref())
                .filter(|to| is_kube_proxys(to) && self.chains.contains_key(*to))
                .collect()
        };
        let foreign = |rule: &Rule| {
            !is_kube_proxys(&rule.chain) && self.chains.get(&rule.chain) == Some(&false)
        };
        let mut kept = BTreeSet::new();
        let mut next = leads(&foreign);
        while let Some(chain) = next.pop() {
            if !kept.insert(chain) {
                continue;
            }
            next.extend(leads(&|rule: &Rule| rule.chain == chain));
            if chain == MARK_MASQ && self.chains.contains_key(POSTROUTING) {
                // What is marked must still be masqueraded.
                next.push(POSTROUTING);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(saved: &str, expected: Expect) {
        let mut text = String::new();
        for table in parse(saved) {
            let evidence: Vec<&str> = table.evidence().collect();
            text += &format!("evidence {}\n", evidence.join(" "));
            if let Some(removal) = table.removal() {
                text += &removal.text;
                if !removal.kept.is_empty() {
                    text += &format!("kept {}\n", removal.kept.join(" "));
                }
            }
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn all_of_kube_proxy_and_nothing_else() {
        check(
            r#"# Generated by iptables-save
*mangle
:PREROUTING ACCEPT [1:2]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-AAAA - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-BBBB - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m comment --comment "not \" -j KUBE-SERVICES" -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-BBBB
-A KUBE-SVC-BBBB -j KUBE-SEP-AAAA
-A KUBE-SEP-AAAA -s 10.1.0.1/32 -j KUBE-MARK-MASQ
COMMIT
*filter
:INPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -j KUBE-FIREWALL
COMMIT
"#,
            expect![[r#"
                evidence KUBE-PROXY-CANARY
                *mangle
                :KUBE-PROXY-CANARY - [0:0]
                -X KUBE-PROXY-CANARY
                COMMIT
                evidence KUBE-NODEPORTS KUBE-SEP-AAAA KUBE-SERVICES KUBE-SVC-BBBB
                *nat
                :KUBE-MARK-MASQ - [0:0]
                :KUBE-NODEPORTS - [0:0]
                :KUBE-POSTROUTING - [0:0]
                :KUBE-SEP-AAAA - [0:0]
                :KUBE-SERVICES - [0:0]
                :KUBE-SVC-BBBB - [0:0]
                -D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
                -D POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
                -X KUBE-MARK-MASQ
                -X KUBE-NODEPORTS
                -X KUBE-POSTROUTING
                -X KUBE-SEP-AAAA
                -X KUBE-SERVICES
                -X KUBE-SVC-BBBB
                COMMIT
                evidence KUBE-FORWARD
                *filter
                :KUBE-FORWARD - [0:0]
                -X KUBE-FORWARD
                COMMIT
            "#]],
        );
    }

    #[test]
    fn what_a_kubelet_leaves_is_no_evidence() {
        check(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n:KUBE-MARK-DROP - [0:0]\n:KUBE-FIREWALL - [0:0]\n\
             :KUBE-KUBELET-CANARY - [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\n\
             -A POSTROUTING -j KUBE-FIREWALL\nCOMMIT\n",
            expect![[r#"
                evidence 
            "#]],
        );
    }

    #[test]
    fn a_chain_that_others_use_stays() {
        check(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n:CNI-DN-1 - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
             :KUBE-POSTROUTING - [0:0]\n:KUBE-SERVICES - [0:0]\n\
             -A POSTROUTING -j KUBE-POSTROUTING\n-A CNI-DN-1 -p tcp -j KUBE-MARK-MASQ\n\
             -A KUBE-SERVICES -j KUBE-MARK-MASQ\nCOMMIT\n",
            expect![[r#"
                evidence KUBE-SERVICES
                *nat
                :KUBE-SERVICES - [0:0]
                -X KUBE-SERVICES
                COMMIT
                kept KUBE-MARK-MASQ KUBE-POSTROUTING
            "#]],
        );
    }
}
