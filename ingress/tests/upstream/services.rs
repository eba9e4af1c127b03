//! What servicebackend/*.go, endpointslices/*.go, loadbalance/*.go and lua/dynamic_configuration.go check,
//! and settings/disable_service_external_name.go: which endpoints a Service has.

use crate::client::Reply;
use crate::harness::wait_until;
use crate::origin::Origin;
use crate::world::{Sheet, Site, World, service, shared, site};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::sync::Arc;

#[test]
fn a_service_that_does_not_exist_is_503() {
    let site = shared().new_site();
    site.put(Sheet::new("web").path("/", "Prefix", "nonexistent-svc"));
    site.get("/").send().is(503);
}

#[test]
fn a_service_without_ready_endpoints_is_503() {
    let site = shared().new_site();
    let name = site.own("unavailable");
    let unready = service(&name, &[&Origin::start("unready")])
        .replace("\"endpoints\":[{", "\"endpoints\":[{\"conditions\":{\"ready\":false},");
    site.with("svc", unready);
    site.put(Sheet::new("web").path("/", "Prefix", &name));
    site.get("/").send().is(503);
}

/// The rule stays, so it is not another rule's turn; but there is nothing to ask: 404, as upstream answers.
#[test]
fn a_backend_that_is_no_service_is_404() {
    let site = shared().new_site();
    let resource =
        json!({"resource": {"apiGroup": "otherobj.test", "kind": "Anything", "name": "mytest"}});
    site.put(Sheet::new("nil").backend("/", "Prefix", resource));
    site.get("/").send().is(404);
    self::site(&[]).get("/").send().from("echo");
}

/// The name of this machine: `localhost` and loopback addresses are refused, as upstream does.
fn here() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_lowercase()
}

/// An endpoint where the name of this machine leads to.
fn outside(name: &str) -> Origin {
    let mut addresses = (here().as_str(), 0).to_socket_addrs().unwrap();
    let address = addresses.find(|address| address.is_ipv4()).expect("this machine has a name");
    Origin::listen(name, address.ip(), None)
}

/// A Service that is another name, with these ports.
fn external(site: &Site, name: &str, ports: serde_json::Value) -> String {
    let mut spec = json!({"type": "ExternalName", "externalName": name});
    if !ports.is_null() {
        spec["ports"] = ports;
    }
    let service = site.own("external");
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": service}, "spec": spec})
        .to_string()
}

/// A rule for the site's external Service by port number or name.
fn to_external(site: &Site, port: serde_json::Value) -> Sheet {
    let backend = json!({"service": {"name": site.own("external"), "port": port}});
    Sheet::new("web").backend("/", "Prefix", backend)
}

/// The answer once the name was looked up.
fn looked_up(site: &Site, endpoint: &str) -> Reply {
    wait_until("the name is looked up", || site.get("/get").send().backend() == endpoint);
    site.get("/get").send()
}

#[test]
fn external_name_without_ports_uses_the_rules() {
    let pod = outside("outside");
    let site = shared().new_site();
    site.with("external", external(&site, &here(), json!(null)));
    let port = json!({"number": pod.address.port()});
    site.put(to_external(&site, port).set(&[("upstream-vhost", "vhost.test")]));
    looked_up(&site, "outside").from("outside").saw("host", "vhost.test");
}

#[test]
fn external_name_with_ports_by_number_and_name() {
    let pod = outside("outside");
    for name in [here(), format!("{}.", here())] {
        let site = shared().new_site();
        let ports = json!([{"name": "web", "port": 80, "targetPort": pod.address.port()}]);
        site.with("external", external(&site, &name, ports));
        for port in [json!({"number": 80}), json!({"name": "web"})] {
            site.put(to_external(&site, port));
            looked_up(&site, "outside").from("outside").saw("x-forwarded-host", &site.host);
        }
    }
}

/// As upstream: what listens beside the proxy is not for tenants to reach.
#[test]
fn external_name_of_loopback_is_refused() {
    for name in ["localhost", "127.0.0.1", "::1"] {
        let site = shared().new_site();
        site.with("external", external(&site, name, json!(null)));
        site.put(to_external(&site, json!({"number": site.world.echo.address.port()})));
        site.get("/").send().is(503);
    }
}

