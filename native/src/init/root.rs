//! A box's own root: the image, bound on itself, and the mounts of its own on top.

use super::Birth;
use crate::fault::{At, Fault, Outcome};
use crate::machine;
use crate::plan::{Folder, RootOp};
use crate::sys::{fd, mount, namespace, Sys};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const RESOLVE_IN_ROOT: u64 = 0x10;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;

/// Where a guest's private space stands meanwhile: a folder of its image.
const GUEST_STAND: &str = "/.immure/space";
/// Where a machine's first process mounts the disk with the sources of the user's mounts, until they are shown.
pub const GUEST_MOUNTS: &str = "/.immure/mounts";

/// Carries the plan's operations out and makes the result the root of this mount namespace. Whoever asks for the box
/// brings the user's mounts, and nothing before the first of them waits for that.
///
/// Paths of the image are looked up plainly: it is sealed and of our own making. Targets of the user's mounts, which
/// may lie in each other, are resolved inside the root and through no link: an earlier box may have left one in a
/// writable folder. The plan has followed those of the image.
pub fn build(birth: &Birth) -> Outcome<()> {
    // A bind of the image on itself is a mount of our own: the inherited one is locked and can't be pivoted to.
    mount::bind("/r", "/r", true).at("root", "/r")?;
    // What stands in /s goes with the outer root, and what is bound from it stays.
    let mut site = Site::at("/r", "/s", Some(birth))?;
    birth.plan.root.iter().try_for_each(|operation| site.carry_out(operation))?;
    fd::fchdir(site.root.as_raw_fd()).at("pivot", "/r")?;
    mount::pivot_here().at("pivot", "/r")
}

/// Carries out a guest's operations, on the root that its box has already.
pub fn complete(operations: &[RootOp]) -> Outcome<()> {
    if operations.is_empty() {
        // One without privileges has nothing to do here.
        return Ok(());
    }
    if let Some(object) = operations.iter().find_map(beyond_guest) {
        return Err(Fault::new("root", object, libc::EINVAL));
    }
    let mut site = Site::at("/", GUEST_STAND, None)?;
    operations.iter().try_for_each(|operation| site.carry_out(operation))?;
    let any = |kind: fn(&RootOp) -> bool| operations.iter().any(kind);
    if any(|operation| matches!(operation, RootOp::Private { .. } | RootOp::Disk { .. })) {
        mount::detach(GUEST_STAND).at("tmpfs", GUEST_STAND)?;
    }
    if any(|operation| matches!(operation, RootOp::Show { .. })) {
        mount::detach(GUEST_MOUNTS).at("mount", GUEST_MOUNTS)?;
    }
    Ok(())
}

/// What a guest's own kernel does, or whoever started it: the object of such an operation.
fn beyond_guest(operation: &RootOp) -> Option<&str> {
    match operation {
        RootOp::Mount { .. }
        | RootOp::Private { .. }
        | RootOp::Disk { .. }
        | RootOp::Share { .. }
        | RootOp::Dir { .. }
        | RootOp::File { .. }
        | RootOp::Show { .. }
        | RootOp::Hostname { .. } => None,
        RootOp::Hide { path, .. } | RootOp::Freeze { path, .. } | RootOp::UserMount { path, .. } => {
            Some(path)
        }
        RootOp::Loopback {} => Some("lo"),
    }
}

/// An object below the root, or ELOOP where the way to it has a link.
pub fn object(root: RawFd, path: &str) -> Sys<OwnedFd> {
    match fd::open_at2(root, path, libc::O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS) {
        // Linux before 5.6, and gVisor of 2024.
        Err(libc::ENOSYS) => walk(root, path),
        other => other,
    }
}

/// The same, one step after another.
fn walk(root: RawFd, path: &str) -> Sys<OwnedFd> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let mut found = fd::open_at(root, ".", flags | libc::O_DIRECTORY, 0)?;
    for step in path.split('/').filter(|step| !matches!(*step, "" | ".")) {
        if step == ".." {
            // No path of a plan has one, and here it could lead out of the root.
            return Err(libc::EINVAL);
        }
        found = fd::open_at(found.as_raw_fd(), step, flags, 0)?;
        if fd::stat(found.as_raw_fd())?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(libc::ELOOP);
        }
    }
    Ok(found)
}

