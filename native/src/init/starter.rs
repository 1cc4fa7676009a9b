//! Making the process that becomes a command, and the last stage before its execve: the same whoever asks for it, and
//! however its streams come.

use super::command::{self, Command, Slot};
use crate::fault::{At, Fault, Outcome};
use crate::plan::CommandStage;
use crate::sys::{fd, process, Sys};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Commands that can run at once in one box.
pub const SLOTS: usize = 4096;

const STACK_BYTES: usize = 64 * 1024;

/// What else there is to a command's start.
pub struct Manner {
    pub stdio: [RawFd; 3],
    /// Standard input is a terminal, to be the controlling one.
    pub terminal: bool,
    /// No program is executed: the process stays what it is.
    pub builtin: bool,
    pub witness: Option<Witness>,
    /// For the listener of a filter that has one.
    pub asker: Option<RawFd>,
}

/// To whom a process shows itself before its execve, and with what.
pub struct Witness {
    pub ctl: RawFd,
    pub report: Vec<u8>,
    /// The spawner may inspect any process, dumpable or not.
    pub privileged: bool,
}

pub struct Starter<'a> {
    stage: &'a CommandStage,
    slots: *mut Slot,
    /// For the process that becomes a command; one at a time.
    stack: &'static mut [u8],
    /// Standard input for commands that bring none: the box's own. The host's could not be opened anew through /proc or
    /// /dev/stdin, since Landlock knows the box's alone.
    null: Sys<OwnedFd>,
}

impl<'a> Starter<'a> {
    pub fn new(stage: &'a CommandStage) -> Outcome<Starter<'a>> {
        Ok(Starter {
            stage,
            slots: fd::map_shared(SLOTS * std::mem::size_of::<Slot>()).at("slots", "")?.cast(),
            stack: fd::map_private(STACK_BYTES).at("stack", "")?,
            null: fd::open("/dev/null", libc::O_RDONLY),
        })
    }

    pub fn null(&self) -> Outcome<RawFd> {
        match &self.null {
            Ok(null) => Ok(null.as_raw_fd()),
            Err(errno) => Err(Fault::new("request", "/dev/null", *errno)),
        }
    }

    /// Where the next process with this slot leaves word. It is one that no other process has.
    pub fn clear(&self, slot: usize) -> *mut Slot {
        // SAFETY: a free slot has no process that writes to it; the index is below SLOTS.
        let word = unsafe { self.slots.add(slot) };
        // SAFETY: as above.
        unsafe { word.write(Slot { errno: 0, step: 0 }) };
        word
    }

    /// What a process left in its slot: it has made its execve, or has ended.
    pub fn word(&self, slot: usize) -> Slot {
        // SAFETY: the slot's process no longer writes to it; the index is below SLOTS.
        unsafe { std::ptr::read_volatile(self.slots.add(slot)) }
    }

    /// The new process. `slot` is one that no other process has.
    pub fn start(&mut self, command: &Command, manner: Manner, slot: usize) -> Sys<i32> {
        let word = self.clear(slot);
        let stays = manner.builtin && !command.is_short();
        let copied = stays || manner.witness.as_ref().is_some_and(|it| !it.privileged);
        let mut start = Start { stage: self.stage, word, command, manner };
        let argument = (&mut start as *mut Start).cast();
        // A plain user inspects a process only while it is dumpable, which the stem must not become with it: then
        // the witness is a copy; and so is what goes on without an execve, unless it is soon over.
        // SAFETY: one thread of this process runs, any other waits for it, and the child never returns.
        unsafe {
            if copied {
                process::fork().map(|pid| pid.unwrap_or_else(|| become_command(argument)))
            } else {
                process::vfork_with(self.stack, become_command, argument)
            }
        }
    }
}

/// What a new process needs to become a command.
struct Start<'a> {
    stage: &'a CommandStage,
    word: *mut Slot,
    command: &'a Command<'a>,
    manner: Manner,
}

extern "C" fn become_command(argument: *mut libc::c_void) -> i32 {
    // SAFETY: `start` made it, and waits or has made a copy of its memory.
    let start = unsafe { &*argument.cast::<Start>() };
    let fault = match last_stage(start.stage, start.command, &start.manner) {
        Ok(()) if start.manner.builtin => process::exit(start.command.carry_out()),
        Ok(()) => command::execute(start.command),
        Err(fault) => fault,
    };
    command::leave_word(start.word, &fault);
    process::exit(127)
}

pub fn last_stage(stage: &CommandStage, command: &Command, manner: &Manner) -> Outcome<()> {
    let &Manner { stdio, terminal, builtin, ref witness, asker } = manner;
    if let Some(witness) = witness.as_ref().filter(|it| it.privileged) {
        // Early, so that the spawner attaches while this process goes on.
        command::announce(witness.ctl, &witness.report)?;
    }
    // The dispositions are the spawner's, which made them the defaults.
    process::unblock_signals().at("signals", "")?;
    // SAFETY: no memory is passed. A forked child is no group leader, so it can't fail.
    unsafe { libc::setsid() };
    let asker = asker.filter(|_| stage.listener_flags != 0);
    command::take_stdio(stdio, [witness.as_ref().map(|it| it.ctl), asker])?;
    if terminal {
        command::take_terminal()?;
    }
    command::enter_workdir(command.workdir)?;
    command::set_limits(stage)?;
    command::give_up_privileges(stage, command)?;
    if builtin {
        // No execve sets it anew, and fs.suid_dumpable says what the change of credentials makes of it.
        process::prctl(libc::PR_SET_DUMPABLE, 0).at("identity", "")?;
    }
    if let Some(witness) = witness {
        if !witness.privileged {
            // A plain user inspects a dumpable process, which the change of credentials has undone. Nothing else
            // runs in the box yet, and the process is a copy, so that the stem stays as it is.
            process::prctl(libc::PR_SET_DUMPABLE, 1).at("witness", "")?;
            command::announce(witness.ctl, &witness.report)?;
        }
        command::wait_for_tracer(witness.ctl)?;
    }
    if let Some(asker) = asker {
        command::pass_listener(asker)?;
    }
    command::install_own_filters(stage)?;
    if witness.is_some() {
        command::wait_for_inspection();
    }
    Ok(())
}

/// What of the last stage is the same for every command, for one that nobody has asked for yet. It comes before the
/// rest, so that its filters have to leave a process what `stage_at_last` and an execve need.
pub fn stage_ahead(stage: &CommandStage, stdio: [RawFd; 3]) -> Outcome<()> {
    process::unblock_signals().at("signals", "")?;
    // SAFETY: no memory is passed. A forked child is no group leader, so it can't fail.
    unsafe { libc::setsid() };
    command::take_stdio(stdio, [None, None])?;
    command::set_limits(stage)?;
    command::install_own_filters(stage)
}

/// The rest of it.
pub fn stage_at_last(stage: &CommandStage, command: &Command) -> Outcome<()> {
    command::enter_workdir(command.workdir)?;
    command::give_up_privileges(stage, command)
}
