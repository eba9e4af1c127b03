//! What annotations/customhttperrors.go, default_backend.go, disableproxyintercepterrors.go and
//! customheaders.go check: who answers in the endpoint's place.

use crate::certificates::object;
use crate::origin::Origin;
use crate::world::{Sheet, Site, World, service, shared, site};
use std::sync::Arc;

/// A site whose errors of these codes are answered by `other`.
fn intercepting(codes: &str, more: &[(&str, &str)]) -> Site {
    site(&[&[("custom-http-errors", codes), ("default-backend", "other")], more].concat())
}

#[test]
fn intercepted_codes_are_answered_by_the_default_backend() {
    let site = intercepting("404,500", &[]);
    for code in ["404", "500"] {
        let asked = site.get(&format!("/status/{code}")).header("Accept", "text/html");
        // Whatever status it answers with is the client's: an error page says X-Code's by itself.
        let reply = asked.header("X-Request-ID", "something-unique").send();
        reply.from("other").saw("x-code", code).saw("x-format", "text/html");
        reply.saw("x-original-uri", &format!("/status/{code}")).saw("x-namespace", "default");
        reply.saw("x-ingress-name", &site.own("web")).saw("x-service-name", "echo");
        reply.saw("x-service-port", "80").saw("x-request-id", "something-unique");
    }
    site.get("/status/503").send().is(503);
    site.get("/").send().from("echo");
}

#[test]
fn codes_follow_a_changed_annotation() {
    let site = intercepting("404,500", &[]);
    let changed = [("custom-http-errors", "503"), ("default-backend", "other")];
    site.put(Sheet::new("web").set(&changed).path("/", "Prefix", "echo"));
    site.get("/status/503").send().from("other").saw("x-code", "503");
    site.get("/status/404").send().is(404);
}

#[test]
fn each_ingress_of_a_host_has_its_own_codes() {
    let site = intercepting("503", &[]);
    let both = [
        ("custom-http-errors", "404, 503"),
        ("default-backend", "other"),
        ("rewrite-target", "/status/404"),
    ];
    site.put(Sheet::new("else").set(&both).path("/else", "Prefix", "echo"));
    site.get("/status/503").send().from("other");
    site.get("/status/404").send().is(404);
    site.get("/else").send().from("other").saw("x-code", "404");
}

#[test]
fn intercepted_codes_are_answered_by_the_controllers_default_backend() {
    let world = Arc::new(World::start(&["--default-backend-service", "default/other"]));
    let site = world.site(&[("custom-http-errors", "404")]);
    site.get("/status/404").send().from("other").saw("x-code", "404");
}

#[test]
fn without_any_default_backend_the_error_is_the_controllers() {
    let site = site(&[("custom-http-errors", "404")]);
    site.get("/status/404").send().is(404).says("<center><h1>404 Not Found</h1></center>");
}

#[test]
fn interception_switched_off() {
    let site = intercepting("404", &[("disable-proxy-intercept-errors", "true")]);
    site.get("/status/404").send().is(404).says("backend: echo");
    let on = [
        ("custom-http-errors", "404"),
        ("default-backend", "other"),
        ("disable-proxy-intercept-errors", "false"),
    ];
    site.put(Sheet::new("web").set(&on).path("/", "Prefix", "echo"));
    site.get("/status/404").send().from("other").saw("x-code", "404").saw("x-service-name", "echo");
}

#[test]
fn default_backend_stands_in_for_a_service_without_endpoints() {
    let site = shared().new_site();
    let stand_in = Sheet::new("web").set(&[("default-backend", "other")]);
    site.put(stand_in.path("/", "Prefix", "invalid"));
    let reply = site.get("/alma/armud").header("X-Request-ID", "something-unique").send();
    reply.from("other").saw("x-code", "503").saw("x-ingress-name", &site.own("web"));
    reply.saw("x-service-name", "invalid").saw("x-request-id", "something-unique");
}

#[test]
fn default_backend_uses_the_first_port() {
    let site = shared().new_site();
    let pages = Origin::start("pages");
    let name = site.own("pages");
    let manifest = service(&name, &[&pages]).replace("[{\"port\":80}]", "[{\"port\":8080}]");
    site.with("pages", manifest);
    let stand_in = Sheet::new("web").set(&[("default-backend", &name)]);
    site.put(stand_in.path("/", "Prefix", "invalid"));
    site.get("/").send().from("pages");
}

#[test]
fn custom_headers_none() {
    let site = site(&[]);
    site.get("/").send().from("echo").saw("host", &site.host).lacks("my-custom-header");
}

#[test]
fn custom_headers_of_a_config_map_that_is_not_there() {
    let site = site(&[("custom-headers", "default/no-such-headers")]);
    site.get("/").send().is(503).says("503 Service Temporarily Unavailable");
}

#[test]
fn custom_headers_of_a_config_map() {
    let allowed = [("global-allowed-response-headers", "My-Custom-Header,My-Custom-Header-Dollar")];
    let world = Arc::new(World::configured(&allowed));
    let site = world.new_site();
    let headers = [("My-Custom-Header", "42"), ("My-Custom-Header-Dollar", "$remote_addr")];
    site.with("headers", object("ConfigMap", "headers", "data", &headers));
    let sheet = Sheet::new("web").set(&[("custom-headers", "default/headers")]);
    site.put(sheet.path("/", "Prefix", "echo"));
    // nginx does not look into the values either.
    let reply = site.get("/").send();
    reply.from("echo").has("my-custom-header", "42").has("my-custom-header-dollar", "$remote_addr");
}

#[test]
fn custom_headers_that_are_not_allowed_close_the_location() {
    let world = Arc::new(World::configured(&[("global-allowed-response-headers", "X-Other")]));
    let site = world.new_site();
    site.with("headers", object("ConfigMap", "headers", "data", &[("My-Custom-Header", "42")]));
    let sheet = Sheet::new("web").set(&[("custom-headers", "default/headers")]);
    site.put(sheet.path("/", "Prefix", "echo"));
    site.get("/").send().is(503).lacks("my-custom-header");
}
