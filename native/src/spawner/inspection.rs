//! What happens between a box's first word and the readback of its witness.

use super::cell::{Cell, Witness};
use super::{tell, witness, Spawner};
use crate::fault::{Fault, Outcome};
use crate::frame;
use crate::sys::{socket, trace};
use std::os::fd::{AsRawFd, RawFd};

impl Spawner {
    pub fn hear_box(&mut self, id: u32) {
        let Some(cell) = self.cells.get_mut(&id) else {
            return;
        };
        let Some(ctl) = cell.ctl.as_ref().map(|ctl| ctl.as_raw_fd()) else {
            return;
        };
        let mut buffer = [0; 8192];
        let Ok(Some(message)) = socket::receive(ctl, &mut buffer) else {
            // The end of the box, of which reap() tells. In a box that stays it may be its witness alone that has ended,
            // which nobody else would notice.
            self.poller.remove(ctl);
            cell.ctl = None;
            if !cell.inspected && !cell.one_shot {
                let fault = Fault::new("witness", "", libc::ECHILD);
                tell(&cell.owner, &frame::fault(frame::FAILED, 0, &fault), &[]);
                cell.kill();
            }
            return;
        };
        match frame::split(message.data) {
            Some((header, rest)) if header.kind == frame::WITNESS => {
                attach(cell, message.sender, rest.to_vec(), ctl, self.host.proc_dir());
            }
            Some((header, rest)) if header.kind == frame::FAULT => {
                let mut data = frame::header(frame::FAILED, 0, 0);
                data.extend(rest);
                tell(&cell.owner, &data, &[]);
                // Its end is no news any more.
                self.poller.remove(ctl);
                cell.ctl = None;
                cell.kill();
            }
            _ => cell.kill(),
        }
    }

    pub fn witness_changed(&mut self, id: u32, pid: i32, status: i32) -> Outcome<()> {
        let Some(cell) = self.cells.get_mut(&id) else {
            return Ok(());
        };
        let Some(witness) = &mut cell.witness else {
            return Ok(());
        };
        if !libc::WIFSTOPPED(status) {
            cell.witness = None;
            return Ok(());
        }
        if trace::stopped_by_exec(status) {
            witness.at_exec = true;
            witness.detach_if_due();
            return Ok(());
        }
        let signal = libc::WSTOPSIG(status);
        if status >> 16 != 0 || signal != libc::SIGTRAP {
            // Not its own trap: let it go on to it.
            let _ = trace::resume(pid, if status >> 16 == 0 { signal } else { 0 });
            return Ok(());
        }
        let mut data = frame::header(frame::READY, 0, 0);
        data.extend(cell.pid.to_le_bytes());
        data.extend(&witness.report);
        data.extend(&cell.membership);
        frame::put_item(&mut data, "map/uid", cell.claim.uid_map.as_bytes());
        frame::put_item(&mut data, "map/gid", cell.claim.gid_map.as_bytes());
        if let Some(name) = cell.cgroups.name() {
            frame::put_item(&mut data, "cgroup.name", name.as_bytes());
        }
        if witness::read_back(pid, self.host.proc_dir(), &mut data).is_err() {
            // It was killed under inspection, and its box with it.
            cell.kill();
            return Ok(());
        }
        cell.inspected = true;
        // It goes on to its execve while the engine judges what was read.
        let _ = trace::resume(pid, 0);
        tell(&cell.owner, &data, &[cell.pidfd.as_raw_fd()]);
        // The box has said all that it says here, and its closing this need not wake us.
        if let Some(ctl) = cell.ctl.take() {
            self.poller.remove(ctl.as_raw_fd());
        }
        Ok(())
    }
}

fn attach(cell: &mut Cell, sender: Option<i32>, report: Vec<u8>, ctl: RawFd, proc_dir: RawFd) {
    let attached = sender.ok_or(libc::ESRCH).and_then(|pid| trace::seize(pid).map(|()| pid));
    match attached {
        Ok(pid) => {
            cell.witness = Some(Witness { pid, report, at_exec: false, released: false });
            // Where it is gone, reap() tells.
            let _ = socket::send(ctl, &frame::header(frame::GO, 0, 0), &[]);
            // While it goes on.
            cell.note_membership(proc_dir);
        }
        // Its command could not be started; the stem tells.
        Err(_) if witness::has_ended(sender, proc_dir) => {}
        Err(errno) => {
            // Without inspection there is no evidence, and so no box.
            let fault = Fault::new("witness", "ptrace", errno);
            tell(&cell.owner, &frame::fault(frame::FAILED, 0, &fault), &[]);
            cell.kill();
        }
    }
}
