//! A box's cgroups: one for each hierarchy that its limits need.

use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::plan::{CgroupLimit, CgroupParent};
use crate::sys::fd;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

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

const CONTROL: &str = "cgroup.subtree_control";

/// Where boxes' cgroups are made, opened while the host's /sys is in sight.
pub struct Parents {
    parents: Vec<Parent>,
}

struct Parent {
    path: String,
    dir: OwnedFd,
    /// Version 2: a process can be born in a cgroup of it.
    unified: bool,
    switch_on: Vec<String>,
}

struct Group {
    parent: OwnedFd,
    dir: OwnedFd,
    name: String,
    unified: bool,
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
            let (path, switch_on) = (parent.path.clone(), parent.switch_on.clone());
            Ok(Parent { path, dir, unified: parent.version == 2, switch_on })
        };
        Ok(Parents { parents: parents.iter().map(open).collect::<Outcome<_>>()? })
    }

    /// Makes the cgroups that `limits` need and writes them.
    pub fn make(&self, name: &str, limits: &[CgroupLimit]) -> Outcome<Cgroups> {
        let mut made = Cgroups::default();
        for parent in &self.parents {
            let wanted: Vec<_> = limits.iter().filter(|limit| limit.parent == parent.path).collect();
            if wanted.is_empty() {
                continue;
            }
            let outcome = parent.pass_on().and_then(|()| made.add_group(parent, name, &wanted));
            if let Err(fault) = outcome {
                made.remove();
                return Err(fault);
            }
        }
        Ok(made)
    }
}

impl Parent {
    /// In a cgroup that was delegated to us, it is ours to say what the cgroups in it have. Said again it costs little, and
    /// whoever has unsaid it meanwhile is not believed.
    fn pass_on(&self) -> Outcome<()> {
        for name in &self.switch_on {
            fd::write_file_at(self.dir.as_raw_fd(), CONTROL, format!("+{name}").as_bytes())
                .at("cgroup", format!("{}/{CONTROL}: {name}", self.path))?;
        }
        Ok(())
    }
}

impl Cgroups {
    fn add_group(&mut self, parent: &Parent, name: &str, limits: &[&CgroupLimit]) -> Outcome<()> {
        let place = format!("{}/{name}", parent.path);
        fd::mkdir_at(parent.dir.as_raw_fd(), name, 0o755).at("cgroup", &place)?;
        let dir = fd::open_at(parent.dir.as_raw_fd(), name, libc::O_RDONLY | libc::O_DIRECTORY, 0)
            .at("cgroup", &place)?;
        let unified = parent.unified;
        let parent = parent
            .dir
            .try_clone()
            .map_err(|error| Fault::new("cgroup", &place, error.raw_os_error().unwrap_or(libc::EIO)))?;
        self.groups.push(Group { parent, dir, name: name.into(), unified });
        let dir = self.groups[self.groups.len() - 1].dir.as_raw_fd();
        for limit in limits {
            fd::write_file_at(dir, &limit.file, limit.value.as_bytes())
                .at("cgroup", format!("{place}/{}", limit.file))?;
        }
        Ok(())
    }

    /// The one of version 2, where there is one: a process that is born in it need not be moved, which has the kernel
    /// wait for milliseconds until no process forks.
    pub fn birthplace(&self) -> Option<RawFd> {
        self.groups.iter().find(|group| group.unified).map(|group| group.dir.as_raw_fd())
    }

    /// Moves a process into all but its birthplace.
    pub fn add(&self, pid: i32, born: Option<RawFd>) -> Outcome<()> {
        for group in self.groups.iter().filter(|group| Some(group.dir.as_raw_fd()) != born) {
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
