//! /proc, with what is the machine's own business out of its commands' reach: what a process without privileges could
//! still write as user 0, and what tells of more than the box. As the OCI's runtimes do.

use crate::fault::{At, Outcome};
use crate::sys::mount;

const FLAGS: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
const FROZEN: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const HIDDEN_FILES: [&str; 8] =
    ["interrupts", "kcore", "keys", "kmsg", "latency_stats", "sched_debug", "timer_list", "timer_stats"];
const HIDDEN_FOLDERS: [&str; 3] = ["acpi", "asound", "scsi"];

/// Below the root that is being made, which has its devices.
pub fn make(root: &str) -> Outcome<()> {
    let place = format!("{root}/proc");
    mount::mount_new("proc", &place, FLAGS, "").at("machine", "/proc")?;
    for name in FROZEN {
        let path = format!("{place}/{name}");
        if where_it_is(mount::bind(&path, &path, true)).at("freeze", name)? {
            mount::set_attributes_at(&path, mount::ATTR_RDONLY).at("freeze", name)?;
        }
    }
    let cover = |names: &[&str], cover: &str| {
        names.iter().try_for_each(|name| {
            let path = format!("{place}/{name}");
            where_it_is(mount::bind(&format!("{root}{cover}"), &path, false)).at("hide", *name).map(drop)
        })
    };
    cover(&HIDDEN_FILES, "/dev/null")?;
    cover(&HIDDEN_FOLDERS, "/.immure/empty")?;
    for name in HIDDEN_FOLDERS {
        // The root below it is not sealed yet.
        where_it_is(mount::set_attributes_at(&format!("{place}/{name}"), mount::ATTR_RDONLY))
            .at("hide", name)?;
    }
    Ok(())
}

/// Not every kernel has each of them.
fn where_it_is(done: Result<(), i32>) -> Result<bool, i32> {
    match done {
        Ok(()) => Ok(true),
        Err(libc::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
