//! Process 2 of a box: every command is forked from it, so that all of them share one Landlock domain.

use super::command::{self, Command, Slot};
use super::{landlock, Birth};
use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::sys::{fd, process, socket};
use std::ffi::{c_char, CStr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Commands that can run at once in one box.
const SLOTS: usize = 4096;

struct Running {
    id: u32,
    pid: i32,
    slot: usize,
}

struct Stem<'a> {
    birth: &'a Birth<'a>,
    slots: *mut Slot,
    running: Vec<Running>,
    signals: OwnedFd,
    /// The first command of a one-shot box is its witness: the spawner inspects it before its execve.
    witness_due: bool,
}

pub fn run(birth: &Birth) -> ! {
    if let Err(fault) = live(birth) {
        // Where the spawner no longer listens, the end of this process tells it all.
        let _ = socket::send(birth.ctl, &frame::fault(frame::FAULT, 0, &fault), &[]);
    }
    process::exit(0)
}

fn live(birth: &Birth) -> Outcome<()> {
    process::set_name(c"immure-stem");
    fd::close_all_but(&mut [0, 1, 2, birth.ctl, birth.engine]).at("descriptors", "")?;
    let mut report = frame::header(frame::REPORT, 0, 0);
    if let Some(rules) = &birth.plan.landlock {
        landlock::enter(rules, &mut report)?;
    }
    super::hide_from_box()?;
    socket::send(birth.ctl, &report, &[]).at("report", "")?;
    let mut stem = Stem {
        birth,
        slots: fd::map_shared(SLOTS * std::mem::size_of::<Slot>()).at("slots", "")?.cast(),
        running: Vec::new(),
        signals: process::child_signals().at("signals", "")?,
        witness_due: birth.one_shot,
    };
    if !birth.one_shot {
        stem.show_witness()?;
    }
    stem.serve()
}

