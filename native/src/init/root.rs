//! A box's own root: the image, bound on itself, and the mounts of its own on top.

use crate::fault::{At, Fault, Outcome};
use crate::plan::RootOp;
use crate::sys::{fd, mount, namespace};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const RESOLVE_IN_ROOT: u64 = 0x10;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;

struct Root {
    fd: OwnedFd,
}

impl Root {
    /// An object below the root. No link leads out of it.
    fn object(&self, path: &str) -> Result<OwnedFd, i32> {
        fd::open_at2(self.fd.as_raw_fd(), path, libc::O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    }

    fn attach(&self, tree: &OwnedFd, path: &str, step: &'static str) -> Outcome<()> {
        let target = self.object(path).at(step, path)?;
        mount::attach(tree.as_raw_fd(), target.as_raw_fd()).at(step, path)
    }
}

/// Carries the operations out and makes the result the root of this mount namespace. `trees` are the user's
/// mounts, detached.
pub fn build(operations: &[RootOp], trees: &[RawFd]) -> Outcome<()> {
    // A bind of the image on itself is a mount of our own: the inherited one is locked and can't be pivoted to.
    let image = mount::open_tree(libc::AT_FDCWD, "/r", true).at("root", "/r")?;
    let place = fd::open("/r", libc::O_PATH).at("root", "/r")?;
    mount::attach(image.as_raw_fd(), place.as_raw_fd()).at("root", "/r")?;
    let root = Root { fd: image };
    for operation in operations {
        carry_out(operation, &root, trees)?;
    }
    fd::fchdir(root.fd.as_raw_fd()).at("pivot", "/r")?;
    mount::pivot_here().at("pivot", "/r")
}

fn carry_out(operation: &RootOp, root: &Root, trees: &[RawFd]) -> Outcome<()> {
    match operation {
        RootOp::Mount { kind, path, options, attributes } => {
            let tree =
                mount::new_filesystem(kind, options, *attributes).at("mount", format!("{kind} {path}"))?;
            root.attach(&tree, path, "mount")
        }
        RootOp::Private { options, attributes, folders } => private(options, *attributes, folders, root),
        RootOp::Dir { path, mode } => make_dir(path, *mode, root),
        RootOp::File { path } => make_file(path, root),
        RootOp::Hide { path, cover } => hide(path, cover, root),
        RootOp::Freeze { path, attributes } => {
            let tree = mount::open_tree(root.fd.as_raw_fd(), path, true).at("freeze", path)?;
            mount::set_attributes(tree.as_raw_fd(), *attributes, true, None).at("freeze", path)?;
            root.attach(&tree, path, "freeze")
        }
        RootOp::UserMount { index, path, attributes } => user_mount(*index, path, *attributes, root, trees),
        RootOp::Hostname { name } => namespace::set_hostname(name).at("hostname", name),
        RootOp::Loopback {} => namespace::loopback_up().at("loopback", "lo"),
    }
}

/// Only an attached mount can be copied from, so the whole stands for a while in the outer root, which goes.
fn private(options: &[String], attributes: u64, folders: &[crate::plan::Folder], root: &Root) -> Outcome<()> {
    let space = mount::new_filesystem("tmpfs", options, attributes).at("tmpfs", "private")?;
    let stand = fd::open("/s", libc::O_PATH).at("tmpfs", "/s")?;
    mount::attach(space.as_raw_fd(), stand.as_raw_fd()).at("tmpfs", "/s")?;
    for folder in folders {
        let path = folder.path.as_str();
        fd::mkdir_at(space.as_raw_fd(), &folder.name, 0o700).at("tmpfs", path)?;
        fd::chmod_at(space.as_raw_fd(), &folder.name, folder.mode).at("tmpfs", path)?;
        let tree = mount::open_tree(space.as_raw_fd(), &folder.name, false).at("tmpfs", path)?;
        root.attach(&tree, path, "tmpfs")?;
    }
    Ok(())
}

/// Makes a folder and those above it, for a mount point in the box's own space.
fn make_dir(path: &str, mode: u32, root: &Root) -> Outcome<()> {
    for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
        let step = &path[..end];
        if root.object(step).is_ok() {
            continue;
        }
        let (above, name) = step.rsplit_once('/').ok_or_else(|| Fault::new("dir", path, libc::EINVAL))?;
        let above = root.object(if above.is_empty() { "/" } else { above }).at("dir", path)?;
        fd::mkdir_at(above.as_raw_fd(), name, mode).at("dir", path)?;
    }
    Ok(())
}

fn make_file(path: &str, root: &Root) -> Outcome<()> {
    let (above, name) = path.rsplit_once('/').ok_or_else(|| Fault::new("file", path, libc::EINVAL))?;
    let above = root.object(if above.is_empty() { "/" } else { above }).at("file", path)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW;
    fd::open_at(above.as_raw_fd(), name, flags, 0o644).at("file", path).map(drop)
}

/// Covers something that the kernel shows: with the null device or an empty folder of the image.
fn hide(path: &str, cover: &str, root: &Root) -> Outcome<()> {
    if matches!(root.object(path), Err(libc::ENOENT)) {
        return Ok(());
    }
    let tree =
        mount::open_tree(root.fd.as_raw_fd(), cover.trim_start_matches('/'), false).at("hide", path)?;
    root.attach(&tree, path, "hide")
}

fn user_mount(index: usize, path: &str, attributes: u64, root: &Root, trees: &[RawFd]) -> Outcome<()> {
    let tree = *trees.get(index).ok_or_else(|| Fault::new("mount", path, libc::EBADF))?;
    mount::set_attributes(tree, attributes, true, None).at("mount", path)?;
    let target = root.object(path).at("mount", path)?;
    mount::attach(tree, target.as_raw_fd()).at("mount", path)
}
