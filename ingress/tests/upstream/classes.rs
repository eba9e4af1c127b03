//! What settings/ingress_class.go, namespace_selector.go, disable_catch_all.go and the conformance feature
//! "Ingress class" check: which Ingresses are the controller's.

use crate::world::{Sheet, World};
use serde_json::json;
use std::sync::Arc;

const ANNOTATION: &str = "kubernetes.io/ingress.class";

/// A class of this controller.
fn class(name: &str, controller: &str) -> String {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name},
           "spec": {"controller": controller}})
    .to_string()
}

/// A process with the class `ours` and the class `theirs` of somebody else.
fn world(flags: &[&str]) -> Arc<World> {
    let common = ["--controller-class", "k8s.io/ingress-nginx"];
    let world = Arc::new(World::start_with_classes(&[&common, flags].concat()));
    let classes = [class("ours", "k8s.io/ingress-nginx"), class("theirs", "k8s.io/other-class")];
    world.put("classes", &classes.join("\n---\n"));
    world
}

fn echo() -> Sheet {
    Sheet::new("web").path("/", "Prefix", "echo")
}

fn named(class: &str) -> Sheet {
    echo().spec("ingressClassName", json!(class))
}

fn annotated(class: &str) -> Sheet {
    echo().annotate(ANNOTATION, class)
}

#[track_caller]
fn check(world: &Arc<World>, cases: &[(Sheet, u16)]) {
    for (sheet, status) in cases {
        let site = world.new_site();
        site.put(sheet.clone());
        site.get("/").send().is(*status);
    }
}

#[test]
fn by_annotation_and_by_name() {
    let cases = [
        (annotated("testclass"), 404),
        (annotated("nginx"), 200),
        (named("theirs"), 404),
        (named("ours"), 200),
        (named("some-invalid-class-name"), 404),
        (echo(), 404),
    ];
    check(&world(&[]), &cases);
}

#[test]
fn a_class_removed_added_and_moved() {
    let world = world(&[]);
    for steps in [
        [(annotated("nginx"), 200), (echo(), 404), (annotated("nginx"), 200)],
        [(named("ours"), 200), (echo(), 404), (named("ours"), 200)],
        [(annotated("nginx"), 200), (named("ours"), 200), (annotated("nginx"), 200)],
    ] {
        let site = world.new_site();
        for (sheet, status) in steps {
            site.put(sheet);
            site.get("/").send().is(status);
        }
    }
}

#[test]
fn other_flags() {
    let flags = ["--ingress-class", "testclass", "--controller-class", "k8s.io/other-class"];
    let world = world(&flags);
    check(&world, &[(echo(), 404), (annotated("testclass"), 200), (named("theirs"), 200)]);
}

#[test]
fn without_class() {
    let world = world(&["--watch-ingress-without-class"]);
    check(&world, &[(echo(), 200), (annotated("testclass123"), 404), (named("theirs"), 404)]);
}

#[test]
fn by_the_name_of_the_class() {
    let world = world(&["--ingress-class", "theirs", "--ingress-class-by-name"]);
    check(
        &world,
        &[(named("theirs"), 200), (named("ours"), 200), (annotated("testclass123"), 404)],
    );
}

#[test]
fn catch_all_switched_off() {
    let world = world(&["--watch-ingress-without-class", "--disable-catch-all"]);
    let put = |sheet: Sheet| world.put("any", &sheet.to_yaml("any", "", 0));
    put(Sheet::new("any").default_backend("echo"));
    world.get("any.test", "/").send().is(404);
    put(Sheet::new("any").path("/", "Prefix", "echo").default_backend("echo"));
    world.get("any.test", "/").send().is(404);
    // It is the default backend that makes a catch-all.
    put(Sheet::new("any").path("/", "Prefix", "echo"));
    world.get("any.test", "/").send().from("echo");
    put(Sheet::new("any").path("/only", "Exact", "echo"));
    let site = world.new_site();
    site.put(echo());
    site.get("/").send().from("echo");
    let both = json!({"service": {"name": "echo", "port": {"number": 80}}});
    site.put(Sheet::new("web").spec("rules", json!([])).spec("defaultBackend", both));
    site.get("/").send().is(404);
}
