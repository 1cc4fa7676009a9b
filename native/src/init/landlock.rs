//! The Landlock domain of a box, entered once by the stem.

use super::root;
use crate::fault::{At, Fault, Outcome};
use crate::plan::Landlock;
use crate::sys::{fd, security};
use std::os::fd::AsRawFd;

/// What a file outside the rules answered, before and after the domain was entered: 0, or an errno.
pub struct Sentinel {
    pub before: i32,
    pub after: i32,
}

/// Enters the domain, and says what the sentinel answered.
///
/// In a root of its own a rule's path has no link, and one that has got there meanwhile is refused.
pub fn enter(landlock: &Landlock, bare: bool) -> Outcome<Sentinel> {
    enter_with(landlock, landlock.handled_fs, landlock.scoped, bare)
}

/// The same with what this kernel knows of it. None where it knows too little, and may.
pub fn enter_as_known(landlock: &Landlock) -> Outcome<Option<Sentinel>> {
    if landlock.abis.is_empty() {
        return enter(landlock, false).map(Some);
    }
    let abi = security::landlock_abi();
    match landlock.abis.iter().rfind(|one| one.abi <= abi) {
        Some(known) => {
            let (fs, scoped) = (landlock.handled_fs & known.handled_fs, landlock.scoped & known.scoped);
            enter_with(landlock, fs, scoped, false).map(Some)
        }
        None if landlock.optional => Ok(None),
        None => Err(Fault::new("landlock", format!("ABI {abi}"), libc::EOPNOTSUPP)),
    }
}

fn enter_with(landlock: &Landlock, handled_fs: u64, scoped: u64, bare: bool) -> Outcome<Sentinel> {
    let ruleset =
        security::landlock_ruleset(handled_fs, landlock.handled_net, scoped).at("landlock", "ruleset")?;
    let slash = fd::open("/", libc::O_PATH).at("landlock", "/")?;
    let top = slash.as_raw_fd();
    for rule in &landlock.rules {
        let beneath = if bare { fd::open(&rule.path, libc::O_PATH) } else { root::object(top, &rule.path) }
            .at("landlock", &rule.path)?;
        security::landlock_allow_beneath(ruleset.as_raw_fd(), beneath.as_raw_fd(), rule.access & handled_fs)
            .at("landlock", &rule.path)?;
    }
    let before = try_open(&landlock.sentinel);
    security::landlock_enter(ruleset.as_raw_fd(), 0).at("landlock", "restrict_self")?;
    Ok(Sentinel { before, after: try_open(&landlock.sentinel) })
}

fn try_open(path: &str) -> i32 {
    fd::open(path, libc::O_RDONLY).err().unwrap_or(0)
}
