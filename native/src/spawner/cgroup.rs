//! A box's cgroups: one for each controller that its limits need.

use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::plan::{CgroupLimit, CgroupParent};
use crate::sys::fd;
use std::os::fd::{AsRawFd, OwnedFd};

/// Counters that say afterwards what the kernel did. Those of other versions are absent.
const COUNTERS: [&str; 7] = [
    "memory.events",
    "memory.peak",
    "memory.oom_control",
    "memory.max_usage_in_bytes",
    "pids.events",
    "pids.peak",
    "cpu.stat",
];

/// Where boxes' cgroups are made, opened while the host's /sys is in sight.
pub struct Parents {
    parents: Vec<(Vec<String>, String, OwnedFd)>,
}

struct Group {
    parent: OwnedFd,
    dir: OwnedFd,
    name: String,
}

#[derive(Default)]
pub struct Cgroups {
    groups: Vec<Group>,
}

impl Parents {
    pub fn open(parents: &[CgroupParent]) -> Outcome<Parents> {
        let open = |parent: &CgroupParent| {
            let dir =
                fd::open(&parent.path, libc::O_RDONLY | libc::O_DIRECTORY).at("cgroup", &parent.path)?;
            Ok((parent.controllers.clone(), parent.path.clone(), dir))
        };
        Ok(Parents { parents: parents.iter().map(open).collect::<Outcome<_>>()? })
    }

    /// Makes the cgroups that `limits` need and writes them.
    pub fn make(&self, name: &str, limits: &[CgroupLimit]) -> Outcome<Cgroups> {
        let mut made = Cgroups::default();
        for (controllers, path, parent) in &self.parents {
            let wanted: Vec<_> =
                limits.iter().filter(|limit| controllers.contains(&limit.controller)).collect();
            if wanted.is_empty() {
                continue;
            }
            let outcome = made.add_group(parent, path, name, &wanted);
            if let Err(fault) = outcome {
                made.remove();
                return Err(fault);
            }
        }
        Ok(made)
    }
}

impl Cgroups {
    fn add_group(
        &mut self,
        parent: &OwnedFd,
        path: &str,
        name: &str,
        limits: &[&CgroupLimit],
    ) -> Outcome<()> {
        let place = format!("{path}/{name}");
        fd::mkdir_at(parent.as_raw_fd(), name, 0o755).at("cgroup", &place)?;
        let dir = fd::open_at(parent.as_raw_fd(), name, libc::O_RDONLY | libc::O_DIRECTORY, 0)
            .at("cgroup", &place)?;
        let parent = parent
            .try_clone()
            .map_err(|error| Fault::new("cgroup", &place, error.raw_os_error().unwrap_or(libc::EIO)))?;
        self.groups.push(Group { parent, dir, name: name.into() });
        let dir = self.groups[self.groups.len() - 1].dir.as_raw_fd();
        for limit in limits {
            fd::write_file_at(dir, &limit.file, limit.value.as_bytes())
                .at("cgroup", format!("{place}/{}", limit.file))?;
        }
        Ok(())
    }

    pub fn add(&self, pid: i32) -> Outcome<()> {
        for group in &self.groups {
            fd::write_file_at(group.dir.as_raw_fd(), "cgroup.procs", pid.to_string().as_bytes())
                .at("cgroup", format!("{}/cgroup.procs", group.name))?;
        }
        Ok(())
    }

    /// The name below each parent, where there are any.
    pub fn name(&self) -> Option<&str> {
        self.groups.first().map(|group| group.name.as_str())
    }

    /// Appends the kernel's counters as named values.
    pub fn put_counters(&self, data: &mut Vec<u8>) {
        for group in &self.groups {
            for name in COUNTERS {
                if let Ok(content) = fd::read_file_at(group.dir.as_raw_fd(), name) {
                    frame::put_item(data, name, &content);
                }
            }
        }
    }

    /// Every process is gone, but the kernel may need a moment to notice: it answers EBUSY until then.
    pub fn remove(&self) {
        for group in &self.groups {
            for _ in 0..200 {
                if fd::unlink_at(group.parent.as_raw_fd(), &group.name, libc::AT_REMOVEDIR)
                    != Err(libc::EBUSY)
                {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
}
