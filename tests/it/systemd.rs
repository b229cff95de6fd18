//! What the daemon tells systemd, heard on a socket in systemd's place.

use std::{
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::harness::{Daemon, Lab, Site, until};

#[test]
fn systemd_hears_of_readiness_reload_life_and_end() {
    let lab = Lab::empty();
    let site = Site::new(&lab, r#"schedule = { full = "0 2 * * SUN" }"#);
    let path = lab.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut heard = Vec::new();
    let mut hear = |what: &str| {
        until(&format!("systemd hears {what}"), || {
            let mut buffer = [0; 4096];
            if let Ok(length) = socket.recv(&mut buffer) {
                heard.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
            }
            let found = heard.iter().position(|line| line.contains(what))?;
            heard.drain(..=found);
            Some(())
        });
    };

    let notify = path.to_str().unwrap();
    let mut daemon = Daemon::start(&site, &[("NOTIFY_SOCKET", notify), ("WATCHDOG_USEC", "1000000")]);
    hear("READY=1");
    hear("; next at ");
    hear("WATCHDOG=1");
    daemon.signal(Signal::SIGHUP);
    hear("RELOADING=1");
    hear("READY=1");
    daemon.signal(Signal::SIGUSR1);
    daemon.signal(Signal::SIGTERM);
    hear("STOPPING=1");
    assert!(daemon.ended().success());
}
