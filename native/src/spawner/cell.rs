//! One box as the spawner knows it, from the request for it to its end.

use super::cgroup::Cgroups;
use super::ids::Claim;
use crate::plan::Plan;
use crate::sys::{process, trace};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

pub struct Cell {
    pub id: u32,
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub one_shot: bool,
    pub bare: bool,
    /// To whoever asked for the box: evidence and end go out here, release and kill come in, and its end is the
    /// box's end.
    pub owner: OwnedFd,
    /// To the box, until its witness is inspected.
    pub ctl: Option<OwnedFd>,
    pub claim: Claim,
    pub cgroups: Cgroups,
    pub witness: Option<Witness>,
    /// The owner has been told of the witness, and may release the box.
    pub inspected: bool,
    /// The box's cgroups, as an item of the readback.
    pub membership: Vec<u8>,
}

/// The process that is inspected. It goes on as far as its execve while the engine judges it, and not an instruction
/// further before it is released.
pub struct Witness {
    pub pid: i32,
    /// What the stem said of itself.
    pub report: Vec<u8>,
    pub at_exec: bool,
    pub released: bool,
}

impl Witness {
    /// It may have been killed meanwhile.
    pub fn detach_if_due(&self) {
        if self.at_exec && self.released {
            let _ = trace::detach(self.pid);
        }
    }
}

impl Cell {
    /// It may have ended by itself; reaping tells. The kernel ends a pid namespace with its init; a bare box's init has
    /// to do that itself.
    pub fn kill(&self) {
        let signal = if self.bare { libc::SIGTERM } else { libc::SIGKILL };
        let _ = process::send_signal(self.pidfd.as_raw_fd(), signal);
        if self.bare {
            // One that was stopped takes it only when it goes on.
            let _ = process::send_signal(self.pidfd.as_raw_fd(), libc::SIGCONT);
        }
    }

    pub fn note_membership(&mut self, proc_dir: RawFd) {
        self.membership = super::witness::read_cgroups(self.pid, proc_dir);
    }

    pub fn release(&mut self) {
        if let Some(witness) = &mut self.witness {
            witness.released = true;
            witness.detach_if_due();
        }
    }
}

/// What the engine asked for.
pub struct Request<'a> {
    pub one_shot: bool,
    pub owner: OwnedFd,
    pub engine: OwnedFd,
    pub sources: Vec<OwnedFd>,
    pub plan: &'a Plan,
}
