//! A thread that starts commands under the filters that they inherit, which this process can't bear itself: they are
//! installed once, and not by each command. Filters are a thread's own (seccomp(2)).

use super::ends::Ends;
use super::next::Next;
use crate::fault::{At, Fault, Outcome};
use crate::init::command::{self, Command};
use crate::init::starter::{Manner, Starter};
use crate::plan::CommandStage;
use crate::sys::{fd, process, Sys};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

/// Operations that a copy of this thread carries out, files among them, have it too.
const STACK_BYTES: usize = 1 << 20;
const ADDRESS_BYTES: usize = std::mem::size_of::<usize>();

/// Commands are started by one thread at a time: by that of its own while whoever asked waits for it, or by whoever
/// asked where there is nothing to inherit.
pub struct Hand {
    starter: Starter<'static>,
    thread: Option<Line>,
    pub next: Option<Next>,
    /// Who starts them.
    own_id: u32,
}

/// One side's ends of two pipes: to the other side, and from there.
struct Line {
    to: OwnedFd,
    from: OwnedFd,
}

/// What the thread is asked for by its address.
struct Job<'a> {
    starter: &'a mut Starter<'static>,
    command: &'a Command<'a>,
    manner: Option<Manner>,
    slot: usize,
    outcome: Sys<i32>,
}

impl Hand {
    /// What commands inherit beside filters is the caller's, from now on.
    pub fn new(stage: &'static CommandStage) -> Outcome<Hand> {
        let thread = if stage.inherited_filters > 0 { Some(begin(stage)?) } else { None };
        let starter = Starter::new(stage)?;
        let own_id = process::effective_ids().0;
        let next = match stage.ahead {
            true => Some(Next::new(stage, starter.null()?, own_id)?),
            false => None,
        };
        Ok(Hand { starter, thread, next, own_id })
    }

    pub fn own_id(&self) -> u32 {
        self.own_id
    }

    pub fn starter(&self) -> &Starter<'static> {
        &self.starter
    }

    /// Has the process that was begun ahead become this command: its pid and its ends. None where there is none.
    pub fn take_next(&mut self, payload: &[u8], owner: (u32, u32), slot: usize) -> Option<(i32, Ends)> {
        let word = self.starter.clear(slot);
        self.next.as_mut()?.take(payload, owner, word)
    }

    /// As `Starter::start`.
    pub fn start(&mut self, command: &Command, manner: Manner, slot: usize) -> Sys<i32> {
        let Some(thread) = &self.thread else {
            return self.starter.start(command, manner, slot);
        };
        let mut job =
            Job { starter: &mut self.starter, command, manner: Some(manner), slot, outcome: Err(libc::EIO) };
        let address = (&raw mut job).expose_provenance();
        fd::write_all(thread.to.as_raw_fd(), &address.to_ne_bytes())?;
        thread.wait_for_word()?;
        job.outcome
    }
}

impl Line {
    /// An error that the thread has come upon, or the end of it.
    fn wait_for_word(&self) -> Sys<()> {
        let mut word = [0; 4];
        match fd::read(self.from.as_raw_fd(), &mut word)? {
            4 => match i32::from_ne_bytes(word) {
                0 => Ok(()),
                errno => Err(errno),
            },
            _ => Err(libc::EPIPE),
        }
    }
}

/// The thread under its filters.
fn begin(stage: &'static CommandStage) -> Outcome<Line> {
    let (ours, theirs) = lines().at("seccomp", "hand")?;
    let thread = thread::Builder::new().stack_size(STACK_BYTES);
    thread
        .spawn(move || live(stage, &theirs))
        .map_err(|error| Fault::new("seccomp", "hand", error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
    ours.wait_for_word().at("seccomp", "")?;
    Ok(ours)
}

fn lines() -> Sys<(Line, Line)> {
    let ((heard, asks), (from, answers)) = (fd::pipe()?, fd::pipe()?);
    Ok((Line { to: asks, from }, Line { to: answers, from: heard }))
}

/// Its first word is of the filters. Nothing may come after them that the plan does not know of.
fn live(stage: &CommandStage, line: &Line) {
    let installed = command::install_inherited_filters(stage).err().map_or(0, |fault| fault.errno);
    while fd::write_all(line.to.as_raw_fd(), &installed.to_ne_bytes()).is_ok() && installed == 0 {
        let mut address = [0; ADDRESS_BYTES];
        if fd::read(line.from.as_raw_fd(), &mut address) != Ok(ADDRESS_BYTES) {
            break;
        }
        let job = std::ptr::with_exposed_provenance_mut::<Job>(usize::from_ne_bytes(address));
        // SAFETY: whoever made it has sent its address, and does not touch it before our word.
        let job = unsafe { &mut *job };
        if let Some(manner) = job.manner.take() {
            job.outcome = job.starter.start(job.command, manner, job.slot);
        }
    }
}