#[test]
fn external_name_that_does_not_resolve_is_an_error() {
    let site = shared().new_site();
    site.with("external", external(&site, "invalid.hostname", json!(null)));
    site.put(to_external(&site, json!({"number": 80})));
    let reply = site.get("/get").send();
    reply.expect((500..600).contains(&reply.status), "a status of the 500s");
}

#[test]
fn external_name_is_followed_when_it_changes_comes_and_goes() {
    let (one, two) = (outside("one"), outside("two"));
    let site = shared().new_site();
    site.put(to_external(&site, json!({"number": 80})));
    site.get("/get").send().is(503);
    for pod in [&one, &two] {
        let ports = json!([{"port": 80, "targetPort": pod.address.port()}]);
        site.with("external", external(&site, &here(), ports)).write();
        looked_up(&site, &pod.name);
    }
    site.without("external").write();
    site.get("/get").send().is(503);
}

#[test]
fn external_names_switched_off() {
    let world = Arc::new(World::start(&["--disable-svc-external-name"]));
    let site = world.new_site();
    let pod = outside("outside");
    site.with("external", external(&site, &here(), json!(null)));
    site.put(to_external(&site, json!({"number": pod.address.port()})));
    site.get("/").send().is(503);
    world.site(&[]).get("/").send().from("echo");
}

#[test]
fn a_name_of_63_letters() {
    let site = shared().new_site();
    let name = "long-name-foobar-foobar-foobar-foobar-foobar-bar-foo-bar-foobuz";
    assert_eq!(name.len(), 63);
    site.with("svc", service(name, &[&Origin::start("long")]));
    site.put(Sheet::new("web").path("/", "Prefix", name));
    site.get("/").send().from("long");
}

#[test]
fn slices_with_hints_serve() {
    let site = shared().new_site();
    let name = site.own("svc");
    let pods = [Origin::start("pod"), Origin::start("pod")];
    let hinted = service(&name, &[&pods[0], &pods[1]]).replace(
        "\"endpoints\":[{",
        "\"endpoints\":[{\"hints\":{\"forZones\":[{\"name\":\"a\"}]},",
    );
    site.with("svc", hinted);
    site.put(Sheet::new("web").path("/", "Prefix", &name));
    site.get("/").send().from("pod");
}

/// How many of this many requests each of three endpoints answered.
fn shares(world: &Arc<World>, annotations: &[(&str, &str)], requests: usize) -> Vec<usize> {
    let site = world.new_site();
    let pods = [Origin::start("a"), Origin::start("b"), Origin::start("c")];
    site.with("svc", service(&site.own("svc"), &[&pods[0], &pods[1], &pods[2]]));
    site.put(Sheet::new("web").set(annotations).path("/", "Prefix", &site.own("svc")));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(site.get("/").send().is(200).backend().to_string()).or_default() += 1;
    }
    counts.into_values().collect()
}

#[test]
fn round_robin_is_even() {
    for annotations in [&[][..], &[("load-balance", "round_robin")]] {
        assert_eq!(shares(&shared(), annotations, 150), [50, 50, 50]);
    }
}

#[test]
fn ewma_loses_nothing() {
    assert_eq!(shares(&shared(), &[("load-balance", "ewma")], 30).iter().sum::<usize>(), 30);
    let world = Arc::new(World::configured(&[("load-balance", "ewma")]));
    assert_eq!(shares(&world, &[], 30).iter().sum::<usize>(), 30);
}

#[test]
fn scaling_up_down_and_away() {
    let site = shared().new_site();
    let name = site.own("svc");
    let pods = [Origin::start("pod"), Origin::start("pod")];
    site.with("svc", service(&name, &[]));
    site.put(Sheet::new("web").set(&[("load-balance", "ewma")]).path("/", "Prefix", &name));
    site.get("/").send().is(503);
    for (endpoints, status) in
        [(&[&pods[0]][..], 200), (&[&pods[0], &pods[1]], 200), (&[], 503), (&[&pods[1]], 200)]
    {
        site.with("svc", service(&name, endpoints)).write();
        site.get("/").send().is(status);
    }
    site.put(Sheet::new("web").set(&[("load-balance", "round_robin")]).path("/", "Prefix", &name));
    site.get("/").send().from("pod");
}
