//! Starting a command: its request, the process that becomes it, and the last stage before its execve.

use super::command::{self, Command, Slot};
use super::stem::{Asker, Running, Stem, SLOTS};
use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::sys::{fd, process, socket};
use std::ffi::{c_char, CStr};
use std::os::fd::{AsRawFd, RawFd};

/// What else there is to a command's start.
pub struct Manner {
    pub stdio: [RawFd; 3],
    /// Standard input is a terminal, to be the controlling one.
    pub terminal: bool,
    /// No program is executed: the process stays what it is.
    pub builtin: bool,
    pub witness: bool,
    /// For the listener of a filter that has one.
    pub asker: Option<RawFd>,
}

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
        if let Some((uid, gid)) = self.birth.bare_user {
            (command.uid, command.gid) = (uid, gid);
        }
        let first = match (input, &self.null) {
            (0, Ok(null)) => null.as_raw_fd(),
            (0, Err(errno)) => return Err(Fault::new("request", "/dev/null", *errno)),
            _ => fds[0].as_raw_fd(),
        };
        let manner = Manner {
            stdio: [first, fds[input].as_raw_fd(), fds[1 + input].as_raw_fd()],
            terminal: header.flags & frame::TERMINAL != 0,
            builtin: header.flags & frame::BUILTIN != 0,
            witness: std::mem::take(&mut self.witness_due),
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
        // SAFETY: the slot is the process's, which no longer writes to it, or has ended.
        if unsafe { std::ptr::read_volatile(self.slots.add(slot)) }.errno == 0 {
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
        // SAFETY: a free slot has no process that writes to it.
        unsafe { self.slots.add(slot).write(Slot { errno: 0, step: 0 }) };
        let (witness, builtin) = (manner.witness, manner.builtin);
        let stack = std::mem::take(&mut self.stack);
        let mut start = Start { stem: self, command, manner, slot };
        let argument = (&mut start as *mut Start).cast();
        // A plain user inspects a process only while it is dumpable, which the stem must not become with it: then
        // the witness is a copy; and so is what goes on without an execve.
        // SAFETY: this process has one thread, and the child never returns.
        let started = unsafe {
            if builtin || witness && !self.birth.privileged {
                process::fork().map(|pid| pid.unwrap_or_else(|| become_command(argument)))
            } else {
                process::vfork_with(stack, become_command, argument)
            }
        };
        self.stack = stack;
        let pid = match started {
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

    pub fn last_stage(&self, command: &Command, manner: &Manner) -> Outcome<()> {
        let stage = &self.birth.plan.command;
        let &Manner { stdio, terminal, builtin, witness, asker } = manner;
        if witness && self.birth.privileged {
            // Early, so that the spawner attaches while this process goes on.
            command::announce(self.birth.ctl, &self.report)?;
        }
        // The dispositions are the spawner's, which made them the defaults.
        process::unblock_signals().at("signals", "")?;
        // SAFETY: no memory is passed. A forked child is no group leader, so it can't fail.
        unsafe { libc::setsid() };
        let ctl = witness.then_some(self.birth.ctl);
        let asker = asker.filter(|_| stage.listener_flags != 0);
        command::take_stdio(stdio, [ctl, asker])?;
        if terminal {
            command::take_terminal()?;
        }
        command::enter_workdir(command.workdir)?;
        command::give_up_privileges(stage, command)?;
        if builtin {
            // No execve sets it anew, and fs.suid_dumpable says what the change of credentials makes of it.
            process::prctl(libc::PR_SET_DUMPABLE, 0).at("identity", "")?;
        }
        if let Some(ctl) = ctl {
            if !self.birth.privileged {
                // A plain user inspects a dumpable process, which the change of credentials has undone. Nothing else
                // runs in the box yet, and the process is a copy, so that the stem stays as it is.
                process::prctl(libc::PR_SET_DUMPABLE, 1).at("witness", "")?;
                command::announce(ctl, &self.report)?;
            }
            command::wait_for_tracer(ctl)?;
        }
        if let Some(asker) = asker {
            command::pass_listener(asker)?;
        }
        command::install_own_filters(stage)?;
        if witness {
            command::wait_for_inspection();
        }
        Ok(())
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
    let micros = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64;
    let mut data = frame::header(frame::EXITED, 0, 0);
    data.extend(status.to_le_bytes());
    data.extend(errno.to_le_bytes());
    data.extend(step.to_le_bytes());
    data.extend(usage.map_or(0, |used| micros(used.ru_utime) + micros(used.ru_stime)).to_le_bytes());
    data.extend(usage.map_or(0, |used| used.ru_maxrss as u64).to_le_bytes());
    let _ = socket::send(asker, &data, &[]);
}

/// What a new process needs to become a command.
struct Start<'a> {
    stem: &'a Stem<'a>,
    command: &'a Command<'a>,
    manner: Manner,
    slot: usize,
}

extern "C" fn become_command(argument: *mut libc::c_void) -> i32 {
    // SAFETY: `start` made it, and waits or has made a copy of its memory.
    let start = unsafe { &*argument.cast::<Start>() };
    let fault = match start.stem.last_stage(start.command, &start.manner) {
        Ok(()) if start.manner.builtin => process::exit(start.command.carry_out()),
        Ok(()) => command::execute(start.command),
        Err(fault) => fault,
    };
    // SAFETY: the index is below SLOTS.
    command::leave_word(unsafe { start.stem.slots.add(start.slot) }, &fault);
    process::exit(127)
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
