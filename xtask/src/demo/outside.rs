//! What a client sees that is no part of the cluster: Services by their load balancer's address and
//! by the ports of nodes. No socket of a node makes these connections; the nodes' kernels balance
//! the packets.

use std::time::Duration;

use anyhow::Context;
use podium_tests::cluster::OutsideClient;
use podium_tests::wait::wait_until;

use crate::demo::Demo;
use crate::demo::measure::table;
use crate::demo::section::Section;

/// Requests to each address.
const COUNT: u64 = 30;
const LIMIT: Duration = Duration::from_secs(30);
const PODS: usize = 2;

pub fn measure(demo: &mut Demo) -> anyhow::Result<Section> {
    let mut section = Section::new("requests to gateway from a client outside of the nodes");
    let client = demo.cluster.add_client()?;
    let service = demo.kubectl.json(&["get", "service", "gateway"])?;
    let address = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
    let address = address.as_str().context("gateway has no load balancer address")?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64();
    let port = port.context("gateway has no nodePort")?;
    section.line(format!("the client has the address {} and no program of ours", client.address));
    for node in &demo.cluster.nodes {
        client.route(address, node.address)?;
        let url = format!("http://{address}/");
        let what = format!("load balancer address by way of {}", node.name);
        ask(demo, &client, &url, &what, &mut section)?;
    }
    for node in &demo.cluster.nodes {
        let url = format!("http://{}:{port}/", node.address);
        ask(demo, &client, &url, &format!("node port of {}", node.name), &mut section)?;
    }
    Ok(section)
}

fn ask(
    demo: &Demo,
    client: &OutsideClient,
    url: &str,
    what: &str,
    section: &mut Section,
) -> anyhow::Result<()> {
    let testserver = demo.cluster.binaries().static_testserver();
    // The first one alone: what keeps a single request from its answer keeps all the others too.
    wait_until(&format!("{url} answers"), LIMIT, || {
        let seen = client.requests(&testserver, url, 1).map_err(|error| format!("{error:#}"))?;
        if seen["failed"] == 0 { Ok(()) } else { Err(seen["failures"].to_string()) }
    })?;
    let seen = client.requests(&testserver, url, COUNT)?;
    section.line(format!("GET {url}: {what}"));
    for line in table(&seen) {
        section.line(format!("  {line}"));
    }
    let pods = seen["pods"].as_object().map_or(0, serde_json::Map::len);
    let sum = seen["pods"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64());
    let answered: u64 = sum.sum();
    section.check(
        seen["failed"] == 0 && answered == COUNT,
        format!("{what}: {answered} of {COUNT} requests answered"),
    );
    section.check(pods == PODS, format!("{what}: both gateway pods answered"));
    Ok(())
}
