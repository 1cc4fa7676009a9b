//! The machine's channel to its host, by how the kernel's command line names it.

use super::wait_for;
use crate::fault::{At, Fault, Outcome};
use crate::guest::Way;
use crate::sys::{fd, mount, vsock, Sys};
use std::os::fd::OwnedFd;

const PORTS: &str = "/sys/class/virtio-ports";
const SYS: &str = "/sys";

/// `port:NAME` is a port of a virtio console; `vsock:PORT` is where the host connects to, and again after a restore.
pub fn open(address: &str) -> Outcome<Way> {
    match address.split_once(':') {
        Some(("port", name)) => port(name).map(Way::Stream),
        Some(("vsock", number)) => {
            let number = number.parse().map_err(|_| Fault::new("channel", address, libc::EINVAL))?;
            vsock::listen(number).at("channel", address).map(Way::Listener)
        }
        _ => Err(Fault::new("channel", address, libc::EINVAL)),
    }
}

fn port(name: &str) -> Outcome<OwnedFd> {
    // What a port is called stands there alone; the box has none.
    mount::mount_new("sysfs", SYS, 0, "").at("channel", SYS)?;
    let opened = wait_for(|| fd::open(format!("/dev/{}", port_called(name)?), libc::O_RDWR));
    mount::detach(SYS).at("channel", SYS)?;
    opened.at("channel", name)
}

fn port_called(name: &str) -> Sys<String> {
    let ports = std::fs::read_dir(PORTS).map_err(|_| libc::ENOENT)?;
    for port in ports.flatten() {
        let told = std::fs::read_to_string(port.path().join("name"));
        if told.is_ok_and(|told| told.trim_end() == name) {
            return port.file_name().into_string().map_err(|_| libc::EILSEQ);
        }
    }
    Err(libc::ENOENT)
}
