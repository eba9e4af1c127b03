//! The image of these tests: a static C program in a `docker save` archive, under two names.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

const PROGRAM: &str = r#"
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void stop(int signal) { (void)signal; _exit(0); }
int main(int count, char **words) {
    signal(SIGTERM, stop);
    const char *what = count > 1 ? words[1] : "pause";
    if (!strcmp(what, "fail")) { fprintf(stderr, "failing\n"); return 3; }
    if (!strcmp(what, "print")) { puts(getenv("GREETING")); return 0; }
    if (!strcmp(what, "true")) return 0;
    if (!strcmp(what, "serve")) {
        int listener = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
        if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return 4;
        puts("serving"); fflush(stdout);
        for (;;) {
            int peer = accept(listener, 0, 0);
            char request[4096];
            if (read(peer, request, sizeof request) < 0) return 5;
            const char *answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            if (write(peer, answer, strlen(answer)) < 0) return 6;
            close(peer);
        }
    }
    for (;;) pause();
}
"#;

/// Compiles the program and writes the archive.
pub fn write_archive(dir: &Path) {
    let source = dir.join("program.c");
    let program = dir.join("program");
    fs::write(&source, PROGRAM).unwrap();
    let status =
        Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(&source).status();
    assert!(status.unwrap().success(), "cc -static");
    let mut layer = tar::Builder::new(Vec::new());
    let program = fs::read(program).unwrap();
    append(&mut layer, "program", 0o755, &program);
    let layer = layer.into_inner().unwrap();
    let digest: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/program"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "Layers": ["layer.tar"],
        "RepoTags": ["podium.local/pause:1", "podium.local/program:latest"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "config.json", 0o644, config.to_string().as_bytes());
    append(&mut archive, "layer.tar", 0o644, &layer);
    append(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes());
    let images = dir.join("images");
    fs::create_dir(&images).unwrap();
    fs::write(images.join("images.tar"), archive.into_inner().unwrap()).unwrap();
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(u64::try_from(content.len()).unwrap());
    header.set_mode(mode);
    header.set_cksum();
    archive.append_data(&mut header, path, content).unwrap();
}
