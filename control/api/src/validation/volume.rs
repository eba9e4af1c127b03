//! Volumes: their names, exactly one source each, and the sources nodes here can mount. Sources of
//! cloud providers are only counted.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::decode::Quantity;
use crate::field::{Cursor, Error};

use super::{complain, container, format, quantities};

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const FIELD_PATHS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
const FILE_MODE_MAX: i64 = 0o777;
const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;

/// A pod's volumes, by name.
pub fn volumes<'a>(at: &Cursor<'a>, errors: &mut Vec<Error>) -> HashMap<&'a str, &'a Value> {
    let mut found = HashMap::new();
    for volume in at.items() {
        let name = volume.child("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            complain(&name, format::dns1123_label(name.text()), errors);
            if found.insert(name.text(), volume.value).is_some() {
                errors.push(name.duplicate());
            }
        }
        source(&volume, errors);
    }
    found
}

fn source(volume: &Cursor<'_>, errors: &mut Vec<Error>) {
    let sources = volume
        .map()
        .into_iter()
        .flatten()
        .filter(|(name, value)| *name != "name" && !value.is_null());
    let mut names: Vec<&str> = sources.map(|(name, _)| name.as_str()).collect();
    // Upstream looks at emptyDir and hostPath before the others.
    names.sort_by_key(|name| (*name != "emptyDir", *name != "hostPath"));
    let Some((first, others)) = names.split_first() else {
        errors.push(volume.required("must specify a volume type"));
        return;
    };
    errors.extend(
        others
            .iter()
            .map(|name| volume.child(name).forbidden("may not specify more than 1 volume type")),
    );
    let at = volume.child(first);
    match *first {
        "emptyDir" => empty_dir(&at, errors),
        "hostPath" => host_path(&at, errors),
        "secret" => {
            required_name(&at.child("secretName"), errors);
            files(&at, errors);
        }
        "configMap" => {
            required_name(&at.child("name"), errors);
            files(&at, errors);
        }
        "downwardAPI" => {
            mode(&at.child("defaultMode"), errors);
            downward_files(&at, errors);
        }
        "projected" => projected(&at, errors),
        "persistentVolumeClaim" => required_name(&at.child("claimName"), errors),
        "nfs" => nfs(&at, errors),
        "image" => required_name(&at.child("reference"), errors),
        _ => {}
    }
}

fn required_name(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if at.is_empty() {
        errors.push(at.required(""));
    }
}

fn empty_dir(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let limit = at.child("sizeLimit");
    if limit.text().parse::<Quantity>().is_ok_and(Quantity::is_negative) {
        errors.push(Error::forbidden(
            &limit.path,
            "SizeLimit field must be a valid resource quantity",
        ));
    }
}

fn host_path(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let path = at.child("path");
    if path.is_empty() {
        errors.push(path.required(""));
    } else if path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
    let kind = at.child("type");
    if !HOST_PATH_TYPES.contains(&kind.text()) {
        errors.push(kind.not_supported(&HOST_PATH_TYPES));
    }
}

fn nfs(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    required_name(&at.child("server"), errors);
    let path = at.child("path");
    required_name(&path, errors);
    if !path.is_empty() && !path.text().starts_with('/') {
        errors.push(path.invalid("must be an absolute path"));
    }
}

fn mode(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if at.int().is_some_and(|mode| !(0..=FILE_MODE_MAX).contains(&mode)) {
        errors.push(at.invalid(FILE_MODE));
    }
}

/// The files made of a ConfigMap's or Secret's keys.
fn files(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    mode(&at.child("defaultMode"), errors);
    let items = at.child("items");
    for item in items.items() {
        if item.child("key").is_empty() {
            errors.push(item.child("key").required(""));
        }
        file_path(&item.child("path"), errors);
        mode(&item.child("mode"), errors);
    }
}

fn file_path(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if at.is_empty() {
        errors.push(at.required(""));
        return;
    }
    container::descending_path(at.text(), &at.path, errors);
    if at.text().starts_with("..") && !at.text().starts_with("../") {
        errors.push(at.invalid("must not start with '..'"));
    }
}

fn downward_files(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for item in at.child("items").items() {
        file_path(&item.child("path"), errors);
        mode(&item.child("mode"), errors);
        let (field, resource) = (item.child("fieldRef"), item.child("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, true) => errors.push(
                item.invalid("fieldRef and resourceFieldRef can not be specified simultaneously"),
            ),
            (true, false) => container::field_ref(&field, &FIELD_PATHS, errors),
            (false, true) => quantities::resource_field(&resource, true, errors),
            (false, false) => {
                errors.push(item.required("one of fieldRef and resourceFieldRef is required"))
            }
        }
    }
}

fn projected(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    mode(&at.child("defaultMode"), errors);
    let mut paths = HashSet::new();
    for source in at.child("sources").items() {
        let kinds: Vec<&str> = source
            .map()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, _)| name.as_str())
            .collect();
        let Some((kind, others)) = kinds.split_first() else {
            errors.push(source.required("must specify a volume type"));
            continue;
        };
        errors.extend(others.iter().map(|name| {
            source.child(name).forbidden("may not specify more than 1 volume type per source")
        }));
        let projection = source.child(kind);
        match *kind {
            "secret" | "configMap" => {
                required_name(&projection.child("name"), errors);
                files(&projection, errors);
            }
            "downwardAPI" => downward_files(&projection, errors),
            "serviceAccountToken" => service_account_token(&projection, errors),
            _ => {}
        }
        let items = projection.child("items");
        let direct = (*kind == "serviceAccountToken").then(|| projection.child("path"));
        for path in items.items().map(|item| item.child("path")).chain(direct) {
            if !path.is_empty() && !paths.insert(path.text()) {
                errors.push(Error::invalid(
                    &projection.path,
                    path.text(),
                    "conflicting duplicate paths",
                ));
            }
        }
    }
}

fn service_account_token(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let seconds = at.child("expirationSeconds");
    if seconds.int().is_some_and(|seconds| seconds < TOKEN_SECONDS_MIN) {
        errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
    }
    if seconds.int().is_some_and(|seconds| seconds > 1 << 32) {
        errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
    }
    file_path(&at.child("path"), errors);
}
