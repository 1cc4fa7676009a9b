//! The image that boxes of a plan share, prepared in a mount namespace of its own: an outer root with the full
//! /proc (a new proc mount is refused where none is visible), the image in /r, and /s to stand things in.

use super::host::Host;
use crate::fault::{At, Outcome};
use crate::plan::TemplateOp;
use crate::sys::{fd, mount, namespace};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Builds the image and leaves this process in its namespace. Returns the namespace.
pub fn build(operations: &[TemplateOp], host: &Host) -> Outcome<OwnedFd> {
    host.enter()?;
    namespace::unshare(libc::CLONE_NEWNS).at("template", "mount namespace")?;
    mount::set_propagation(libc::MS_PRIVATE).at("template", "/")?;
    let options = [String::from("mode=0755")];
    let outer = mount::new_filesystem("tmpfs", &options, mount::ATTR_NOSUID).at("template", "outer root")?;
    let top = fd::open("/", libc::O_PATH).at("template", "/")?;
    mount::attach(outer.as_raw_fd(), top.as_raw_fd()).at("template", "outer root")?;
    for folder in ["proc", "r", "s"] {
        fd::mkdir_at(outer.as_raw_fd(), folder, 0o755).at("template", folder)?;
    }
    let proc = mount::open_tree(libc::AT_FDCWD, "/proc", true).at("template", "/proc")?;
    attach(&proc, outer.as_raw_fd(), "proc")?;
    let image = mount::new_filesystem("tmpfs", &options, mount::ATTR_NOSUID).at("template", "image")?;
    attach(&image, outer.as_raw_fd(), "r")?;
    for operation in operations {
        carry_out(operation, image.as_raw_fd())?;
    }
    // Sealed as superblocks: a box whose uid owns these files could remount a mount, never these.
    mount::seal_filesystem(image.as_raw_fd()).at("template", "seal image")?;
    fd::fchdir(outer.as_raw_fd()).at("template", "outer root")?;
    mount::pivot_here().at("template", "pivot")?;
    mount::seal_filesystem(outer.as_raw_fd()).at("template", "seal outer root")?;
    fd::open_at(host.proc_dir(), "self/ns/mnt", libc::O_RDONLY, 0).at("template", "namespace")
}

fn attach(tree: &OwnedFd, dir: RawFd, path: &str) -> Outcome<()> {
    let target = fd::open_at(dir, path, libc::O_PATH, 0).at("template", path)?;
    mount::attach(tree.as_raw_fd(), target.as_raw_fd()).at("template", path)
}

fn carry_out(operation: &TemplateOp, image: RawFd) -> Outcome<()> {
    match operation {
        TemplateOp::Dir { path, mode } => {
            fd::mkdir_at(image, path, *mode).at("dir", path)?;
            fd::chmod_at(image, path, *mode).at("dir", path)
        }
        TemplateOp::Link { path, target } => fd::symlink_at(target, image, path).at("link", path),
        TemplateOp::File { path, mode, data } => write_file(image, path, *mode, data),
        TemplateOp::Copy { path, source, mode } => {
            let data = fd::read_file_at(libc::AT_FDCWD, source).at("copy", source)?;
            write_file(image, path, *mode, &data)
        }
        TemplateOp::Bind { path, source, attributes, follow } => {
            // Of an image somebody may make a link at any moment, and where it leads is not for us to show.
            let open = if *follow { mount::open_tree } else { mount::open_tree_itself };
            let tree = open(libc::AT_FDCWD, source, true).at("bind", source)?;
            mount::set_attributes(tree.as_raw_fd(), *attributes, None).at("bind", source)?;
            attach(&tree, image, path)
        }
        TemplateOp::Device { path, mode, major, minor } => {
            fd::mknod_at(image, path, libc::S_IFCHR | mode, *major, *minor).at("device", path)?;
            fd::chmod_at(image, path, *mode).at("device", path)
        }
    }
}

fn write_file(image: RawFd, path: &str, mode: u32, data: &[u8]) -> Outcome<()> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = fd::open_at(image, path, flags, 0o600).at("file", path)?;
    fd::write_all(file.as_raw_fd(), data).at("file", path)?;
    fd::chmod_at(image, path, mode).at("file", path)
}
