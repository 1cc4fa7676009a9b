//! Mounts: the file-descriptor interface of Linux 5.2 and mount_setattr of 5.12.

use super::{check, cstr, Sys};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub const ATTR_RDONLY: u64 = 0x01;
pub const ATTR_NOSUID: u64 = 0x02;
pub const ATTR_IDMAP: u64 = 0x0010_0000;

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn own(fd: i64) -> OwnedFd {
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// A detached copy of the mount at `path` below `dir` (an empty path means `dir` itself).
pub fn open_tree(dir: RawFd, path: &str, recursive: bool) -> Sys<OwnedFd> {
    clone_tree(dir, path, recursive, libc::AT_EMPTY_PATH as u32)
}

/// The same, but a symbolic link at the end of `path` is not followed: the copy is of the link.
pub fn open_tree_itself(dir: RawFd, path: &str, recursive: bool) -> Sys<OwnedFd> {
    clone_tree(dir, path, recursive, libc::AT_SYMLINK_NOFOLLOW as u32)
}

fn clone_tree(dir: RawFd, path: &str, recursive: bool, flags: u32) -> Sys<OwnedFd> {
    let path = cstr(path)?;
    let mut flags = flags | OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: `path` outlives the call.
    check(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) }).map(own)
}

/// Sets attributes of a detached tree; with ATTR_IDMAP `userns` gives the map.
pub fn set_attributes(tree: RawFd, set: u64, userns: Option<RawFd>) -> Sys<()> {
    let userns_fd = userns.unwrap_or(0) as u64;
    let attributes = MountAttr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd };
    change_attributes(tree, c"", libc::AT_EMPTY_PATH as u32 | AT_RECURSIVE, &attributes)
}

fn change_attributes(dir: RawFd, path: &CStr, flags: u32, attributes: &MountAttr) -> Sys<()> {
    let size = std::mem::size_of::<MountAttr>();
    // SAFETY: both pointers outlive the call.
    check(unsafe { libc::syscall(libc::SYS_mount_setattr, dir, path.as_ptr(), flags, attributes, size) })
        .map(drop)
}

/// Attaches a detached mount on the object that `target` refers to.
pub fn attach(tree: RawFd, target: RawFd) -> Sys<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: the empty strings are static.
    check(unsafe { libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), target, c"".as_ptr(), flags) })
        .map(drop)
}

/// mount(2) of a new file system. `options` are comma-separated.
pub fn mount_new(kind: &str, target: &str, flags: u64, options: &str) -> Sys<()> {
    let (kind, target, options) = (cstr(kind)?, cstr(target)?, cstr(options)?);
    // SAFETY: all strings outlive the call.
    check(unsafe {
        libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
    } as i64)
    .map(drop)
}

/// mount(2) of a block device. `options` are comma-separated.
pub fn mount_device(device: &str, target: &str, kind: &str, flags: u64, options: &str) -> Sys<()> {
    let (device, target, kind, options) = (cstr(device)?, cstr(target)?, cstr(kind)?, cstr(options)?);
    // SAFETY: all strings outlive the call.
    check(unsafe {
        libc::mount(device.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
    } as i64)
    .map(drop)
}

/// What is mounted there takes the place of the root of an initramfs, which can't be pivoted from.
pub fn become_root(path: &str) -> Sys<()> {
    let (path, null) = (cstr(path)?, std::ptr::null());
    // SAFETY: all strings outlive the calls, the rest is null.
    unsafe {
        check(libc::chdir(path.as_ptr()) as i64)?;
        check(libc::mount(c".".as_ptr(), c"/".as_ptr(), null, libc::MS_MOVE, null.cast()) as i64)?;
        check(libc::chroot(c".".as_ptr()) as i64)?;
        check(libc::chdir(c"/".as_ptr()) as i64).map(drop)
    }
}

/// mount(2) with MS_BIND.
pub fn bind(source: &str, target: &str, recursive: bool) -> Sys<()> {
    let (source, target) = (cstr(source)?, cstr(target)?);
    let flags = libc::MS_BIND | if recursive { libc::MS_REC } else { 0 };
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: both strings outlive the call.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), null, flags, null.cast()) } as i64).map(drop)
}

/// umount2(2) with MNT_DETACH: what is in use, or bound elsewhere, stays as it is.
pub fn detach(path: &str) -> Sys<()> {
    let path = cstr(path)?;
    // SAFETY: `path` outlives the call.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } as i64).map(drop)
}

/// Sets attributes of an attached mount and of those below it.
pub fn set_attributes_at(path: &str, set: u64) -> Sys<()> {
    set_attributes_of(path, AT_RECURSIVE, set, 0)
}

/// The same, of this mount alone.
pub fn set_attributes_at_alone(path: &str, set: u64) -> Sys<()> {
    set_attributes_of(path, 0, set, 0)
}

/// Takes attributes of an attached mount away, of this mount alone.
pub fn clear_attributes_at_alone(path: &str, clear: u64) -> Sys<()> {
    set_attributes_of(path, 0, 0, clear)
}

fn set_attributes_of(path: &str, flags: u32, set: u64, clear: u64) -> Sys<()> {
    let attributes = MountAttr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    change_attributes(libc::AT_FDCWD, &cstr(path)?, flags, &attributes)
}

/// A new, detached mount of a file system. An option is `key=value` or `flag`.
pub fn new_filesystem(kind: &str, options: &[String], attributes: u64) -> Sys<OwnedFd> {
    let name = cstr(kind)?;
    // SAFETY: `name` outlives the call.
    let context = own(check(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), 1) })?);
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => configure(context.as_raw_fd(), FSCONFIG_SET_STRING, key, Some(value))?,
            None => configure(context.as_raw_fd(), FSCONFIG_SET_FLAG, option, None)?,
        }
    }
    command(context.as_raw_fd(), FSCONFIG_CMD_CREATE)?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attributes) }).map(own)
}

/// Makes the *superblock* of a mount read-only, so that no remount in a child namespace can undo it.
pub fn seal_filesystem(mount: RawFd) -> Sys<()> {
    // SAFETY: the empty string is static.
    let context = own(check(unsafe {
        libc::syscall(
            libc::SYS_fspick,
            mount,
            c"".as_ptr(),
            0x1 | 0x8, /* FSPICK_CLOEXEC | FSPICK_EMPTY_PATH */
        )
    })?);
    configure(context.as_raw_fd(), FSCONFIG_SET_FLAG, "ro", None)?;
    command(context.as_raw_fd(), FSCONFIG_CMD_RECONFIGURE)
}

fn configure(context: RawFd, kind: u32, key: &str, value: Option<&str>) -> Sys<()> {
    let key = cstr(key)?;
    let value = value.map(cstr).transpose()?;
    let pointer = value.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: both strings outlive the call.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context, kind, key.as_ptr(), pointer, 0) }).map(drop)
}

fn command(context: RawFd, command: u32) -> Sys<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: these commands take no strings.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context, command, null, null, 0) }).map(drop)
}

/// Makes every mount of this namespace private or slave.
pub fn set_propagation(flag: u64) -> Sys<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the target is static, the rest is null.
    check(unsafe { libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | flag, null.cast()) } as i64)
        .map(drop)
}

/// The working directory becomes the root and the old root is detached.
pub fn pivot_here() -> Sys<()> {
    // SAFETY: static strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: static string. "." is now the old root, stacked on the new one.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) } as i64)?;
    // SAFETY: static string.
    check(unsafe { libc::chdir(c"/".as_ptr()) } as i64).map(drop)
}
