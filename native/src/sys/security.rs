//! Capabilities, seccomp and Landlock.

use super::{check, cstr, Sys};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets effective and permitted to `keep`, and inheritable to `inheritable`.
pub fn set_capabilities(keep: u64, inheritable: u64) -> Sys<()> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (keep >> shift) as u32,
        permitted: (keep >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) }).map(drop)
}

/// Makes all permitted capabilities effective ones.
pub fn make_permitted_effective() -> Sys<()> {
    change_capabilities(|_, half| half.effective = half.permitted)
}

/// The same, and makes these inheritable.
pub fn make_inheritable(keep: u64) -> Sys<()> {
    change_capabilities(|place, half| {
        half.effective = half.permitted;
        half.inheritable = (keep >> (32 * place)) as u32;
    })
}

/// The inheritable set.
pub fn inheritable() -> Sys<u64> {
    let [low, high] = capabilities()?;
    Ok(u64::from(low.inheritable) | u64::from(high.inheritable) << 32)
}

fn capabilities() -> Sys<[CapData; 2]> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let mut data = [CapData { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: `data` is valid for writing.
    check(unsafe { libc::syscall(libc::SYS_capget, &header, data.as_mut_ptr()) })?;
    Ok(data)
}

fn change_capabilities(change: impl Fn(usize, &mut CapData)) -> Sys<()> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let mut data = capabilities()?;
    for (place, half) in data.iter_mut().enumerate() {
        change(place, half);
    }
    // SAFETY: both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) }).map(drop)
}

/// Installs one classic BPF program of packed `struct sock_filter`s.
pub fn install_filter(program: &[u8], flags: u32) -> Sys<()> {
    let header = libc::sock_fprog {
        len: (program.len() / 8) as u16,
        filter: program.as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: the kernel copies the program, at any alignment.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &header) })
        .map(drop)
}

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// A new ruleset. An older kernel accepts the longer structure as long as what it does not know is zero.
pub fn landlock_ruleset(fs: u64, net: u64, scoped: u64) -> Sys<OwnedFd> {
    let attributes = RulesetAttr { handled_access_fs: fs, handled_access_net: net, scoped };
    // SAFETY: `attributes` outlives the call; the descriptor is new.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &attributes, std::mem::size_of::<RulesetAttr>(), 0)
    })
    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The kernel's ABI, or 0 where it has no Landlock, or none that is switched on.
pub fn landlock_abi() -> u32 {
    const VERSION: u32 = 1;
    let none = std::ptr::null::<RulesetAttr>();
    // SAFETY: no memory is passed.
    let abi = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) });
    abi.map_or(0, |abi| abi as u32)
}

pub fn landlock_allow_beneath(ruleset: RawFd, parent: RawFd, access: u64) -> Sys<()> {
    let rule = PathBeneath { allowed_access: access, parent_fd: parent };
    // SAFETY: `rule` outlives the call.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, 1, &rule, 0) }).map(drop)
}

pub fn landlock_enter(ruleset: RawFd, flags: u32) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, flags) }).map(drop)
}

/// A new, empty session keyring, so that the caller's is out of reach.
pub fn new_session_keyring(name: &str) -> Sys<()> {
    let name = cstr(name)?;
    // SAFETY: `name` outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
        .map(drop)
}
