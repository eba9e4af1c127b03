//! Text of the files the agent gives every pod: /etc/hosts and the resolver configuration. Pure.

use std::net::IpAddr;

use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use super::PodExt;

/// The resolver's own limits, as upstream keeps them.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// `/etc/hosts` of a pod.
pub(crate) fn hosts(
    pod: &Pod,
    pod_ips: &[String],
    host_file: &str,
    cluster_domain: &str,
) -> String {
    let mut text = if pod.host_network() {
        format!("# Kubernetes-managed hosts file (host network).\n{host_file}")
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\n\
             fe00::\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
        for ip in pod_ips {
            match &domain {
                Some(domain) => text += &format!("{ip}\t{hostname}.{domain}\t{hostname}\n"),
                None => text += &format!("{ip}\t{hostname}\n"),
            }
        }
        text
    };
    let aliases = pod.podspec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text += &format!("{}\t{names}\n", alias.ip);
        }
    }
    text
}

/// The pod's host name, and its domain where it belongs to a headless Service.
pub(crate) fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    const HOSTNAME_BYTES_MAX: usize = 63;
    let spec = pod.podspec();
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let hostname = given(&spec.hostname_override).or_else(|| given(&spec.hostname));
    let mut hostname = hostname.unwrap_or_else(|| pod.name().to_owned());
    hostname.truncate(HOSTNAME_BYTES_MAX);
    let hostname = hostname.trim_end_matches(['-', '.']).to_owned();
    let domain = given(&spec.subdomain)
        .map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()));
    (hostname, domain)
}

/// The resolver configuration by `dnsPolicy` and `dnsConfig`.
pub(crate) fn dns(
    pod: &Pod,
    cluster_dns: &[IpAddr],
    cluster_domain: &str,
    host_resolv_conf: &str,
) -> DnsConfig {
    let spec = pod.podspec();
    let host = parse_resolv_conf(host_resolv_conf);
    let cluster = |host: DnsConfig| {
        let namespace = pod.namespace();
        let ours = [
            format!("{namespace}.svc.{cluster_domain}"),
            format!("svc.{cluster_domain}"),
            cluster_domain.to_owned(),
        ];
        DnsConfig {
            servers: cluster_dns.iter().map(IpAddr::to_string).collect(),
            searches: ours.into_iter().chain(host.searches).collect(),
            options: vec!["ndots:5".to_owned()],
        }
    };
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut config = match policy {
        "None" => DnsConfig::default(),
        "Default" => host,
        "ClusterFirst" if pod.host_network() => host,
        // Upstream: without a cluster DNS, the policy falls back to the host's resolvers.
        _ if cluster_dns.is_empty() => host,
        _ => cluster(host),
    };
    if let Some(own) = &spec.dns_config {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.retain(|have| have.split(':').next() != Some(name.as_str()));
            config.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    dedup(&mut config.servers, NAMESERVERS_MAX);
    dedup(&mut config.searches, SEARCHES_MAX);
    config
}

fn dedup(list: &mut Vec<String>, max: usize) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
    list.truncate(max);
}

fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let rest = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => config.searches = rest(words),
            Some("options") => config.options = rest(words),
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn resolvers_by_policy() {
        let host = "nameserver 1.1.1.1\nsearch corp\noptions rotate\n";
        let dns_ip: IpAddr = [10, 96, 0, 10].into();
        let custom =
            json!({"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}]});
        for (spec, servers, expected) in [
            (
                json!({"containers": []}),
                vec![dns_ip],
                "10.96.0.10|ns.svc.c.l,svc.c.l,c.l,corp|ndots:5",
            ),
            (json!({"containers": []}), vec![], "1.1.1.1|corp|rotate"),
            (
                json!({"containers": [], "dnsPolicy": "Default"}),
                vec![dns_ip],
                "1.1.1.1|corp|rotate",
            ),
            (
                json!({"containers": [], "dnsPolicy": "None", "dnsConfig": custom}),
                vec![dns_ip],
                "9.9.9.9||ndots:2",
            ),
            (json!({"containers": [], "hostNetwork": true}), vec![dns_ip], "1.1.1.1|corp|rotate"),
        ] {
            let got = dns(&pod(spec), &servers, "c.l", host);
            let got = [got.servers.join(","), got.searches.join(","), got.options.join(",")];
            assert_eq!(got.join("|"), expected);
        }
    }

    #[test]
    fn hosts_carry_domain_and_aliases() {
        let pod = pod(json!({"containers": [], "hostname": "h", "subdomain": "s",
            "hostAliases": [{"ip": "10.0.0.9", "hostnames": ["a", "b"]}]}));
        let text = hosts(&pod, &["10.244.0.2".to_owned()], "", "cluster.local");
        assert!(text.contains("10.244.0.2\th.s.ns.svc.cluster.local\th\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n10.0.0.9\ta\tb\n"), "{text}");
    }
}
