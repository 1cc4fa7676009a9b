//! Modules of the kernel that the initramfs brings: devices and file systems that are not built in.

use crate::fault::{At, Fault, Outcome};
use crate::sys::{fd, process};
use std::fs;
use std::os::fd::AsRawFd;

/// In the order of their names. Their memory is needed no more then.
const MODULES: &str = "/modules";

pub fn load() -> Outcome<()> {
    let Ok(found) = fs::read_dir(MODULES) else {
        return Ok(());
    };
    let mut paths: Vec<_> = found.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in &paths {
        let path = path.to_str().ok_or_else(|| Fault::new("modules", MODULES, libc::EILSEQ))?;
        let file = fd::open(path, libc::O_RDONLY).at("modules", path)?;
        match process::load_module(file.as_raw_fd()) {
            // Another one has brought it.
            Ok(()) | Err(libc::EEXIST) => fd::unlink_at(libc::AT_FDCWD, path, 0).at("modules", path)?,
            Err(errno) => return Err(Fault::new("modules", path, errno)),
        }
    }
    Ok(())
}
