//! The stem: every command is forked from it, so that all of them share one Landlock domain. It also reaps what
//! commands leave behind.

use super::command::{self, Command};
use super::start::{send_signal, tell_exit};
use super::starter::{last_stage, Manner, Starter};
use super::{landlock, Birth, Order};
use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::sys::poll::Poller;
use crate::sys::{fd, process, socket, terminal};
use std::os::fd::{AsRawFd, OwnedFd};

/// Tokens of the poller; an asker's is its number above these.
const SIGNALS: u64 = 0;
const ENGINE: u64 = 1;
const SPAWNER: u64 = 2;
const FIRST_ASKER: u64 = 3;

/// Whoever asks for commands, one after another: their exits go out on its socket, signals come in, and its end ends
/// the command.
pub struct Asker {
    pub token: u64,
    pub socket: OwnedFd,
    pub running: Option<Running>,
    /// Its end was seen while a command ran.
    pub gone: bool,
}

pub struct Running {
    pub pid: i32,
    pub slot: usize,
    /// Open until the exit has been told.
    pub held: Vec<OwnedFd>,
}

pub struct Stem<'a> {
    pub birth: &'a Birth<'a>,
    pub order: &'a Order,
    /// What the witness passes on: how Landlock answered.
    pub report: Vec<u8>,
    pub starter: Starter<'a>,
    pub askers: Vec<Asker>,
    pub next_token: u64,
    pub poller: Poller,
    signals: OwnedFd,
    /// The first command of a one-shot box is its witness: the spawner inspects it before its execve.
    pub witness_due: bool,
    /// Nothing is started before the box goes on, whoever asks.
    pub paused: bool,
}

/// `rope` tells a supervisor that the box is to end, which is sooner noticed than this process's own end.
pub fn run(birth: &Birth, rope: Option<&OwnedFd>) -> Outcome<()> {
    let mut report = frame::header(frame::WITNESS, 0, 0);
    // With no_new_privs, which without a user namespace may be all that entitles a process to confine itself.
    command::prepare_for_commands(&birth.plan.command, birth.range)?;
    if let Some(rules) = &birth.plan.landlock {
        let sentinel = landlock::enter(rules, birth.bare_user.is_some())?;
        frame::put_item(&mut report, "sentinel.before", &sentinel.before.to_le_bytes());
        frame::put_item(&mut report, "sentinel.after", &sentinel.after.to_le_bytes());
    }
    super::hide_from_box()?;
    let starter = Starter::new(&birth.plan.command)?;
    let poller = Poller::new().at("poll", "")?;
    let signals = process::watch_signals().at("signals", "")?;
    poller.add(signals.as_raw_fd(), SIGNALS).at("poll", "signals")?;
    if rope.is_none() {
        poller.add(birth.spawner, SPAWNER).at("poll", "spawner")?;
    }
    // From here on this process itself is under those filters that leave it what it needs.
    command::install_inherited_filters(&birth.plan.command)?;
    let order = birth.order()?;
    poller.add(order.engine, ENGINE).at("poll", "engine")?;
    let mut stem = Stem {
        birth,
        order,
        report,
        starter,
        askers: Vec::new(),
        next_token: FIRST_ASKER,
        poller,
        signals,
        witness_due: order.one_shot,
        paused: false,
    };
    if birth.plan.command.listener_flags != 0 && !order.one_shot {
        // The witness of a box that stays has nobody who could answer for its calls.
        return Err(Fault::new("seccomp", "listener", libc::EINVAL));
    }
    if !order.one_shot {
        stem.show_witness()?;
    }
    stem.serve()?;
    // The box's end begins here; what is left of this process is not waited for.
    match rope {
        Some(rope) => socket::send(rope.as_raw_fd(), b".", &[]).at("bell", ""),
        None => process::exit(0),
    }
}

