//! Process 2 of a box: every command is forked from it, so that all of them share one Landlock domain.

use super::command::{self, Command, Slot};
use super::{landlock, Birth};
use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::sys::poll::Poller;
use crate::sys::{fd, process, socket};
use std::ffi::{c_char, CStr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Commands that can run at once in one box.
const SLOTS: usize = 4096;

const STACK_BYTES: usize = 64 * 1024;

/// Tokens of the poller; a command's is its number above these.
const SIGNALS: u64 = 0;
const ENGINE: u64 = 1;
const FIRST_COMMAND: u64 = 2;

struct Running {
    token: u64,
    pid: i32,
    slot: usize,
    /// To whoever asked for the command: its exit goes out here, signals come in, and its end ends the command.
    asker: OwnedFd,
}

struct Stem<'a> {
    birth: &'a Birth<'a>,
    /// What the witness passes on: how Landlock answered.
    report: Vec<u8>,
    slots: *mut Slot,
    running: Vec<Running>,
    next_token: u64,
    /// For the process that becomes a command; one at a time.
    stack: &'static mut [u8],
    signals: OwnedFd,
    poller: Poller,
    /// The first command of a one-shot box is its witness: the spawner inspects it before its execve.
    witness_due: bool,
}

/// `rope` is closed when the box is to end, which is sooner noticed than this process's own end.
pub fn run(birth: &Birth, rope: OwnedFd) -> ! {
    if let Err(fault) = live(birth, &rope) {
        // Where the spawner no longer listens, the end of this process tells it all.
        let _ = socket::send(birth.ctl, &frame::fault(frame::FAULT, 0, &fault), &[]);
    }
    process::exit(0)
}

fn live(birth: &Birth, rope: &OwnedFd) -> Outcome<()> {
    process::set_name(c"immure-stem");
    fd::close_all_but(&mut [0, 1, 2, birth.ctl, birth.engine, rope.as_raw_fd()]).at("descriptors", "")?;
    let mut report = frame::header(frame::WITNESS, 0, 0);
    if birth.bare_user.is_some() {
        // Without a user namespace it may be all that entitles a process to confine itself.
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at("no_new_privs", "")?;
    }
    if let Some(rules) = &birth.plan.landlock {
        landlock::enter(rules, &mut report)?;
    }
    command::install_inherited_filters(&birth.plan.command)?;
    super::hide_from_box()?;
    let mut stem = Stem {
        birth,
        report,
        slots: fd::map_shared(SLOTS * std::mem::size_of::<Slot>()).at("slots", "")?.cast(),
        running: Vec::new(),
        next_token: FIRST_COMMAND,
        stack: fd::map_private(STACK_BYTES).at("stack", "")?,
        poller: Poller::new().at("poll", "")?,
        signals: process::watch_signals().at("signals", "")?,
        witness_due: birth.one_shot,
    };
    if !birth.one_shot {
        stem.show_witness()?;
    }
    stem.serve()?;
    // The box's end begins here; what is left of this process is not waited for.
    socket::send(rope.as_raw_fd(), b".", &[]).at("bell", "")
}