impl Stem<'_> {
    /// A process that passes the last stage only to be inspected.
    fn show_witness(&mut self) -> Outcome<()> {
        let command = Command {
            uid: self.birth.plan.user,
            gid: self.birth.plan.group,
            workdir: c"/",
            argv: Vec::new(),
            env: Vec::new(),
            path: b"",
        };
        // SAFETY: this process has one thread.
        if unsafe { process::fork() }.at("witness", "fork")?.is_none() {
            let fault = self.last_stage(&command, [0, 1, 2], true).err();
            if let Some(fault) = &fault {
                let _ = socket::send(self.birth.ctl, &frame::fault(frame::FAULT, 0, fault), &[]);
            }
            process::exit(0);
        }
        self.close_ctl()
    }

    fn close_ctl(&self) -> Outcome<()> {
        let ctl = self.birth.ctl as u32;
        fd::close_range(ctl, ctl).at("descriptors", "ctl")
    }

    fn serve(&mut self) -> Outcome<()> {
        let watched = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut watch = [watched(self.signals.as_raw_fd()), watched(self.birth.engine)];
        loop {
            fd::poll(&mut watch, -1).at("poll", "")?;
            if watch[0].revents != 0 {
                process::drain_signals(self.signals.as_raw_fd());
                if self.reap()? {
                    return Ok(());
                }
            }
            if watch[1].revents != 0 {
                match socket::receive(self.birth.engine, frame::LIMIT).at("request", "")? {
                    Some(message) => self.answer(message)?,
                    None => return Ok(()),
                }
            }
        }
    }

    /// Reports what has ended. True where that ends the box.
    fn reap(&mut self) -> Outcome<bool> {
        while let Some((pid, status, usage)) = process::wait(-1, libc::WNOHANG).at("wait", "")? {
            let Some(place) = self.running.iter().position(|one| one.pid == pid) else {
                continue;
            };
            let done = self.running.swap_remove(place);
            self.tell_exit(&done, status, &usage)?;
            if self.birth.one_shot {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn tell_exit(&self, done: &Running, status: i32, usage: &libc::rusage) -> Outcome<()> {
        // SAFETY: the slot's process is gone; the index is below SLOTS.
        let word = unsafe { std::ptr::read_volatile(self.slots.add(done.slot)) };
        self.send_exit(done.id, status, word.errno, word.step, Some(usage))
    }

    fn send_exit(
        &self,
        id: u32,
        status: i32,
        errno: i32,
        step: u32,
        usage: Option<&libc::rusage>,
    ) -> Outcome<()> {
        let micros = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64;
        let cpu = usage.map_or(0, |used| micros(used.ru_utime) + micros(used.ru_stime));
        let peak = usage.map_or(0, |used| used.ru_maxrss as u64);
        let mut data = frame::header(frame::EXITED, 0, id);
        data.extend(status.to_le_bytes());
        data.extend(errno.to_le_bytes());
        data.extend(step.to_le_bytes());
        data.extend(cpu.to_le_bytes());
        data.extend(peak.to_le_bytes());
        socket::send(self.birth.engine, &data, &[]).at("report", "exit")
    }

    fn answer(&mut self, message: socket::Message) -> Outcome<()> {
        let Some((header, rest)) = frame::split(&message.data) else {
            return Err(Fault::new("request", "header", libc::EBADMSG));
        };
        match header.kind {
            frame::EXEC => self.exec(&header, rest, &message.fds),
            frame::SIGNAL => {
                let mut rest = rest;
                self.signal(&header, frame::take_u32(&mut rest).unwrap_or(0) as i32);
                Ok(())
            }
            _ => Err(Fault::new("request", header.kind.to_string(), libc::EBADMSG)),
        }
    }

    fn signal(&self, header: &frame::Header, signal: i32) {
        if let Some(one) = self.running.iter().find(|one| one.id == header.id) {
            let group = header.flags & frame::GROUP != 0;
            // Before its setsid a command has no group of its own yet; its process takes the signal then.
            if !group || process::kill(-one.pid, signal).is_err() {
                let _ = process::kill(one.pid, signal);
            }
        }
    }

    fn exec(&mut self, header: &frame::Header, payload: &[u8], fds: &[OwnedFd]) -> Outcome<()> {
        let in_file = header.flags & frame::IN_FILE != 0;
        if fds.len() != 3 + usize::from(in_file) {
            return Err(Fault::new("request", "descriptors", libc::EBADMSG));
        }
        let file;
        let payload = if in_file {
            file = fd::read_all(fds[3].as_raw_fd()).at("request", "file")?;
            &file[..]
        } else {
            payload
        };
        let command = parse(payload).ok_or_else(|| Fault::new("request", "exec", libc::EBADMSG))?;
        let Some(slot) = (0..SLOTS).find(|index| self.running.iter().all(|one| one.slot != *index)) else {
            return self.send_exit(header.id, 0, libc::EAGAIN, 1, None);
        };
        // SAFETY: a free slot has no process that writes to it.
        unsafe { self.slots.add(slot).write(Slot { errno: 0, step: 0 }) };
        let witness = std::mem::take(&mut self.witness_due);
        let stdio = [fds[0].as_raw_fd(), fds[1].as_raw_fd(), fds[2].as_raw_fd()];
        // SAFETY: this process has one thread.
        match unsafe { process::fork() } {
            Ok(None) => self.become_command(&command, stdio, witness, slot),
            Ok(Some(pid)) => self.running.push(Running { id: header.id, pid, slot }),
            Err(errno) => return self.send_exit(header.id, 0, errno, 1, None),
        }
        if witness {
            return self.close_ctl();
        }
        Ok(())
    }

    fn become_command(&self, command: &Command, stdio: [RawFd; 3], witness: bool, slot: usize) -> ! {
        let fault = match self.last_stage(command, stdio, witness) {
            Ok(()) => command::execute(command),
            Err(fault) => fault,
        };
        // SAFETY: the index is below SLOTS.
        command::leave_word(unsafe { self.slots.add(slot) }, &fault);
        process::exit(127)
    }

    fn last_stage(&self, command: &Command, stdio: [RawFd; 3], witness: bool) -> Outcome<()> {
        let stage = &self.birth.plan.command;
        process::reset_signals().at("signals", "")?;
        // SAFETY: no memory is passed.
        unsafe { libc::umask(stage.umask) };
        // SAFETY: no memory is passed. A forked child is no group leader, so it can't fail.
        unsafe { libc::setsid() };
        let ctl = command::take_stdio(stdio, witness.then_some(self.birth.ctl))?;
        command::enter_workdir(command.workdir)?;
        command::give_up_privileges(stage, command, self.birth.range)?;
        if let Some(ctl) = ctl {
            // Inspection by a plain user needs a dumpable process. Nothing else runs in the box yet.
            process::prctl(libc::PR_SET_DUMPABLE, 1).at("witness", "dumpable")?;
            command::announce(ctl)?;
        }
        command::install_filters(stage)?;
        if witness {
            command::wait_for_inspection();
        }
        Ok(())
    }
}

/// `u32 uid, gid, argc, envc`, then working directory, PATH, argv and environment, each with a NUL.
fn parse(mut payload: &[u8]) -> Option<Command<'_>> {
    let rest = &mut payload;
    let (uid, gid) = (frame::take_u32(rest)?, frame::take_u32(rest)?);
    let (argc, envc) = (frame::take_u32(rest)?, frame::take_u32(rest)?);
    let workdir = take_cstr(rest)?;
    let path = frame::take_string(rest)?;
    let argv = take_vector(rest, argc)?;
    let env = take_vector(rest, envc)?;
    (argc > 0).then_some(Command { uid, gid, workdir, argv, env, path })
}

fn take_cstr<'a>(rest: &mut &'a [u8]) -> Option<&'a CStr> {
    let text = CStr::from_bytes_until_nul(rest).ok()?;
    *rest = &rest[text.to_bytes_with_nul().len()..];
    Some(text)
}

/// Pointers to `count` strings, and the null pointer that ends a vector.
fn take_vector(rest: &mut &[u8], count: u32) -> Option<Vec<*const c_char>> {
    let mut vector = Vec::new();
    for _ in 0..count {
        vector.push(take_cstr(rest)?.as_ptr());
    }
    vector.push(std::ptr::null());
    Some(vector)
}