/// A path of the image as seen from its root, which is the working directory.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// A root that is being made.
struct Site<'a> {
    /// The working directory, too.
    root: OwnedFd,
    /// Where the private space stands while its folders are bound to their places.
    stand: &'static str,
    birth: Option<&'a Birth<'a>>,
    /// How many of the user's mounts have been attached.
    attached: usize,
}

impl<'a> Site<'a> {
    fn at(path: &str, stand: &'static str, birth: Option<&'a Birth<'a>>) -> Outcome<Site<'a>> {
        let root = fd::open(path, libc::O_PATH | libc::O_DIRECTORY).at("root", path)?;
        fd::fchdir(root.as_raw_fd()).at("root", path)?;
        Ok(Site { root, stand, birth, attached: 0 })
    }

    fn carry_out(&mut self, operation: &RootOp) -> Outcome<()> {
        match operation {
            RootOp::Mount { kind, path, options, flags } if kind == "tmpfs" => {
                let target = self.object(path).at("mount", path)?;
                mount::mount_new(kind, &fd::path_of(&target), *flags, options).at("mount", path)
            }
            RootOp::Mount { kind, path, options, flags } => {
                mount::mount_new(kind, inside(path), *flags, options).at("mount", path)
            }
            RootOp::Private { options, flags, folders } => self.private(options, *flags, folders),
            RootOp::Disk { device, kind, options, flags, folders } => {
                machine::mount_disk(device, self.stand, kind, *flags, options)?;
                self.share_all(folders)
            }
            RootOp::Share { path, name, mode } => {
                let target = self.object(path).at("mount", path)?;
                self.share(&fd::path_of(&target), name, *mode).at("tmpfs", path)
            }
            RootOp::Dir { path, mode } => make_dir(path, *mode, &self.root),
            RootOp::File { path } => make_file(path, &self.root),
            RootOp::Hide { path, cover } => match mount::bind(inside(cover), inside(path), false) {
                // Not every kernel has it.
                Err(libc::ENOENT) => Ok(()),
                other => other.at("hide", path),
            },
            RootOp::Freeze { path, attributes } => {
                mount::bind(inside(path), inside(path), true).at("freeze", path)?;
                mount::set_attributes_at(inside(path), *attributes).at("freeze", path)
            }
            RootOp::UserMount { path, attributes, .. } => self.user_mount(path, *attributes),
            RootOp::Show { source, path, attributes, changes: None } => self.show(source, path, *attributes),
            RootOp::Show { source, path, attributes, changes: Some(changes) } => {
                self.show_writable(source, path, *attributes, changes)
            }
            RootOp::Hostname { name } => namespace::set_hostname(name).at("hostname", name),
            RootOp::Loopback {} => namespace::loopback_up().at("loopback", "lo"),
        }
    }

    fn object(&self, path: &str) -> Sys<OwnedFd> {
        object(self.root.as_raw_fd(), path)
    }

    fn private(&self, options: &str, flags: u64, folders: &[Folder]) -> Outcome<()> {
        mount::mount_new("tmpfs", self.stand, flags, options).at("tmpfs", "private")?;
        self.share_all(folders)
    }

    fn share_all(&self, folders: &[Folder]) -> Outcome<()> {
        folders.iter().try_for_each(|folder| {
            self.share(inside(&folder.path), &folder.name, folder.mode).at("tmpfs", &folder.path)
        })
    }

    fn share(&self, target: &str, name: &str, mode: u32) -> Sys<()> {
        let folder = format!("{}/{name}", self.stand);
        fd::mkdir_at(libc::AT_FDCWD, &folder, 0o700)?;
        fd::chmod_at(libc::AT_FDCWD, &folder, mode)?;
        mount::bind(&folder, target, false)
    }

    fn show(&self, source: &str, path: &str, attributes: u64) -> Outcome<()> {
        let source = self.object(source).at("mount", path)?;
        let tree = mount::open_tree(source.as_raw_fd(), "", false).at("mount", path)?;
        mount::set_attributes(tree.as_raw_fd(), attributes, None).at("mount", path)?;
        let target = self.object(path).at("mount", path)?;
        mount::attach(tree.as_raw_fd(), target.as_raw_fd()).at("mount", path)
    }

    /// What is written goes to the private space, which bounds it.
    fn show_writable(&self, source: &str, path: &str, flags: u64, changes: &str) -> Outcome<()> {
        let target = self.object(path).at("mount", path)?;
        let own = format!("{}/changes{}", self.stand, source.replace('/', "-"));
        for folder in [own.clone(), format!("{own}/upper"), format!("{own}/work")] {
            fd::mkdir_at(libc::AT_FDCWD, &folder, 0o755).at("mount", path)?;
        }
        // The top is the source's, as all of it is.
        let lower = fd::open(source, libc::O_PATH | libc::O_NOFOLLOW).at("mount", path)?;
        let upper = fd::open(format!("{own}/upper"), libc::O_RDONLY | libc::O_DIRECTORY).at("mount", path)?;
        let top = fd::stat(lower.as_raw_fd()).at("mount", path)?;
        fd::chown(upper.as_raw_fd(), top.st_uid, top.st_gid).at("mount", path)?;
        fd::chmod(upper.as_raw_fd(), top.st_mode & 0o777).at("mount", path)?;
        let options = format!(
            "lowerdir={source},upperdir={own}/upper,workdir={own}/work,redirect_dir=off,metacopy=off"
        );
        mount::mount_new("overlay", &fd::path_of(&target), flags, &options).at("mount", path)?;
        self.show(source, &format!("{changes}/lower"), flags | mount::ATTR_RDONLY)?;
        self.show(&format!("{own}/upper"), &format!("{changes}/upper"), flags | mount::ATTR_RDONLY)
    }

    fn user_mount(&mut self, path: &str, attributes: u64) -> Outcome<()> {
        let missing = || Fault::new("mount", path, libc::EBADF);
        let trees = &self.birth.ok_or_else(missing)?.order()?.trees;
        let tree = *trees.get(self.attached).ok_or_else(missing)?;
        self.attached += 1;
        mount::set_attributes(tree, attributes, None).at("mount", path)?;
        let target = self.object(path).at("mount", path)?;
        mount::attach(tree, target.as_raw_fd()).at("mount", path)
    }
}

/// Makes a folder and those above it, for a mount point in the box's own space.
pub fn make_dir(path: &str, mode: u32, root: &OwnedFd) -> Outcome<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to an object say the same.
    fn both(root: &OwnedFd, path: &str) -> Sys<u64> {
        let inode = |found: Sys<OwnedFd>| fd::stat(found?.as_raw_fd()).map(|it| it.st_ino);
        let walked = inode(walk(root.as_raw_fd(), path));
        assert_eq!(walked, inode(object(root.as_raw_fd(), path)), "{path}");
        walked
    }

