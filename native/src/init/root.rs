//! A box's own root: the image, bound on itself, and the mounts of its own on top.

use crate::fault::{At, Fault, Outcome};
use crate::plan::RootOp;
use crate::sys::{fd, mount, namespace, Sys};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const RESOLVE_IN_ROOT: u64 = 0x10;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;

/// Carries the operations out and makes the result the root of this mount namespace. `trees` are the user's
/// mounts, detached.
///
/// Paths of the image are looked up plainly: it is sealed and of our own making. Targets of the user's mounts, which
/// may lie in each other, are resolved inside the root and through no link: an earlier box may have left one in a
/// writable folder. The plan has followed those of the image.
pub fn build(operations: &[RootOp], trees: &[RawFd]) -> Outcome<()> {
    // A bind of the image on itself is a mount of our own: the inherited one is locked and can't be pivoted to.
    mount::bind("/r", "/r", true).at("root", "/r")?;
    let root = fd::open("/r", libc::O_PATH | libc::O_DIRECTORY).at("root", "/r")?;
    fd::fchdir(root.as_raw_fd()).at("root", "/r")?;
    let mut trees = trees.iter();
    for operation in operations {
        carry_out(operation, &root, &mut trees)?;
    }
    fd::fchdir(root.as_raw_fd()).at("pivot", "/r")?;
    mount::pivot_here().at("pivot", "/r")
}

/// An object below the root, or ELOOP where the way to it has a link.
pub fn object(root: RawFd, path: &str) -> Result<OwnedFd, i32> {
    fd::open_at2(root, path, libc::O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
}

/// A path of the image as seen from its root, which is the working directory.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn carry_out(operation: &RootOp, root: &OwnedFd, trees: &mut std::slice::Iter<RawFd>) -> Outcome<()> {
    match operation {
        RootOp::Mount { kind, path, options, flags } if kind == "tmpfs" => {
            let target = object(root.as_raw_fd(), path).at("mount", path)?;
            mount::mount_new(kind, &fd::path_of(&target), *flags, options).at("mount", path)
        }
        RootOp::Mount { kind, path, options, flags } => {
            mount::mount_new(kind, inside(path), *flags, options).at("mount", path)
        }
        RootOp::Private { options, flags, folders } => private(options, *flags, folders),
        RootOp::Share { path, name, mode } => {
            let target = object(root.as_raw_fd(), path).at("mount", path)?;
            share(&fd::path_of(&target), name, *mode).at("tmpfs", path)
        }
        RootOp::Dir { path, mode } => make_dir(path, *mode, root),
        RootOp::File { path } => make_file(path, root),
        RootOp::Hide { path, cover } => match mount::bind(inside(cover), inside(path), false) {
            // Not every kernel has it.
            Err(libc::ENOENT) => Ok(()),
            other => other.at("hide", path),
        },
        RootOp::Freeze { path, attributes } => {
            mount::bind(inside(path), inside(path), true).at("freeze", path)?;
            mount::set_attributes_at(inside(path), *attributes).at("freeze", path)
        }
        RootOp::UserMount { path, attributes, .. } => user_mount(path, *attributes, root, trees),
        RootOp::Hostname { name } => namespace::set_hostname(name).at("hostname", name),
        RootOp::Loopback {} => namespace::loopback_up().at("loopback", "lo"),
    }
}

/// The whole stands in the outer root, which goes; what is bound from it stays.
fn private(options: &str, flags: u64, folders: &[crate::plan::Folder]) -> Outcome<()> {
    mount::mount_new("tmpfs", "/s", flags, options).at("tmpfs", "private")?;
    folders.iter().try_for_each(|folder| {
        share(inside(&folder.path), &folder.name, folder.mode).at("tmpfs", &folder.path)
    })
}

fn share(target: &str, name: &str, mode: u32) -> Sys<()> {
    let stand = format!("/s/{name}");
    fd::mkdir_at(libc::AT_FDCWD, &stand, 0o700)?;
    fd::chmod_at(libc::AT_FDCWD, &stand, mode)?;
    mount::bind(&stand, target, false)
}

/// Makes a folder and those above it, for a mount point in the box's own space.
fn make_dir(path: &str, mode: u32, root: &OwnedFd) -> Outcome<()> {
    for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
        let step = &path[..end];
        if object(root.as_raw_fd(), step).is_ok() {
            continue;
        }
        let (above, name) = step.rsplit_once('/').ok_or_else(|| Fault::new("dir", path, libc::EINVAL))?;
        let above = object(root.as_raw_fd(), if above.is_empty() { "/" } else { above }).at("dir", path)?;
        fd::mkdir_at(above.as_raw_fd(), name, mode).at("dir", path)?;
    }
    Ok(())
}

fn make_file(path: &str, root: &OwnedFd) -> Outcome<()> {
    let (above, name) = path.rsplit_once('/').ok_or_else(|| Fault::new("file", path, libc::EINVAL))?;
    let above = object(root.as_raw_fd(), if above.is_empty() { "/" } else { above }).at("file", path)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW;
    fd::open_at(above.as_raw_fd(), name, flags, 0o644).at("file", path).map(drop)
}

fn user_mount(
    path: &str,
    attributes: u64,
    root: &OwnedFd,
    trees: &mut std::slice::Iter<RawFd>,
) -> Outcome<()> {
    let tree = *trees.next().ok_or_else(|| Fault::new("mount", path, libc::EBADF))?;
    mount::set_attributes(tree, attributes, None).at("mount", path)?;
    let target = object(root.as_raw_fd(), path).at("mount", path)?;
    mount::attach(tree, target.as_raw_fd()).at("mount", path)
}
