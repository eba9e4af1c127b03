//! What lua/dynamic_certificates.go, ssl/secret_update.go, defaultbackend/ssl.go and
//! settings/default_ssl_certificate.go check: which certificate a client gets.

use crate::certificates::{Authority, names, object, self_signed};
use crate::client::{Reply, Tls};
use crate::harness::wait_until;
use crate::world::{Sheet, Site, World, shared};
use std::sync::Arc;

const FAKE: &str = "Kubernetes Ingress Controller Fake Certificate";

fn hosts(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.certificates.len(), 1);
    names(&reply.certificates[0]).1
}

#[track_caller]
fn is_fake(reply: &Reply) {
    assert_eq!(reply.certificates.len(), 1);
    let (subject, hosts) = names(&reply.certificates[0]);
    assert_eq!((subject.as_str(), hosts), (FAKE, vec!["ingress.local".to_string()]));
}

fn with_tls(site: &Site) -> Sheet {
    Sheet::new("web").path("/", "Prefix", "echo").tls(&site.own("tls"))
}

fn add_secret(site: &Site, names: &[&str]) {
    site.with("tls", self_signed(names).secret(&site.own("tls")));
}

#[test]
fn fake_where_there_is_none() {
    let world = shared();
    let tls = |server_name: &str| Tls { server_name: server_name.into(), ..Tls::default() };
    let asked = world.get("127.0.0.1", "/").address(world.podium.https);
    is_fake(asked.clone().tls(tls("")).send().is(404));
    is_fake(asked.host("foo.bar.com").tls(tls("foo.bar.com")).send().is(404));
}

#[test]
fn tls_added_to_an_existing_ingress() {
    let site = shared().site(&[]);
    is_fake(site.https("/").send().from("echo"));
    add_secret(&site, &[&site.host]);
    site.put(with_tls(&site));
    assert_eq!(hosts(site.https("/").send().from("echo")), std::slice::from_ref(&site.host));
}

#[test]
fn a_secret_that_comes_later_changes_and_goes() {
    let site = shared().new_site();
    site.put(with_tls(&site));
    is_fake(site.https("/").send().from("echo"));
    add_secret(&site, &[&site.host]);
    site.write();
    let first = site.https("/").send();
    assert_eq!(hosts(first.from("echo")), std::slice::from_ref(&site.host));
    add_secret(&site, &[&site.host]);
    site.write();
    let second = site.https("/").send();
    assert_eq!(hosts(second.from("echo")), std::slice::from_ref(&site.host));
    assert_ne!(first.certificates, second.certificates);
    site.without("tls").write();
    is_fake(site.https("/").send().from("echo"));
}

#[test]
fn a_name_with_a_dot_at_its_end() {
    let site = shared().new_site();
    add_secret(&site, &[&site.host]);
    site.put(with_tls(&site));
    // Clients leave the dot out of the name they ask for (RFC 6066), not out of the host.
    let asked = site.https("/").host(&format!("{}.", site.host));
    assert_eq!(hosts(asked.send().from("echo")), std::slice::from_ref(&site.host));
}

#[test]
fn another_host_of_the_ingress_gets_no_certificate_that_does_not_name_it() {
    let site = shared().new_site();
    add_secret(&site, &["not.foo"]);
    site.put(with_tls(&site));
    is_fake(site.https("/").send().from("echo"));
}

#[test]
fn tls_taken_away_serves_http_again() {
    let site = shared().new_site();
    add_secret(&site, &[&site.host]);
    site.put(with_tls(&site));
    site.get("/").send().is(308);
    site.put(Sheet::new("web").path("/", "Prefix", "echo"));
    site.get("/").send().from("echo");
}

#[test]
fn a_secret_without_a_certificate_gives_the_fake_one() {
    let site = shared().new_site();
    site.with("tls", object("Secret", &site.own("tls"), "stringData", &[]));
    site.put(with_tls(&site));
    is_fake(site.https("/").send().from("echo"));
}

#[test]
fn an_authoritys_certificate_is_served() {
    let site = shared().new_site();
    let pair = Authority::new("authority").sign(&site.host);
    site.with("tls", pair.secret(&site.own("tls")));
    site.put(with_tls(&site));
    assert_eq!(hosts(site.https("/").send().from("echo")), std::slice::from_ref(&site.host));
}

#[test]
fn default_ssl_certificate() {
    let world = Arc::new(World::start(&["--default-ssl-certificate", "default/my-custom-cert"]));
    world.put("default", &self_signed(&["*.custom.test"]).secret("my-custom-cert"));
    let tls = |server_name: &str| Tls { server_name: server_name.into(), ..Tls::default() };
    let ask = |host: &str| world.get(host, "/").address(world.podium.https).tls(tls(host)).send();
    // Without any Ingress.
    wait_until("the default certificate is served", || {
        hosts(&ask("any.test")) == ["*.custom.test"]
    });
    ask("any.test").is(404);
    // For a host whose certificate does not name it.
    let site = world.new_site();
    add_secret(&site, &["not.foo"]);
    site.put(with_tls(&site));
    assert_eq!(hosts(site.https("/").send().from("echo")), ["*.custom.test"]);
    // For an Ingress without hosts.
    world.put("any", &Sheet::new("any").default_backend("echo").to_yaml("any", "", 0));
    assert_eq!(hosts(ask("any.test").from("echo")), ["*.custom.test"]);
}
