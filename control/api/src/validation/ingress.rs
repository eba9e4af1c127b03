//! Ingresses and IngressClasses.

use std::net::IpAddr;

use crate::field::{Cursor, Error};

use super::{complain, format, immutable};

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const INVALID_SEQUENCES: [&str; 6] = ["//", "/./", "/../", "%2f", "%2F", "\0"];
const INVALID_SUFFIXES: [&str; 2] = ["/..", "/."];
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const CONTROLLER_LENGTH_MAX: usize = 250;

/// An Ingress.
pub fn ingress(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let spec = at.child("spec");
    let (rules, default_backend) = (spec.child("rules"), spec.child("defaultBackend"));
    if rules.is_empty() && !default_backend.is_set() {
        errors.push(Error::invalid(
            &spec.path,
            rules.value.clone(),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if default_backend.is_set() {
        backend(&default_backend, errors);
    }
    rules.items().for_each(|item| rule(&item, errors));
    for tls in spec.child("tls").items() {
        tls.child("hosts").items().for_each(|name| host(&name, errors));
        let secret = tls.child("secretName");
        if !secret.is_empty() {
            complain(&secret, format::dns1123_subdomain(secret.text()), errors);
        }
    }
    let class = spec.child("ingressClassName");
    if class.is_set() {
        complain(&class, format::dns1123_subdomain(class.text()), errors);
    }
    for address in at.descend(&["status", "loadBalancer", "ingress"]).items() {
        let (ip, hostname) = (address.child("ip"), address.child("hostname"));
        if !ip.is_empty() {
            complain(&ip, format::ip(ip.text()), errors);
        }
        if !hostname.is_empty() {
            complain(&hostname, format::dns1123_subdomain(hostname.text()), errors);
            not_an_address(&hostname, errors);
        }
    }
}

/// On creation the old annotation may not contradict the field that replaced it.
pub fn class_annotation(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let annotation = at.descend(&["metadata", "annotations", CLASS_ANNOTATION]);
    let class = at.descend(&["spec", "ingressClassName"]);
    if annotation.is_set() && class.is_set() && annotation.value != class.value {
        let path = crate::field::Path::new("annotations").child(CLASS_ANNOTATION);
        errors.push(Error::invalid(
            &path,
            annotation.text(),
            "must match `ingressClassName` when both are specified",
        ));
    }
}

fn host(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let complaints = match at.text().contains('*') {
        true => format::wildcard_subdomain(at.text()),
        false => format::dns1123_subdomain(at.text()),
    };
    complain(at, complaints, errors);
}

fn not_an_address(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if at.text().parse::<IpAddr>().is_ok() {
        errors.push(at.invalid("must be a DNS name, not an IP address"));
    }
}

fn rule(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let name = at.child("host");
    if !name.is_empty() {
        not_an_address(&name, errors);
        host(&name, errors);
    }
    let http = at.child("http");
    if !http.is_set() {
        return;
    }
    let paths = http.child("paths");
    if paths.is_empty() {
        errors.push(Error::required(&paths.path, ""));
    }
    paths.items().for_each(|item| path(&item, errors));
}

fn path(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (kind, path) = (at.child("pathType"), at.child("path"));
    if !kind.is_set() {
        errors.push(kind.required("pathType must be specified"));
        return;
    }
    let absolute = path.text().starts_with('/');
    let mut wrong = |detail: String| errors.push(Error::invalid(&path.path, path.text(), detail));
    match kind.text() {
        "Exact" | "Prefix" => {
            if !absolute {
                wrong("must be an absolute path".to_owned());
            }
            INVALID_SEQUENCES
                .iter()
                .filter(|part| path.text().contains(**part))
                .for_each(|part| wrong(format!("must not contain '{part}'")));
            INVALID_SUFFIXES
                .iter()
                .filter(|part| path.text().ends_with(**part))
                .for_each(|part| wrong(format!("cannot end with '{part}'")));
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !absolute {
                wrong("must be an absolute path".to_owned());
            }
        }
        _ => errors.push(kind.not_supported(&PATH_TYPES)),
    }
    backend(&at.child("backend"), errors);
}

fn backend(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (service, resource) = (at.child("service"), at.child("resource"));
    let mut wrong = |detail: &str| errors.push(Error::invalid(&at.path, "", detail));
    match (resource.is_set(), service.is_set()) {
        (true, true) => wrong("cannot set both resource and service backends"),
        (false, false) => wrong("resource or service backend is required"),
        (true, false) => typed_reference(&resource, errors),
        (false, true) => service_backend(at, &service, errors),
    }
}

fn service_backend(at: &Cursor<'_>, service: &Cursor<'_>, errors: &mut Vec<Error>) {
    let name = service.child("name");
    match name.is_empty() {
        true => errors.push(name.required("")),
        false => complain(&name, format::dns1035_label(name.text()), errors),
    }
    let (port_name, number) =
        (service.descend(&["port", "name"]), service.descend(&["port", "number"]));
    match (!port_name.is_empty(), number.int_or_zero() != 0) {
        (true, true) => {
            errors.push(Error::invalid(&at.path, "", "cannot set both port name & port number"))
        }
        (true, false) => complain(&port_name, format::port_name(port_name.text()), errors),
        (false, true) => complain(&number, format::port_number(number.int_or_zero()), errors),
        (false, false) => errors.push(at.required("port name or number is required")),
    }
}

fn typed_reference(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let group = at.child("apiGroup");
    if group.is_set() {
        complain(&group, format::dns1123_subdomain(group.text()), errors);
    }
    for name in ["kind", "name"] {
        let field = at.child(name);
        match field.is_empty() {
            true => errors.push(field.required("")),
            false => complain(&field, format::path_segment(field.text()), errors),
        }
    }
}

/// An IngressClass.
pub fn class(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let controller = at.descend(&["spec", "controller"]);
    if controller.is_empty() {
        errors.push(controller.required(""));
    } else {
        if controller.len() > CONTROLLER_LENGTH_MAX {
            errors.push(Error::too_long(&controller.path, CONTROLLER_LENGTH_MAX));
        }
        domain_prefixed_path(&controller, errors);
    }
    let parameters = at.descend(&["spec", "parameters"]);
    if !parameters.is_set() {
        return;
    }
    typed_reference(&parameters, errors);
    let (scope, namespace) = (parameters.child("scope"), parameters.child("namespace"));
    match scope.text() {
        "" => errors.push(scope.required("")),
        "Cluster" if namespace.is_set() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        "Namespace" if namespace.is_empty() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => complain(&namespace, format::dns1123_label(namespace.text()), errors),
        "Cluster" => {}
        _ => errors.push(scope.not_supported(&["Cluster", "Namespace"])),
    }
}

/// The controller of an IngressClass stays.
pub fn class_update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    immutable(&at.descend(&["spec", "controller"]), &old.descend(&["spec", "controller"]), errors);
}

fn domain_prefixed_path(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let Some((host, path)) =
        at.text().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        errors.push(at.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    };
    let of = |part: &str, complaints: Vec<String>| {
        complaints
            .into_iter()
            .map(|complaint| Error::invalid(&at.path, part, complaint))
            .collect::<Vec<_>>()
    };
    errors.extend(of(host, format::dns1123_subdomain(host)));
    errors.extend(of(path, format::http_path(path)));
}
