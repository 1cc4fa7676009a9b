//! Folders made, things removed and moved.

use super::{trouble, Step, Work};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

pub fn mkdir(path: &Path, mode: u32, parents: bool) -> Work<()> {
    fs::DirBuilder::new().mode(mode).recursive(parents).create(path).step("mkdir")?;
    // With parents it is no error that something is there; it must be a folder.
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        _ => trouble(libc::ENOTDIR, "mkdir"),
    }
}

/// Never follows a link: the standard library goes by descriptors, so that nothing can be swapped under it.
pub fn remove(path: &Path, recursive: bool) -> Work<()> {
    let found = fs::symlink_metadata(path).step("stat")?;
    match (found.is_dir(), recursive) {
        (false, _) => fs::remove_file(path).step("remove"),
        (true, false) => fs::remove_dir(path).step("remove"),
        (true, true) => fs::remove_dir_all(path).step("remove"),
    }
}

pub fn move_to(from: &Path, to: &Path, replace: bool) -> Work<()> {
    if replace {
        return fs::rename(from, to).step("rename");
    }
    let (Ok(from), Ok(to)) =
        (crate::sys::cstr(from.as_os_str().as_bytes()), crate::sys::cstr(to.as_os_str().as_bytes()))
    else {
        return trouble(libc::EINVAL, "rename");
    };
    // SAFETY: C strings.
    let done = crate::sys::check(unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    });
    done.map(drop).map_err(std::io::Error::from_raw_os_error).step("rename")
}