    #[test]
    fn a_walk_finds_what_openat2_finds_and_follows_no_link() {
        let folder = std::env::temp_dir().join(format!("immure-root-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::write(folder.join("a/file"), "").unwrap();
        std::os::unix::fs::symlink("a", folder.join("link")).unwrap();
        let root = fd::open(folder.to_str().unwrap(), libc::O_PATH).unwrap();
        for path in ["/", "/a/b", "a//b/", "/./a/file"] {
            assert!(both(&root, path).is_ok(), "{path}");
        }
        assert_ne!(both(&root, "/a"), both(&root, "/a/b"));
        assert_eq!(both(&root, "/link/b"), Err(libc::ELOOP));
        assert_eq!(both(&root, "/link"), Err(libc::ELOOP));
        assert_eq!(both(&root, "/a/none"), Err(libc::ENOENT));
        assert_eq!(both(&root, "/a/file/none"), Err(libc::ENOTDIR));
        assert_eq!(walk(root.as_raw_fd(), "/a/../a").err(), Some(libc::EINVAL));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_guest_refuses_what_is_not_its_own_before_it_does_anything() {
        let operations = [RootOp::Hostname { name: "x".repeat(65) }, RootOp::Loopback {}];
        let fault = complete(&operations).unwrap_err();
        assert_eq!((fault.step, &fault.object[..], fault.errno), ("root", "lo", libc::EINVAL));
        assert!(complete(&[]).is_ok());
    }
}
