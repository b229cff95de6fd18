//! A secret that Backstop hands to its tools appears in no log, no catalog, no answer and no argument list.

use std::fs;

use crate::harness::{Extra, Lab, Site, until_true};

const PASSPHRASE: &str = "s3cr3t-of-repo-one/+=x";

#[test]
fn a_passphrase_is_nowhere_but_in_its_file_and_the_tools_environment() {
    let lab = Lab::up(&["--size", "0", "--process-max", "1", "--compress", "gz:9", "--cipher-pass", PASSPHRASE]);
    lab.sql("create table filler as select md5(n::text) from generate_series(1, 600000) n");
    // The server's archive-push has a configuration with the passphrase; ours comes from the policy's reference.
    lab.run("grep -v cipher-pass pgbackrest.conf > ours.conf");
    lab.run(&format!("umask 077 && printf '%s\\n' '{PASSPHRASE}' > passphrase"));
    lab.run("printf '#!/bin/sh\\nenv\\nenv >&2\\nexit 1\\n' > leaky && chmod 755 leaky");
    let dir = lab.dir().display().to_string();
    let secret = format!("secrets = {{ PGBACKREST_REPO1_CIPHER_PASS = \"file:{dir}/passphrase\" }}");
    let with = |binary: &str| format!(", config = \"{dir}/ours.conf\", {secret}{binary}");
    let site = Site::with(&lab, &Extra { config: false, pgbackrest: &with(""), ..Extra::default() });

    let daemon = site.daemon();
    let seen = std::thread::scope(|scope| {
        let backup = scope.spawn(|| site.run(&["backup", "orders", "--type", "full"]));
        let mut seen = Vec::new();
        until_true("the backup ends", || {
            seen.extend(lab.processes("").into_iter().filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok()));
            backup.is_finished()
        });
        backup.join().unwrap().ok();
        seen
    });
    assert!(seen.len() > 3);
    assert!(seen.iter().all(|arguments| !has_secret(arguments)), "the passphrase is an argument");
    site.run(&["wal", "orders"]);
    site.run(&["test-restore", "orders"]).ok();

    // A tool that prints its whole environment and fails: the worst that can end in a log or an error.
    site.rewrite(&Extra {
        config: false,
        pgbackrest: &with(&format!(", binary = \"{dir}/leaky\"")),
        ..Extra::default()
    });
    let answer = site.run(&["backup", "orders", "--type", "full"]);
    assert_ne!(answer.code, 0);
    assert!(!has_secret(format!("{answer:?}").as_bytes()), "{answer:?}");
    let log = daemon.log();
    daemon.stop();
    assert!(!has_secret(log.as_bytes()), "{log}");
    for (path, _, _) in site.files() {
        let bytes = fs::read(&path).unwrap_or_default();
        assert!(!has_secret(&bytes), "the passphrase is in {}", path.display());
    }
}

#[test]
fn a_secret_file_that_others_may_read_is_refused() {
    let lab = Lab::empty();
    lab.run("echo x > passphrase && chmod 644 passphrase");
    let secret =
        format!(", secrets = {{ PGBACKREST_REPO1_CIPHER_PASS = \"file:{}/passphrase\" }}", lab.dir().display());
    let site = Site::with(&lab, &Extra { pgbackrest: &secret, ..Extra::default() });
    let told = site.run(&["backup", "orders", "--type", "full"]).fails(1);
    assert!(told.contains("passphrase"), "{told}");
}

/// Looks for the passphrase as it is, percent-encoded and in base64.
fn has_secret(bytes: &[u8]) -> bool {
    let forms = [PASSPHRASE, "s3cr3t-of-repo-one%2F%2B%3Dx", "czNjcjN0LW9mLXJlcG8tb25lLys9e"];
    forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form.as_bytes()))
}
