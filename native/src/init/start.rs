//! A stem's requests for commands: what they must bring, and what their askers are told.

use super::command::{parse, Command, PAUSED};
use super::starter::{Manner, Witness, SLOTS};
use super::stem::{Asker, Running, Stem};
use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::sys::{fd, process, socket};
use std::os::fd::{AsRawFd, RawFd};

impl Stem<'_> {
    /// A command of a new asker, whose socket comes before the other descriptors.
    pub fn exec_of_new(&mut self, mut message: socket::Message) -> Outcome<()> {
        if message.fds.is_empty() {
            return Err(Fault::new("request", "asker", libc::EBADMSG));
        }
        let socket = message.fds.remove(0);
        let token = self.next_token;
        self.next_token += 1;
        self.poller.add(socket.as_raw_fd(), token).at("poll", "asker")?;
        self.askers.push(Asker { token, socket, running: None, gone: false });
        self.exec(self.askers.len() - 1, message)
    }

    /// Descriptors: standard input (but with NO_INPUT), output and error, and with IN_FILE the payload.
    pub fn exec(&mut self, asker: usize, message: socket::Message) -> Outcome<()> {
        let bad = |what: &str| Fault::new("request", what, libc::EBADMSG);
        let (header, inline) = frame::split(message.data).ok_or_else(|| bad("header"))?;
        let in_file = header.flags & frame::IN_FILE != 0;
        let input = usize::from(header.flags & frame::NO_INPUT == 0);
        let mut fds = message.fds;
        if header.kind != frame::EXEC || fds.len() != 2 + input + usize::from(in_file) {
            return Err(bad("exec"));
        }
        let file;
        let payload = if in_file {
            file = fd::read_all(fds[2 + input].as_raw_fd()).at("request", "file")?;
            &file[..]
        } else {
            inline
        };
        let mut command = parse(payload).ok_or_else(|| bad("command"))?;
        if self.paused {
            tell_exit(self.askers[asker].socket.as_raw_fd(), 0, libc::EBUSY, PAUSED, None);
            return Ok(());
        }
        if let Some((uid, gid)) = self.birth.bare_user {
            (command.uid, command.gid) = (uid, gid);
        }
        let first = match input {
            0 => self.starter.null()?,
            _ => fds[0].as_raw_fd(),
        };
        let manner = Manner {
            stdio: [first, fds[input].as_raw_fd(), fds[1 + input].as_raw_fd()],
            terminal: header.flags & frame::TERMINAL != 0,
            builtin: header.flags & frame::BUILTIN != 0,
            witness: std::mem::take(&mut self.witness_due).then(|| self.witness()),
            asker: Some(self.askers[asker].socket.as_raw_fd()),
        };
        if let Some((pid, slot)) = self.start(&command, manner, asker)? {
            if header.flags & frame::TELL != 0 {
                self.tell_start(asker, slot);
            }
            fds.truncate(2 + input);
            let held = if header.flags & frame::HOLD != 0 { fds.split_off(input) } else { Vec::new() };
            self.askers[asker].running = Some(Running { pid, slot, held });
        }
        Ok(())
    }

    /// A process that did not get as far has left word, and its exit follows.
    fn tell_start(&self, asker: usize, slot: usize) {
        if self.starter.word(slot).errno == 0 {
            let message = frame::header(frame::STARTED, 0, 0);
            let _ = socket::send(self.askers[asker].socket.as_raw_fd(), &message, &[]);
        }
    }

    fn free_slot(&self) -> Option<usize> {
        let taken =
            |slot| self.askers.iter().any(|one| one.running.as_ref().is_some_and(|it| it.slot == slot));
        (0..SLOTS).find(|&slot| !taken(slot))
    }

    /// The new process and its slot; none where it could not be made, which the asker has been told.
    fn start(&mut self, command: &Command, manner: Manner, asker: usize) -> Outcome<Option<(i32, usize)>> {
        let asker = self.askers[asker].socket.as_raw_fd();
        let Some(slot) = self.free_slot() else {
            tell_exit(asker, 0, libc::EAGAIN, 1, None);
            return Ok(None);
        };
        let witness = manner.witness.is_some();
        let pid = match self.starter.start(command, manner, slot) {
            Ok(pid) => pid,
            Err(errno) => {
                tell_exit(asker, 0, errno, 1, None);
                return Ok(None);
            }
        };
        if witness {
            self.close_ctl()?;
        }
        Ok(Some((pid, slot)))
    }

    /// What the spawner is to inspect; there is one in each box.
    pub fn witness(&mut self) -> Witness {
        let report = std::mem::take(&mut self.report);
        Witness { ctl: self.birth.ctl, report, privileged: self.birth.privileged }
    }
}

/// Before its setsid a command has no group of its own yet; then its process alone takes the signal.
pub fn send_signal(pid: i32, signal: i32, group: bool) {
    if !group || process::kill(-pid, signal).is_err() {
        // It may have ended; its exit is on the way.
        let _ = process::kill(pid, signal);
    }
}

/// An asker that is gone does not want to know.
pub fn tell_exit(asker: RawFd, status: i32, errno: i32, step: u32, usage: Option<&libc::rusage>) {
    let mut data = frame::header(frame::EXITED, 0, 0);
    data.extend(status.to_le_bytes());
    data.extend(errno.to_le_bytes());
    data.extend(step.to_le_bytes());
    data.extend(usage.map_or(0, |used| micros(used.ru_utime) + micros(used.ru_stime)).to_le_bytes());
    data.extend(usage.map_or(0, |used| used.ru_maxrss as u64).to_le_bytes());
    let _ = socket::send(asker, &data, &[]);
}

pub fn micros(time: libc::timeval) -> u64 {
    (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64
}
