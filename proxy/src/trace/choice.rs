//! The endpoint, and what becomes of the packet's source on the way to it.

use podium_proxy_ebpf::{AddressPort, Endpoint, Origin, ServiceEntry, Span, choice, config, flags};

use super::{Tracer, Via};
use crate::plan::{held::HeldPort, maglev};

impl Tracer<'_> {
    pub(super) fn choose(
        &mut self,
        entry: &ServiceEntry,
        port: Option<&HeldPort>,
        span: Span,
    ) -> String {
        let list = self.snapshot.spans.get(&span).cloned().unwrap_or_default();
        let chosen = match list.as_slice() {
            [only] => Some(*only),
            _ if self.query.origin() == Origin::Outside => {
                self.consistent(entry, port, span, &list)
            }
            // A pod with affinity is recognized by its packets' source.
            _ if self.query.via == Via::Pod && entry.affinity_secs > 0 => {
                self.consistent(entry, port, span, &list)
            }
            _ => None,
        };
        let is_packet = self.query.via != Via::Socket;
        match chosen {
            Some(endpoint) if is_packet => self.sent(entry, &endpoint),
            Some(endpoint) => format!("goes to {}", endpoint.at().socket_addr()),
            None if self.query.origin() == Origin::Inside => {
                if is_packet {
                    self.step(
                        "the source is kept, but rewritten where a pod is its own endpoint \
                         (hairpin)",
                    );
                }
                format!("goes to one of these {} at random, all equally likely", span.len)
            }
            None => {
                self.step("source: with --from, the trace says which endpoint and how");
                format!("goes to one of these {}, the same one at every node", span.len)
            }
        }
    }

    /// The endpoint that the client's address leads to, if there is one to go by.
    fn consistent(
        &mut self,
        entry: &ServiceEntry,
        port: Option<&HeldPort>,
        span: Span,
        list: &[Endpoint],
    ) -> Option<Endpoint> {
        let protocol = self.query.target.protocol as u8;
        let mut client = AddressPort::from(self.query.from?);
        if entry.affinity_secs > 0 {
            client.port = [0; 2];
        }
        let hash = choice::flow_hash(&client, protocol);
        if entry.maglev.len == 0 || span.start != entry.endpoints.start {
            self.step(format!("hash of the client {hash:#010x}, scaled over the list"));
            let index = choice::pick(Span { start: 0, len: span.len }, hash)?;
            return list.get(usize::try_from(index).ok()?).copied();
        }
        let slot = choice::slot(entry.maglev.len, hash);
        let table = maglev::table(&port?.content.name, list);
        let offset = usize::from(*table.get(usize::try_from(slot).ok()?)?);
        self.step(format!(
            "hash of the client {hash:#010x}: slot {slot} of {} (Maglev), endpoint {} of the list",
            entry.maglev.len,
            offset + 1
        ));
        list.get(offset).copied()
    }

    /// How a packet gets to its endpoint.
    fn sent(&mut self, entry: &ServiceEntry, endpoint: &Endpoint) -> String {
        let at = endpoint.at().socket_addr();
        let place = match endpoint.place {
            Endpoint::ON_NODE => "a pod of this node",
            Endpoint::ON_HOST => "this node itself",
            _ => "on another node",
        };
        let rewritten = match self.rewritten(entry, endpoint) {
            Ok(kept) => {
                self.step(format!("the source is kept: {kept}"));
                return format!("goes to {at}, {place}");
            }
            Err(why) => why,
        };
        match self.node_address() {
            Some(node) => {
                self.step(format!("the source is rewritten to {node}: {rewritten}"));
                format!("goes to {at}, {place}")
            }
            None => {
                self.step(format!("the source has to be rewritten: {rewritten}"));
                "dropped: no address of the node is known to rewrite the source to".to_owned()
            }
        }
    }

    /// Why the source is kept; as an error, why it is not.
    fn rewritten(
        &self,
        entry: &ServiceEntry,
        endpoint: &Endpoint,
    ) -> Result<&'static str, &'static str> {
        if self.query.origin() == Origin::Inside {
            let from = self.query.from.map(|from| AddressPort::from(from).ip);
            return if from == Some(endpoint.ip) {
                Err("the pod is its own endpoint (hairpin)")
            } else {
                Ok("it is a pod of this node")
            };
        }
        let is_direct = self.config.flags & config::flags::DIRECT_RETURN != 0;
        let is_elsewhere = endpoint.place == Endpoint::ELSEWHERE;
        if entry.flags & flags::EXTERNAL_LOCAL != 0 {
            Ok("externalTrafficPolicy Local")
        } else if endpoint.place == Endpoint::ON_HOST {
            Ok("the endpoint is in the host's network, which answers by itself")
        } else if is_direct && !is_elsewhere {
            Ok("direct return, and the endpoint is on this node")
        } else if is_direct {
            Ok("direct return, unless the packet is too long or has options")
        } else {
            Err("externalTrafficPolicy Cluster, answers must come back through this node")
        }
    }
}
