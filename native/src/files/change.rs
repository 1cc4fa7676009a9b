//! Folders made, and things moved.

use super::{trouble, Step, Work};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

pub fn mkdir(path: &Path, mode: u32, parents: bool) -> Work<()> {
    if let (true, Some(above)) = (parents, path.parent()) {
        fs::create_dir_all(above).step("mkdir")?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => set_mode(path, mode),
        // With parents it is no error that something is there; it must be a folder.
        Err(error) if parents && error.kind() == io::ErrorKind::AlreadyExists => match fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            _ => trouble(libc::ENOTDIR, "mkdir"),
        },
        other => other.step("mkdir"),
    }
}

/// Whatever the umask is. By descriptor, so that no link that is swapped in leads to another folder.
fn set_mode(path: &Path, mode: u32) -> Work<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let folder = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).step("open")?;
    if folder.metadata().step("stat")?.mode() & 0o777 == mode {
        return Ok(());
    }
    let opened = format!("/proc/self/fd/{}", folder.as_raw_fd());
    fs::set_permissions(opened, fs::Permissions::from_mode(mode)).step("chmod")
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
