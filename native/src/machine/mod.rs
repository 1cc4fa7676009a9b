//! The first process of a virtual machine: makes the box's root out of a block device, and becomes its guest.
//!
//! The kernel starts it as /init of an initramfs that holds nothing else. Its word to the host before the channel is
//! there is the console, which is where the kernel's own goes.

mod channel;
mod devices;
mod disk;
mod modules;
mod moment;
mod proc;
mod root;

use crate::fault::{At, Fault, Outcome};
use crate::guest;
use crate::sys::{mount, namespace, process};
pub use disk::mount as mount_disk;
pub use moment::set as set_moment;
use std::time::{Duration, Instant};

/// On the kernel's command line: how the channel is found, the image's device, and the image's file system. Whoever
/// boots a machine may have words of its own behind ours, so that these can't be arguments.
const CHANNEL: &str = "IMMURE_CHANNEL";
const DISK: &str = "IMMURE_DISK";
const FORMAT: &str = "IMMURE_FORMAT";
/// Where there are any, the device with what the user's mounts are to show, of the same file system.
const MOUNTS: &str = "IMMURE_MOUNTS";

/// In the initramfs: where the box's root is put together.
const ROOT: &str = "/root";
/// How long a device may take to be found, and how often to look for it.
const DEVICE_S: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(1);

/// Whether a kernel has started this process, and no other process has.
pub fn is_ours() -> bool {
    std::process::id() == 1 && std::env::args().next().as_deref() == Some("/init")
}

/// Never returns.
pub fn run() -> ! {
    match begin() {
        Ok(way) => guest::serve_machine(way, stop),
        Err(fault) => {
            eprintln!("immure-init: {fault}");
            stop(1)
        }
    }
}

/// The end of the machine: what boots it is told not to do so again.
fn stop(_: i32) -> ! {
    process::reboot();
    process::exit(1)
}

fn begin() -> Outcome<guest::Way> {
    let (address, disk, kind) = (&said(CHANNEL)?, &said(DISK)?, &said(FORMAT)?);
    modules::load()?;
    mount::mount_new("devtmpfs", "/dev", 0, "").at("machine", "/dev")?;
    root::make(disk, kind, ROOT)?;
    if let Ok(mounts) = said(MOUNTS) {
        root::add_mounts(&mounts, kind, ROOT)?;
    }
    let channel = channel::open(address)?;
    devices::make(&format!("{ROOT}/dev"))?;
    proc::make(ROOT)?;
    root::seal(ROOT)?;
    namespace::loopback_up().at("machine", "lo")?;
    mount::become_root(ROOT).at("machine", ROOT)?;
    Ok(channel)
}

/// What the kernel does not know of its command line it hands on so.
fn said(name: &str) -> Outcome<String> {
    std::env::var(name).map_err(|_| Fault::new("machine", name, libc::EINVAL))
}

/// Devices are found beside the start of this process.
fn wait_for<T>(look: impl Fn() -> Result<T, i32>) -> Result<T, i32> {
    let until = Instant::now() + DEVICE_S;
    loop {
        match look() {
            Err(libc::ENOENT | libc::ENXIO | libc::ENODEV) if Instant::now() < until => {
                std::thread::sleep(LOOK)
            }
            other => return other,
        }
    }
}
