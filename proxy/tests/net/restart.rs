//! That an agent may end, start and be replaced while packets flow.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    ask::{Protocol, Question, error_name, who},
    island::Island,
    node::Node,
    world::{A, B, FAMILIES, NODE_PORT, at, node_ip, two_nodes, web},
};

/// Long enough for many packets.
const LULL: Duration = Duration::from_millis(400);

/// Asks until told to stop; returns how often, and each wrong answer.
fn load(island: &Island, protocol: Protocol, to: &str, stop: &AtomicBool) -> (u32, Vec<String>) {
    island.client.run(|| {
        let (mut count, mut wrong) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            let answer = Question::new(protocol, to).ask();
            if !who(&answer).starts_with("pod-") {
                wrong.push(answer);
            }
            thread::sleep(Duration::from_millis(2));
        }
        (count, wrong)
    })
}

/// Asks on one connection until told to stop.
fn talk(island: &Island, to: &str, stop: &AtomicBool) -> (u32, Vec<String>) {
    island.client.run(|| {
        let mut connection = Question::new(Protocol::Tcp, to).connect().unwrap();
        let (mut count, mut wrong) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            if let Err(error) = connection.who() {
                wrong.push(error_name(&error));
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        (count, wrong)
    })
}

/// Puts load on node ports of the first node while something happens to its agent.
fn under_load(test: &str, happens: impl FnOnce(&mut Node, &Island)) {
    let mut island = two_nodes(test);
    island.manifest("web.yaml", &web().pods(&island.nodes[A]).pods(&island.nodes[B]).text());
    island.start();
    let mut node = island.nodes.remove(A);
    let stop = AtomicBool::new(false);
    let targets = FAMILIES.map(|family| at(node_ip(&node, family), NODE_PORT));
    let results: Vec<(u32, Vec<String>)> = thread::scope(|scope| {
        let (island, stop) = (&island, &stop);
        let mut threads = Vec::new();
        for to in &targets {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                threads.push(scope.spawn(move || load(island, protocol, to, stop)));
            }
            threads.push(scope.spawn(move || talk(island, to, stop)));
        }
        thread::sleep(LULL);
        happens(&mut node, island);
        thread::sleep(LULL);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("{results:?}");
    assert!(results.iter().all(|(count, _)| *count > 100), "too few to mean anything");
    assert!(results.iter().all(|(_, wrong)| wrong.is_empty()), "{results:?}");
    assert_eq!(island.client.counter("Tcp", "RetransSegs"), 0, "not even a packet");
}

#[test]
fn net_agent_restart_under_load_loses_nothing() {
    under_load("restart", |node, island| {
        for _ in 0..2 {
            node.kill();
            thread::sleep(LULL);
            node.spawn(island.manifests());
            node.wait();
        }
    });
}
