//! What a machine's root has beside its image, made while nothing runs in it: files that tell of this box, and places
//! where mounts are to stand.

use crate::fault::{At, Fault, Outcome};
use crate::init::root;
use crate::plan::TemplateOp;
use crate::sys::{fd, mount};
use std::os::fd::{AsRawFd, OwnedFd};

/// The root is open for as long as this takes, and sealed again even where it fails.
pub fn add(operations: &[TemplateOp]) -> Outcome<()> {
    if operations.is_empty() {
        return Ok(());
    }
    let top = fd::open("/", libc::O_PATH | libc::O_DIRECTORY).at("furnish", "/")?;
    mount::clear_attributes_at_alone("/", mount::ATTR_RDONLY).at("furnish", "/")?;
    let outcome = operations.iter().try_for_each(|operation| carry_out(operation, &top));
    mount::set_attributes_at_alone("/", mount::ATTR_RDONLY).at("furnish", "/")?;
    outcome
}

/// No link of the image is followed, and what stands in the way of a file goes.
fn carry_out(operation: &TemplateOp, top: &OwnedFd) -> Outcome<()> {
    match operation {
        TemplateOp::Dir { path, mode } => root::make_dir(&rooted(path), *mode, top),
        TemplateOp::Link { path, target } => {
            let (above, name) = place(path, top)?;
            fd::symlink_at(target, above.as_raw_fd(), name).at("furnish", path)
        }
        TemplateOp::File { path, mode, data } => {
            let (above, name) = place(path, top)?;
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let file = fd::open_at(above.as_raw_fd(), name, flags, 0o600).at("furnish", path)?;
            fd::write_all(file.as_raw_fd(), data).at("furnish", path)?;
            fd::chmod(file.as_raw_fd(), *mode).at("furnish", path)
        }
        TemplateOp::Copy { path, .. } | TemplateOp::Bind { path, .. } | TemplateOp::Device { path, .. } => {
            Err(Fault::new("furnish", path, libc::EINVAL))
        }
    }
}

/// The folder above, which is made where it is missing, and a name in it that is free then.
fn place<'a>(path: &'a str, top: &OwnedFd) -> Outcome<(OwnedFd, &'a str)> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let above = rooted(above);
    if above != "/" {
        root::make_dir(&above, 0o755, top)?;
    }
    let folder = root::object(top.as_raw_fd(), &above).at("furnish", path)?;
    match fd::unlink_at(folder.as_raw_fd(), name, 0) {
        Ok(()) | Err(libc::ENOENT) => Ok((folder, name)),
        Err(errno) => Err(Fault::new("furnish", path, errno)),
    }
}

fn rooted(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}
