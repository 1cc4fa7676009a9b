//! The host as the spawner sees it: its mount namespace, its /proc, and the user's folders in it.

use crate::fault::{At, Fault, Outcome};
use crate::plan::{Config, IdSource};
use crate::sys::{self, fd, mount, namespace, process};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

pub struct Host {
    proc_dir: OwnedFd,
    /// Root: the host's own. Plain user: a copy, in a user namespace of the spawner's.
    mounts: OwnedFd,
    rootless: bool,
}

impl Host {
    /// As a plain user this makes the user namespace in which everything else happens.
    pub fn open(config: &Config) -> Outcome<Host> {
        let proc_dir = fd::open("/proc", libc::O_RDONLY | libc::O_DIRECTORY).at("host", "/proc")?;
        if config.rootless && !config.bare {
            become_root_of_own_namespace(config, proc_dir.as_raw_fd())?;
            mount::set_propagation(libc::MS_SLAVE).at("host", "/")?;
        }
        let mounts = fd::open_at(proc_dir.as_raw_fd(), "self/ns/mnt", libc::O_RDONLY, 0)
            .at("host", "mount namespace")?;
        Ok(Host { proc_dir, mounts, rootless: config.rootless })
    }

    pub fn proc_dir(&self) -> RawFd {
        self.proc_dir.as_raw_fd()
    }

    pub fn enter(&self) -> Outcome<()> {
        namespace::enter(self.mounts.as_raw_fd(), libc::CLONE_NEWNS).at("host", "mount namespace")
    }

    /// A detached copy of what the caller's descriptor refers to. Called inside the host's mount namespace.
    pub fn copy_tree(&self, source: RawFd, path: &str) -> Outcome<OwnedFd> {
        if !self.rootless {
            return mount::open_tree(source, "", true).at("mount source", path);
        }
        // The descriptor belongs to another namespace's mount: open the path in ours, and see that it is the same.
        let here = fd::open(path, libc::O_PATH).at("mount source", path)?;
        let wanted = fd::stat(source).at("mount source", path)?;
        let found = fd::stat(here.as_raw_fd()).at("mount source", path)?;
        if (wanted.st_dev, wanted.st_ino) != (found.st_dev, found.st_ino) {
            return Err(Fault::new("mount source", path, libc::ESTALE));
        }
        mount::open_tree(here.as_raw_fd(), "", true).at("mount source", path)
    }

    /// Writes the id maps of a new process's user namespace.
    pub fn write_maps(&self, pid: i32, uid_map: &str, gid_map: &str) -> Outcome<()> {
        let put = |name: &str, text: &str| {
            let path = format!("{pid}/{name}");
            fd::write_file_at(self.proc_dir(), &path, text.as_bytes()).at("id map", format!("{name} {text}"))
        };
        put("uid_map", uid_map)?;
        put("gid_map", gid_map)
    }
}

fn become_root_of_own_namespace(config: &Config, proc_dir: RawFd) -> Outcome<()> {
    let mapper = match &config.ids {
        IdSource::Single {} => None,
        IdSource::Ranges { .. } => Some(start_mapper(config)?),
    };
    namespace::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).at("user namespace", "unshare")?;
    match mapper {
        Some((pid, go)) => {
            fd::write_all(go.as_raw_fd(), b"g").at("id map", "newuidmap")?;
            match process::wait(pid, 0).at("id map", "newuidmap")? {
                Some((_, 0, _)) => Ok(()),
                _ => Err(Fault::new("id map", "newuidmap", libc::EPERM)),
            }
        }
        None => {
            let put = |name: &str, text: String| {
                let path = format!("self/{name}");
                fd::write_file_at(proc_dir, &path, text.as_bytes()).at("id map", name)
            };
            put("setgroups", "deny".into())?;
            put("uid_map", format!("{0} {0} 1", config.caller_uid))?;
            put("gid_map", format!("{0} {0} 1", config.caller_gid))
        }
    }
}

/// A child that stays outside and runs the setuid helpers for us once we are in the new namespace.
fn start_mapper(config: &Config) -> Outcome<(i32, OwnedFd)> {
    let IdSource::Ranges {
        base_uid,
        base_gid,
        size,
        slots,
        newuidmap: Some(newuidmap),
        newgidmap: Some(newgidmap),
    } = &config.ids
    else {
        return Err(Fault::new("id map", "newuidmap", libc::EINVAL));
    };
    let (ours, theirs) = sys::socket::pair().at("id map", "newuidmap")?;
    let parent = std::process::id();
    let count = size * slots;
    let run = |tool: &str, own: u32, base: u32| {
        std::process::Command::new(tool)
            .args([parent, own, own, 1, base, base, count].map(|number| number.to_string()))
            .status()
            .is_ok_and(|status| status.success())
    };
    // SAFETY: the spawner has one thread.
    match unsafe { process::fork() }.at("id map", "fork")? {
        None => {
            drop(ours);
            let go = fd::read(theirs.as_raw_fd(), &mut [0]) == Ok(1);
            let done = go
                && run(newuidmap, config.caller_uid, *base_uid)
                && run(newgidmap, config.caller_gid, *base_gid);
            process::exit(i32::from(!done))
        }
        Some(pid) => Ok((pid, ours)),
    }
}
