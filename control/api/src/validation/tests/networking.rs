//! Services, endpoints and Ingresses.

use serde_json::json;

use super::{check, set, valid, wrong_update, wrong_update_of};

#[test]
fn services() {
    check(
        "",
        "Service",
        vec![
            (
                "/metadata/name",
                json!("1st"),
                &[
                    "metadata.name: Invalid value: \"1st\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            ("/spec/ports", json!([]), &["spec.ports: Required value"]),
            (
                "/spec/ports/0/port",
                json!(70000),
                &[
                    "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/ports/0/protocol",
                json!("HTTP"),
                &[
                    "spec.ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                "/spec/ports/0/targetPort",
                json!("way_wrong"),
                &[
                    "spec.ports[0].targetPort: Invalid value: \"way_wrong\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                ],
            ),
            (
                "/spec/ports/0/nodePort",
                json!(30000),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                "/spec/ports",
                json!([{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 80, "protocol": "TCP", "targetPort": 80, "name": "b"}]),
                &[
                    "spec.ports[0].name: Required value",
                    "spec.ports[1]: Duplicate value: {\"AppProtocol\":null,\"Name\":\"\",\"NodePort\":0,\"Port\":80,\"Protocol\":\"TCP\",\"TargetPort\":0}",
                ],
            ),
            (
                "/spec/type",
                json!("Balancer"),
                &[
                    "spec.type: Unsupported value: \"Balancer\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                "/spec/sessionAffinity",
                json!("Cookie"),
                &[
                    "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
                ],
            ),
            (
                "/spec/sessionAffinityConfig",
                json!({}),
                &[
                    "spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None",
                ],
            ),
            (
                "/spec/externalIPs",
                json!(["127.0.0.1"]),
                &[
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                    "spec.externalTrafficPolicy: Required value",
                ],
            ),
            (
                "/spec/ipFamilies",
                json!(["IPv5"]),
                &[
                    "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
                ],
            ),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["10.0.0.0/33"]),
                &[
                    "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ],
            ),
            (
                "/spec/clusterIPs",
                json!(["10.96.0.1"]),
                &[
                    "spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: must be empty when `clusterIP` is not specified",
                ],
            ),
            (
                "/spec/selector",
                json!({"a b": "c"}),
                &[
                    "spec.selector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                ],
            ),
        ],
    );
    let mut old = valid("", "Service");
    set(&mut old, "/metadata/resourceVersion", json!("1"));
    set(&mut old, "/spec/clusterIP", json!("10.96.0.5"));
    set(&mut old, "/spec/clusterIPs", json!(["10.96.0.5"]));
    let mut moved = old["spec"].clone();
    moved["clusterIP"] = json!("10.96.0.6");
    moved["clusterIPs"] = json!(["10.96.0.6"]);
    assert_eq!(
        wrong_update_of("", "Service", &old, "/spec", moved),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.6\"]: may not change once set"]
    );
    let mut broken = old["spec"].clone();
    broken["clusterIP"] = json!("10.96.0");
    broken["clusterIPs"] = json!(["10.96.0"]);
    assert_eq!(
        super::wrong("", "Service", "/spec", broken),
        [
            "spec.clusterIPs[0]: Invalid value: \"10.96.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        ]
    );
}

#[test]
fn external_names() {
    let spec =
        json!({"type": "ExternalName", "sessionAffinity": "None", "externalName": "no_good"});
    let errors = super::wrong("", "Service", "/spec", spec);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with(
        "spec.externalName: Invalid value: \"no_good\": a lowercase RFC 1123 subdomain must consist"
    ));
}

#[test]
fn ingresses() {
    const PATH: &str = "/spec/rules/0/http/paths/0";
    check(
        "networking.k8s.io",
        "Ingress",
        vec![
            (
                "/spec/rules",
                json!([]),
                &["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
            ),
            (
                &format!("{PATH}/path"),
                json!("app"),
                &[
                    "spec.rules[0].http.paths[0].path: Invalid value: \"app\": must be an absolute path",
                ],
            ),
            (
                &format!("{PATH}/path"),
                json!("/a//b"),
                &[
                    "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
                ],
            ),
            (
                &format!("{PATH}/pathType"),
                json!(null),
                &[
                    "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
                ],
            ),
            (
                &format!("{PATH}/pathType"),
                json!("Regex"),
                &[
                    "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
                ],
            ),
            (
                &format!("{PATH}/backend"),
                json!({}),
                &[
                    "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
                ],
            ),
            (
                &format!("{PATH}/backend/service/port"),
                json!({}),
                &[
                    "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
                ],
            ),
            (
                &format!("{PATH}/backend/service/port/name"),
                json!("http"),
                &[
                    "spec.rules[0].http.paths[0].backend: Invalid value: \"\": cannot set both port name & port number",
                ],
            ),
            ("/spec/rules/0/http/paths", json!([]), &["spec.rules[0].http.paths: Required value"]),
            (
                "/spec/rules/0/host",
                json!("10.0.0.1"),
                &[
                    "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                ],
            ),
            (
                "/spec/rules/0/host",
                json!("*bad"),
                &[
                    "spec.rules[0].host: Invalid value: \"*bad\": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
            ("/spec/tls", json!([{"hosts": ["a.b"], "secretName": "s"}]), &[]),
        ],
    );
}

#[test]
fn ingress_classes() {
    check(
        "networking.k8s.io",
        "IngressClass",
        vec![
            ("/spec", json!({}), &["spec.controller: Required value"]),
            (
                "/spec/controller",
                json!("nginx"),
                &[
                    "spec.controller: Invalid value: \"nginx\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ],
            ),
        ],
    );
    assert_eq!(
        wrong_update("networking.k8s.io", "IngressClass", "/spec/controller", json!("a.io/b")),
        ["spec.controller: Invalid value: \"a.io/b\": field is immutable"]
    );
}

#[test]
fn service_cidrs() {
    check(
        "networking.k8s.io",
        "ServiceCIDR",
        vec![
            ("/spec", json!({}), &["spec.cidrs: Required value: at least one CIDR required"]),
            ("/spec/cidrs", json!(["10.96.0.0/16", "fd00::/108"]), &[]),
            (
                "/spec/cidrs",
                json!(["10.96.0.0/16", "10.97.0.0/16"]),
                &[
                    "spec.cidrs: Invalid value: [\"10.96.0.0/16\",\"10.97.0.0/16\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                ],
            ),
            (
                "/spec/cidrs/0",
                json!("10.96.0.0"),
                &[
                    "spec.cidrs[0]: Invalid value: \"10.96.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ],
            ),
        ],
    );
    let update = |cidrs| wrong_update("networking.k8s.io", "ServiceCIDR", "/spec/cidrs", cidrs);
    assert_eq!(update(json!(["10.96.0.0/16", "fd00::/108"])), [""; 0]);
    assert_eq!(
        update(json!(["10.97.0.0/16"])),
        ["spec.cidrs[0]: Invalid value: \"10.97.0.0/16\": field is immutable"]
    );
}

/// What only Services of some types may have.
#[test]
fn fields_of_services_from_outside() {
    let mut spec = valid("", "Service")["spec"].clone();
    spec["type"] = json!("LoadBalancer");
    spec["externalTrafficPolicy"] = json!("Local");
    for (changes, errors) in [
        (
            json!({"healthCheckNodePort": 30000, "loadBalancerSourceRanges": [" 10.0.0.0/8 "]}),
            &[][..],
        ),
        (json!({"allocateLoadBalancerNodePorts": false, "loadBalancerClass": "a.b/c"}), &[]),
        (
            json!({"externalTrafficPolicy": "Cluster", "healthCheckNodePort": 30000}),
            &[
                "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            ],
        ),
        (
            json!({"externalTrafficPolicy": "Near"}),
            &[
                "spec.externalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \"Local\"",
            ],
        ),
        (
            json!({"type": "ClusterIP"}),
            &[
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        ),
        (
            json!({"type": "NodePort", "allocateLoadBalancerNodePorts": true, "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            &[
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ],
        ),
        (
            json!({"internalTrafficPolicy": "Near", "trafficDistribution": "Near"}),
            &[
                "spec.internalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \"Local\"",
                "spec.trafficDistribution: Unsupported value: \"Near\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"",
            ],
        ),
    ] {
        let mut changed = spec.clone();
        for (field, value) in changes.as_object().expect("fields") {
            changed[field] = value.clone();
        }
        assert_eq!(super::wrong("", "Service", "/spec", changed), errors, "{changes}");
    }
}

#[test]
fn endpoints() {
    check(
        "",
        "Endpoints",
        vec![
            (
                "/subsets/0/addresses",
                json!([]),
                &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
            ),
            (
                "/subsets/0/addresses/0/ip",
                json!("x"),
                &[
                    "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
        ],
    );
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        vec![
            (
                "/addressType",
                json!("ipv4"),
                &[
                    "addressType: Unsupported value: \"ipv4\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
                ],
            ),
            (
                "/endpoints/0/addresses",
                json!(["::1"]),
                &[
                    "endpoints[0].addresses[0]: Invalid value: \"::1\": must be a valid IPv4 address",
                ],
            ),
            (
                "/endpoints/0/addresses",
                json!([]),
                &["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                "/ports",
                json!([{"name": "", "protocol": "TCP"}, {"name": "", "protocol": "TCP"}]),
                &["ports[1].name: Duplicate value: \"\""],
            ),
            (
                "/endpoints/0/hints",
                json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "n"}]}),
                &[],
            ),
            (
                "/endpoints/0/hints",
                json!({"forZones": [{"name": "a"}, {"name": "a"}], "forNodes": [{"name": "n"}, {"name": "n"}]}),
                &[
                    "endpoints[0].hints.forZones[1].name: Duplicate value: \"a\"",
                    "endpoints[0].hints.forNodes[1].name: Duplicate value: \"n\"",
                ],
            ),
            (
                "/endpoints/0/hints/forNodes",
                json!(vec![json!({"name": "n"}); 9]),
                &["endpoints[0].hints.forNodes: Too many: 9: must have at most 8 items"],
            ),
        ],
    );
    assert_eq!(
        wrong_update("discovery.k8s.io", "EndpointSlice", "/addressType", json!("FQDN")),
        ["addressType: Invalid value: \"FQDN\": field is immutable"]
    );
}
