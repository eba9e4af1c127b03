//! Single packages of another Debian suite, fetched by apt with lists and caches of its own and
//! unpacked into a folder: nothing of the system changes. The archive's address and keys are those
//! of the machine's own sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::build;

const SOURCES_DIR: &str = "/etc/apt";
const DEFAULT_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt that works in a folder of its own.
pub struct Private {
    dir: PathBuf,
    archive: Archive,
}

/// A package archive: where it is and by whose keys it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Archive {
    uri: String,
    signed_by: Option<String>,
}

impl Private {
    /// Reads the machine's sources.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let archive = machine_archive()?;
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self { dir: dir.to_path_buf(), archive })
    }

    /// Downloads a package (`name` or `name=version`, where `*` matches) of a suite and unpacks it.
    pub fn unpack(&self, suite: &str, package: &str, into: &Path) -> anyhow::Result<()> {
        let place = self.dir.join(suite);
        for folder in ["lists/partial", "cache/archives/partial", "download"] {
            let path = place.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        self.update(suite, &place)?;
        let download = place.join("download");
        build::run(self.apt_get(&place).current_dir(&download).args(["download", package]))?;
        let debs = fs::read_dir(&download).context("read the download folder")?.flatten();
        let mut debs = debs
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let Some(deb) = debs.next() else { bail!("apt-get downloaded nothing for {package}") };
        fs::create_dir_all(into).with_context(|| format!("create {}", into.display()))?;
        build::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into))?;
        fs::remove_file(&deb).with_context(|| format!("remove {}", deb.display()))
    }

    /// Fetches the suite's lists, once in the life of the folder.
    fn update(&self, suite: &str, place: &Path) -> anyhow::Result<()> {
        let sources = place.join("sources.list");
        let keyring = self.archive.signed_by.as_deref().unwrap_or(DEFAULT_KEYRING);
        let line = format!("deb [signed-by={keyring}] {} {suite} main\n", self.archive.uri);
        let unchanged = fs::read_to_string(&sources).is_ok_and(|text| text == line);
        let updated = place.join("updated");
        if unchanged && updated.exists() {
            return Ok(());
        }
        fs::write(&sources, line).with_context(|| format!("write {}", sources.display()))?;
        build::run(self.apt_get(place).args(["update", "--quiet"]))?;
        fs::write(&updated, "").with_context(|| format!("write {}", updated.display()))
    }

    fn apt_get(&self, place: &Path) -> Command {
        let mut command = Command::new("apt-get");
        let paths = [
            ("Dir::Etc::sourcelist", place.join("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::State::lists", place.join("lists")),
            ("Dir::Cache", place.join("cache")),
        ];
        for (option, path) in paths {
            command.arg("-o").arg(format!("{option}={}", path.display()));
        }
        for index in ["DEP-11", "Translations"] {
            command.args([
                "-o",
                &format!("Acquire::IndexTargets::deb::{index}::DefaultEnabled=false"),
            ]);
        }
        // The folder may be below a home that apt's own user cannot enter.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }
}

/// The Debian archive in the machine's sources.
fn machine_archive() -> anyhow::Result<Archive> {
    let dir = Path::new(SOURCES_DIR);
    let mut files = vec![dir.join("sources.list")];
    let parts = fs::read_dir(dir.join("sources.list.d")).into_iter().flatten().flatten();
    let mut parts: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    parts.sort();
    files.extend(parts);
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => deb822_archives(&text),
            Some("list") => one_line_archives(&text),
            _ => Vec::new(),
        };
        if let Some(archive) = found.into_iter().find(is_debian) {
            return Ok(archive);
        }
    }
    bail!("no Debian archive in the sources below {SOURCES_DIR}")
}

/// Every mirror has the archive in a folder of this name; security and ports have others.
fn is_debian(archive: &Archive) -> bool {
    archive.uri.trim_end_matches('/').rsplit('/').next() == Some("debian")
}

/// Stanzas of sources.list(5)'s deb822 style.
fn deb822_archives(text: &str) -> Vec<Archive> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .filter_map(|stanza| {
            let field = |wanted: &str| {
                let pairs = stanza.iter().filter_map(|line| line.split_once(':'));
                let mut own = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
                own.next().map(|(_, value)| value.trim())
            };
            let uri = field("URIs")?.split_whitespace().next()?.to_owned();
            let signed_by = field("Signed-By").filter(|path| path.starts_with('/'));
            Some(Archive { uri, signed_by: signed_by.map(str::to_owned) })
        })
        .collect()
}

/// Lines of sources.list(5)'s one-line style.
fn one_line_archives(text: &str) -> Vec<Archive> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("deb "));
    lines
        .filter_map(|line| {
            let line = line.trim_start();
            let (options, rest) = match line.strip_prefix('[') {
                Some(inside) => inside.split_once(']')?,
                None => ("", line),
            };
            let uri = rest.split_whitespace().next()?.to_owned();
            let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
            Some(Archive { uri, signed_by: signed_by.map(str::to_owned) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(uri: &str, signed_by: Option<&str>) -> Archive {
        Archive { uri: uri.to_owned(), signed_by: signed_by.map(str::to_owned) }
    }

    #[test]
    fn reads_both_styles() {
        let deb822 = "Types: deb\n# a snapshot\nURIs: http://mirror.example/debian\n\
                      Suites: bookworm\nSigned-By: /k.gpg\n\n\
                      Types: deb\nURIs: http://mirror.example/debian-security\n";
        assert_eq!(
            deb822_archives(deb822),
            [
                archive("http://mirror.example/debian", Some("/k.gpg")),
                archive("http://mirror.example/debian-security", None)
            ]
        );
        let lines = "# deb http://old.example/debian x main\n\
                     deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n\
                     deb http://other.example/apt stable main\n";
        let found = one_line_archives(lines);
        assert_eq!(found[0], archive("http://mirror.example/debian/", Some("/k.gpg")));
        assert_eq!(found.iter().map(is_debian).collect::<Vec<_>>(), [true, false]);
    }
}