impl Stem<'_> {
    /// A process that passes the last stage only to be inspected.
    fn show_witness(&mut self) -> Outcome<()> {
        let command = Command {
            uid: self.birth.bare_user.map_or(self.birth.plan.user, |ids| ids.0),
            gid: self.birth.bare_user.map_or(self.birth.plan.group, |ids| ids.1),
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
        self.poller.add(self.signals.as_raw_fd(), SIGNALS).at("poll", "signals")?;
        self.poller.add(self.birth.engine, ENGINE).at("poll", "engine")?;
        let mut ready = Vec::new();
        let mut buffer = [0; frame::LIMIT];
        loop {
            self.poller.wait(&mut ready, -1).at("poll", "")?;
            for &token in &ready {
                match token {
                    SIGNALS => {
                        process::drain_signals(self.signals.as_raw_fd());
                        if self.reap()? {
                            return Ok(());
                        }
                    }
                    ENGINE => match socket::receive(self.birth.engine, &mut buffer) {
                        Ok(Some(message)) => self.exec(message)?,
                        Ok(None) => return Ok(()),
                        // No room for its descriptors: they are closed, and so the asker knows.
                        Err(libc::EMSGSIZE) => {}
                        Err(errno) => return Err(Fault::new("request", "", errno)),
                    },
                    _ => self.hear_asker(token),
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
            self.poller.remove(done.asker.as_raw_fd());
            // SAFETY: the slot's process is gone; the index is below SLOTS.
            let word = unsafe { std::ptr::read_volatile(self.slots.add(done.slot)) };
            tell_exit(&done.asker, status, word.errno, word.step, Some(&usage));
            if self.birth.one_shot {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn hear_asker(&mut self, token: u64) {
        let Some(one) = self.running.iter().find(|one| one.token == token) else {
            return;
        };
        let mut buffer = [0; 64];
        let message = socket::receive(one.asker.as_raw_fd(), &mut buffer).ok().flatten();
        let request = message.as_ref().and_then(|message| frame::split(message.data));
        match request {
            Some((header, mut rest)) if header.kind == frame::SIGNAL => {
                let signal = frame::take_u32(&mut rest).unwrap_or(0) as i32;
                send_signal(one.pid, signal, header.flags & frame::GROUP != 0);
            }
            // Closed, or nonsense: nobody waits for the command any more.
            _ => {
                self.poller.remove(one.asker.as_raw_fd());
                send_signal(one.pid, libc::SIGKILL, true);
            }
        }
    }

    /// Descriptors: the asker's socket, standard input (but with NO_INPUT), output and error, and with IN_FILE the
    /// payload.
    fn exec(&mut self, message: socket::Message) -> Outcome<()> {
        let bad = |what: &str| Fault::new("request", what, libc::EBADMSG);
        let (header, inline) = frame::split(message.data).ok_or_else(|| bad("header"))?;
        let in_file = header.flags & frame::IN_FILE != 0;
        let input = usize::from(header.flags & frame::NO_INPUT == 0);
        if header.kind != frame::EXEC || message.fds.len() != 3 + input + usize::from(in_file) {
            return Err(bad("exec"));
        }
        let file;
        let payload = if in_file {
            file = fd::read_all(message.fds[3 + input].as_raw_fd()).at("request", "file")?;
            &file[..]
        } else {
            inline
        };
        let mut command = parse(payload).ok_or_else(|| bad("command"))?;
        if let Some((uid, gid)) = self.birth.bare_user {
            (command.uid, command.gid) = (uid, gid);
        }
        let null = match input {
            // The host's could not be opened anew through /proc or /dev/stdin: Landlock knows the box's alone.
            0 => Some(fd::open("/dev/null", libc::O_RDONLY).at("request", "/dev/null")?),
            _ => None,
        };
        let first = null.as_ref().unwrap_or(&message.fds[1]);
        let stdio = [first, &message.fds[1 + input], &message.fds[2 + input]].map(|file| file.as_raw_fd());
        match message.fds[0].try_clone() {
            Ok(asker) => self.start(&command, stdio, asker),
            Err(_) => {
                tell_exit(&message.fds[0], 0, libc::EMFILE, 1, None);
                Ok(())
            }
        }
    }

    fn start(&mut self, command: &Command, stdio: [RawFd; 3], asker: OwnedFd) -> Outcome<()> {
        let Some(slot) = (0..SLOTS).find(|index| self.running.iter().all(|one| one.slot != *index)) else {
            tell_exit(&asker, 0, libc::EAGAIN, 1, None);
            return Ok(());
        };
        // SAFETY: a free slot has no process that writes to it.
        unsafe { self.slots.add(slot).write(Slot { errno: 0, step: 0 }) };
        let witness = std::mem::take(&mut self.witness_due);
        let stack = std::mem::take(&mut self.stack);
        let mut start = Start { stem: self, command, stdio, witness, slot };
        let argument = (&mut start as *mut Start).cast();
        // A plain user inspects a process only while it is dumpable, which the stem must not become with it: then
        // the witness is a copy. SAFETY: this process has one thread, and the child never returns.
        let started = unsafe {
            if witness && !self.birth.privileged {
                process::fork().map(|pid| pid.unwrap_or_else(|| become_command(argument)))
            } else {
                process::vfork_with(stack, become_command, argument)
            }
        };
        self.stack = stack;
        let pid = match started {
            Ok(pid) => pid,
            Err(errno) => {
                tell_exit(&asker, 0, errno, 1, None);
                return Ok(());
            }
        };
        let token = self.next_token;
        self.next_token += 1;
        self.poller.add(asker.as_raw_fd(), token).at("poll", "asker")?;
        self.running.push(Running { token, pid, slot, asker });
        if witness {
            return self.close_ctl();
        }
        Ok(())
    }

    fn last_stage(&self, command: &Command, stdio: [RawFd; 3], witness: bool) -> Outcome<()> {
        let stage = &self.birth.plan.command;
        if witness && self.birth.privileged {
            // Early, so that the spawner attaches while this process goes on.
            command::announce(self.birth.ctl, &self.report)?;
        }
        // The dispositions are the spawner's, which made them the defaults.
        process::unblock_signals().at("signals", "")?;
        // SAFETY: no memory is passed.
        unsafe { libc::umask(stage.umask) };
        // SAFETY: no memory is passed. A forked child is no group leader, so it can't fail.
        unsafe { libc::setsid() };
        let ctl = witness.then_some(self.birth.ctl);
        command::take_stdio(stdio, ctl)?;
        command::enter_workdir(command.workdir)?;
        command::give_up_privileges(stage, command, self.birth.range)?;
        if let Some(ctl) = ctl {
            if !self.birth.privileged {
                // A plain user inspects a dumpable process, which the change of credentials has undone. Nothing else
                // runs in the box yet, and the process is a copy, so that the stem stays as it is.
                process::prctl(libc::PR_SET_DUMPABLE, 1).at("witness", "")?;
                command::announce(ctl, &self.report)?;
            }
            command::wait_for_tracer(ctl)?;
        }
        command::install_profile(stage)?;
        if witness {
            command::wait_for_inspection();
        }
        Ok(())
    }
}

/// Before its setsid a command has no group of its own yet; then its process alone takes the signal.
fn send_signal(pid: i32, signal: i32, group: bool) {
    if !group || process::kill(-pid, signal).is_err() {
        // It may have ended; its exit is on the way.
        let _ = process::kill(pid, signal);
    }
}

/// An asker that is gone does not want to know.
fn tell_exit(asker: &OwnedFd, status: i32, errno: i32, step: u32, usage: Option<&libc::rusage>) {
    let micros = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64;
    let mut data = frame::header(frame::EXITED, 0, 0);
    data.extend(status.to_le_bytes());
    data.extend(errno.to_le_bytes());
    data.extend(step.to_le_bytes());
    data.extend(usage.map_or(0, |used| micros(used.ru_utime) + micros(used.ru_stime)).to_le_bytes());
    data.extend(usage.map_or(0, |used| used.ru_maxrss as u64).to_le_bytes());
    let _ = socket::send(asker.as_raw_fd(), &data, &[]);
}

/// What a new process needs to become a command.
struct Start<'a> {
    stem: &'a Stem<'a>,
    command: &'a Command<'a>,
    stdio: [RawFd; 3],
    witness: bool,
    slot: usize,
}

extern "C" fn become_command(argument: *mut libc::c_void) -> i32 {
    // SAFETY: `start` made it, and waits or has made a copy of its memory.
    let start = unsafe { &*argument.cast::<Start>() };
    let fault = match start.stem.last_stage(start.command, start.stdio, start.witness) {
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
