//! Container images without a registry: one OCI image layout (image-spec 1.0) in a tar archive, every
//! image with the same layer, a static program under several names. Byte for byte reproducible.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Where the program lies in every image; the other names point to it.
const PROGRAM: &str = "bin/testserver";
/// Annotation that containerd takes the name of an imported image from.
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// One image: its full name and the command it runs.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Name with registry and tag, as containerd stores it.
    pub name: &'static str,
    /// Program and first arguments, which a pod's `args` do not replace.
    pub entrypoint: &'static [&'static str],
    /// Arguments, which a pod's `args` replace.
    pub cmd: &'static [&'static str],
}

/// The images the examples and the tests use.
pub const IMAGES: &[Image] = &[
    Image { name: "podium.local/pause:1", entrypoint: &["/pause"], cmd: &[] },
    Image {
        name: "docker.io/library/user-interface:1.0",
        entrypoint: &["/bin/testserver"],
        cmd: &["serve", "--port", "80", "--name", "user-interface"],
    },
    Image {
        name: "docker.io/library/gateway:1.0",
        entrypoint: &["/bin/testserver"],
        cmd: &["gateway", "--port", "80", "--name", "gateway"],
    },
    Image {
        name: "docker.io/library/ml-serving:1.0",
        entrypoint: &["/bin/testserver"],
        cmd: &["serve", "--port", "80", "--name", "ml-serving"],
    },
    Image { name: "docker.io/library/ml-development:1.2.1", entrypoint: &[], cmd: &["python"] },
    Image { name: "docker.io/library/hello-world:latest", entrypoint: &[], cmd: &["/hello"] },
    Image {
        name: "docker.io/library/nginx:latest",
        entrypoint: &["/bin/testserver"],
        cmd: &["serve", "--port", "80", "--name", "nginx"],
    },
    Image {
        name: "docker.io/library/testserver:latest",
        entrypoint: &["/bin/testserver"],
        cmd: &["serve", "--port", "80", "--name", "testserver"],
    },
];

/// Writes the archive of `images` around the static program at `binary`.
///
/// # Errors
/// When the program cannot be read or the archive cannot be written.
pub fn write_archive(path: &Path, binary: &Path, images: &[Image]) -> anyhow::Result<()> {
    let program = fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
    let bytes = archive(&program, images)?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    // A node may be reading the folder: the archive appears whole or not at all.
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, bytes).with_context(|| format!("write {}", unfinished.display()))?;
    fs::rename(&unfinished, path).with_context(|| format!("rename to {}", path.display()))
}

fn archive(program: &[u8], images: &[Image]) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    add_file(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let layer = layer(program)?;
    let mut manifests = Vec::new();
    let mut blobs = vec![layer.clone()];
    for image in images {
        let config = serde_json::to_vec(&config(image, &layer))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        }))?;
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({ NAME_ANNOTATION: image.name });
        manifests.push(entry);
        blobs.extend([config, manifest]);
    }
    blobs.sort();
    blobs.dedup();
    for blob in &blobs {
        add_file(&mut tar, &format!("blobs/sha256/{}", sha256_hex(blob)), 0o644, blob)?;
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    add_file(&mut tar, "index.json", 0o644, &serde_json::to_vec(&index)?)?;
    tar.into_inner().context("finish the image archive")
}

fn config(image: &Image, layer: &[u8]) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "Entrypoint": image.entrypoint,
            "Cmd": image.cmd,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256_hex(layer))]},
    })
}

fn layer(program: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (dir, mode) in
        [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777), ("usr/", 0o755), ("usr/bin/", 0o755)]
    {
        let mut header = header(tar::EntryType::Directory, mode);
        tar.append_data(&mut header, dir, std::io::empty())?;
    }
    add_file(&mut tar, PROGRAM, 0o755, program)?;
    add_file(
        &mut tar,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    add_file(&mut tar, "etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    for link in ["hello", "pause", "usr/bin/python"] {
        let mut header = header(tar::EntryType::Symlink, 0o777);
        tar.append_link(&mut header, link, format!("/{PROGRAM}"))?;
    }
    tar.into_inner().context("finish the image layer")
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

fn add_file<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    content: &[u8],
) -> anyhow::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).with_context(|| format!("add {path}"))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", sha256_hex(content)),
        "size": content.len(),
    })
}

fn sha256_hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect()
    }

    #[test]
    fn every_digest_names_a_blob() {
        let first = archive(b"program", IMAGES).unwrap();
        assert_eq!(first, archive(b"program", IMAGES).unwrap(), "not reproducible");
        let files = files(&first);
        let blob = |digest: &Value| {
            let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
            let content = &files[&format!("blobs/sha256/{hex}")];
            assert_eq!(sha256_hex(content), hex);
            content.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifests = index["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), IMAGES.len());
        for (entry, image) in manifests.iter().zip(IMAGES) {
            assert_eq!(entry["annotations"][NAME_ANNOTATION], image.name);
            let manifest: Value = serde_json::from_slice(&blob(&entry["digest"])).unwrap();
            let layer = blob(&manifest["layers"][0]["digest"]);
            let config: Value =
                serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
            assert_eq!(super::tests::files(&layer)[PROGRAM], b"program");
        }
    }
}