/// A terminal of the box's own, so that programs find theirs under the name that they are told.
fn give_terminal(message: socket::Message) -> Outcome<()> {
    let Some(asker) = message.fds.first() else {
        return Err(Fault::new("request", "terminal", libc::EBADMSG));
    };
    let mut answer = frame::header(frame::OPENED_TERMINAL, 0, 0);
    // Whoever asked and is gone does not want it.
    let _ = match terminal::open() {
        Ok((ours, theirs)) => {
            socket::send(asker.as_raw_fd(), &answer, &[ours.as_raw_fd(), theirs.as_raw_fd()])
        }
        Err(errno) => {
            answer.extend(errno.to_le_bytes());
            socket::send(asker.as_raw_fd(), &answer, &[])
        }
    };
    Ok(())
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
        let witness = Some(self.witness());
        let manner = Manner { stdio: [0, 1, 2], terminal: false, builtin: false, witness, asker: None };
        // SAFETY: this process has one thread.
        if unsafe { process::fork() }.at("witness", "fork")?.is_none() {
            let fault = last_stage(&self.birth.plan.command, &command, &manner).err();
            if let Some(fault) = &fault {
                let _ = socket::send(self.birth.ctl, &frame::fault(frame::FAULT, 0, fault), &[]);
            }
            process::exit(0);
        }
        self.close_ctl()
    }

    pub fn close_ctl(&self) -> Outcome<()> {
        let ctl = self.birth.ctl as u32;
        fd::close_range(ctl, ctl).at("descriptors", "ctl")
    }

    fn serve(&mut self) -> Outcome<()> {
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
                    ENGINE => match socket::receive(self.order.engine, &mut buffer) {
                        Ok(Some(message)) => self.hear_engine(message)?,
                        Ok(None) => return Ok(()),
                        // No room for its descriptors: they are closed, and so the asker knows.
                        Err(libc::EMSGSIZE) => {}
                        Err(errno) => return Err(Fault::new("request", "", errno)),
                    },
                    SPAWNER => return Ok(()),
                    _ => self.hear_asker(token, &mut buffer)?,
                }
            }
        }
    }

    fn hear_engine(&mut self, message: socket::Message) -> Outcome<()> {
        match frame::split(message.data).map(|(header, _)| header.kind) {
            Some(frame::PAUSE) => self.pause(true),
            Some(frame::RESUME) => self.pause(false),
            Some(frame::OPEN_TERMINAL) => give_terminal(message),
            _ => self.exec_of_new(message),
        }
    }

    fn pause(&mut self, paused: bool) -> Outcome<()> {
        self.signal_all(if paused { libc::SIGSTOP } else { libc::SIGCONT })?;
        self.paused = paused;
        Ok(())
    }

    /// All processes of the namespace but this one, in one call: none can be made meanwhile. kill(2).
    fn signal_all(&self, signal: i32) -> Outcome<()> {
        if self.birth.bare_user.is_some() {
            // Without a namespace that would be all that this user runs.
            return Err(Fault::new("request", "pause", libc::EINVAL));
        }
        match process::kill(-1, signal) {
            // There is none.
            Err(libc::ESRCH) => Ok(()),
            other => other.at("pause", ""),
        }
    }

    /// Reports what has ended. True where that ends the box.
    fn reap(&mut self) -> Outcome<bool> {
        while let Some((pid, status, usage)) = process::wait(-1, libc::WNOHANG).at("wait", "")? {
            let is_it = |one: &Asker| one.running.as_ref().is_some_and(|it| it.pid == pid);
            let Some(place) = self.askers.iter().position(is_it) else {
                continue;
            };
            let asker = &mut self.askers[place];
            let Some(done) = asker.running.take() else {
                continue;
            };
            let word = self.starter.word(done.slot);
            tell_exit(asker.socket.as_raw_fd(), status, word.errno, word.step, Some(&usage));
            drop(done.held);
            if asker.gone {
                self.askers.swap_remove(place);
            }
            if self.order.one_shot {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn hear_asker(&mut self, token: u64, buffer: &mut [u8]) -> Outcome<()> {
        let Some(place) = self.askers.iter().position(|one| one.token == token) else {
            return Ok(());
        };
        let one = &mut self.askers[place];
        let pid = one.running.as_ref().map(|it| it.pid);
        let message = socket::receive(one.socket.as_raw_fd(), buffer).ok().flatten();
        let request = message.as_ref().and_then(|message| frame::split(message.data));
        match (request, pid) {
            (Some((header, mut rest)), _) if header.kind == frame::SIGNAL => {
                let signal = frame::take_u32(&mut rest).unwrap_or(0) as i32;
                // One that comes too late is for nobody.
                if let Some(pid) = pid {
                    send_signal(pid, signal, header.flags & frame::GROUP != 0);
                }
                Ok(())
            }
            (Some(_), None) => match message {
                Some(message) => self.exec(place, message),
                None => Ok(()),
            },
            // Closed, or nonsense: nobody waits for the command any more.
            (_, pid) => {
                self.poller.remove(one.socket.as_raw_fd());
                one.gone = true;
                match pid {
                    Some(pid) => send_signal(pid, libc::SIGKILL, true),
                    None => drop(self.askers.swap_remove(place)),
                }
                Ok(())
            }
        }
    }
}
