//! The Landlock domain of a box, entered once by the stem.

use super::root;
use crate::fault::{At, Outcome};
use crate::frame;
use crate::plan::Landlock;
use crate::sys::{fd, security};
use std::os::fd::AsRawFd;

/// Enters the domain, and appends to `report` what a file outside the rules answered before and after it.
///
/// In a root of its own a rule's path has no link, and one that has got there meanwhile is refused.
pub fn enter(landlock: &Landlock, bare: bool, report: &mut Vec<u8>) -> Outcome<()> {
    let ruleset = security::landlock_ruleset(landlock.handled_fs, landlock.handled_net, landlock.scoped)
        .at("landlock", "ruleset")?;
    let slash = fd::open("/", libc::O_PATH).at("landlock", "/")?;
    let top = slash.as_raw_fd();
    for rule in &landlock.rules {
        let beneath = if bare { fd::open(&rule.path, libc::O_PATH) } else { root::object(top, &rule.path) }
            .at("landlock", &rule.path)?;
        security::landlock_allow_beneath(ruleset.as_raw_fd(), beneath.as_raw_fd(), rule.access)
            .at("landlock", &rule.path)?;
    }
    frame::put_item(report, "sentinel.before", &try_open(&landlock.sentinel).to_le_bytes());
    security::landlock_enter(ruleset.as_raw_fd(), 0).at("landlock", "restrict_self")?;
    frame::put_item(report, "sentinel.after", &try_open(&landlock.sentinel).to_le_bytes());
    Ok(())
}

fn try_open(path: &str) -> i32 {
    fd::open(path, libc::O_RDONLY).err().unwrap_or(0)
}
