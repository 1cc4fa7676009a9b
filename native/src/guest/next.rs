//! The process of the next command, begun before anybody asks for it: all of a command's last stage is behind it that
//! is the same for every command, its filters among that, which a Sentry looks through for every number of a call when
//! they are installed. It waits for the rest, and for its program.
//!
//! It is made, as any command's process, in the memory of this one, by a thread that is held until its execve.

use super::ends::Ends;
use crate::channel::frame::Output;
use crate::fault::{At, Fault, Outcome};
use crate::init::command::{self, parse, Command, Slot};
use crate::init::starter::{stage_ahead, stage_at_last};
use crate::plan::CommandStage;
use crate::sys::process::{self, Child};
use crate::sys::{fd, sync, Sys};
use std::cell::UnsafeCell;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::thread;

/// Of the thread, and of the process that it makes.
const STACK_BYTES: usize = 256 * 1024;
const CHILD_STACK_BYTES: usize = 64 * 1024;

/// Nothing is wanted of the thread.
const IDLE: u32 = 0;
/// It is to make one, or has.
const WANTED: u32 = 1;
/// Somebody is about to have that become a command.
const CLAIMED: u32 = 2;
/// It becomes one, and the thread is held until its execve.
const TAKEN: u32 = 3;

/// Readers and writers of the two outputs.
type Pipes = [(OwnedFd, OwnedFd); 2];

/// What the thread, the process and their guest have in common.
struct Place {
    stage: &'static CommandStage,
    null: RawFd,
    own_id: u32,
    state: AtomicU32,
    /// The process's, once it runs; 0 before.
    pid: AtomicI32,
    /// It ended before it was wanted.
    lost: AtomicBool,
    /// Whose pipes are to be.
    owner: UnsafeCell<(u32, u32)>,
    /// The thread's until there is a pid, then theirs who move the state on from `WANTED`.
    pipes: UnsafeCell<Option<Pipes>>,
    /// The guest's until `TAKEN`, then the process's, until the thread goes on.
    task: UnsafeCell<Option<Task>>,
}

// SAFETY: as said at each field.
unsafe impl Sync for Place {}

impl Place {
    fn is(&self, state: u32) -> bool {
        self.state.load(Ordering::Acquire) == state
    }

    /// False where somebody else has moved it on.
    fn moves(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// What it is to do.
struct Task {
    command: Command<'static>,
    word: *mut Slot,
    /// What `command` points into.
    _payload: Box<[u8]>,
}

pub struct Next {
    place: &'static Place,
    /// A command was asked for, and whose the last was, to whom the pipes are given ahead.
    asked: bool,
    owner: (u32, u32),
}

impl Next {
    pub fn new(stage: &'static CommandStage, null: RawFd, own_id: u32) -> Outcome<Next> {
        let place: &Place = Box::leak(Box::new(Place {
            stage,
            null,
            own_id,
            state: AtomicU32::new(IDLE),
            pid: AtomicI32::new(0),
            lost: AtomicBool::new(false),
            owner: UnsafeCell::new((0, 0)),
            pipes: UnsafeCell::new(None),
            task: UnsafeCell::new(None),
        }));
        let stack = fd::map_private(CHILD_STACK_BYTES).at("stack", "")?;
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || live(place, stack))
            .map_err(|error| Fault::new("next", "thread", error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
        Ok(Next { place, asked: false, owner: process::effective_ids() })
    }

    /// Its process where it waits, or will: for nobody yet.
    pub fn pid(&self) -> Option<i32> {
        let pid = self.place.pid.load(Ordering::Acquire);
        (pid != 0 && self.place.is(WANTED)).then_some(pid)
    }

    /// Whether one is about to be there.
    pub fn is_being_made(&self) -> bool {
        self.place.is(WANTED) && self.place.pid.load(Ordering::Acquire) == 0
    }

    /// Has it become a command: its pid and its ends. None where there is none.
    pub fn take(&mut self, payload: &[u8], owner: (u32, u32), word: *mut Slot) -> Option<(i32, Ends)> {
        self.asked = true;
        self.owner = owner;
        let pid = self.pid()?;
        match process::look_at(pid) {
            Child::Runs => {}
            // By something in the box. The thread learns of its end, and there is no other one then.
            Child::Stopped => {
                let _ = process::kill(pid, libc::SIGKILL);
                return None;
            }
            Child::Gone => return None,
        }
        let payload: Box<[u8]> = payload.into();
        // SAFETY: it is kept with what points into it, and stays where it is.
        let command = parse(unsafe { std::slice::from_raw_parts(payload.as_ptr(), payload.len()) })?;
        // SAFETY: nobody else has it before `TAKEN`, and whoever had the last one has made its execve, or has ended.
        unsafe { *self.place.task.get() = Some(Task { command, word, _payload: payload }) };
        if !self.place.moves(WANTED, CLAIMED) {
            return None;
        }
        let ends = self.ends();
        // SAFETY: it is we who have moved on from `WANTED`.
        let theirs = unsafe { *self.place.owner.get() };
        let given = owner == theirs || ends.as_ref().is_some_and(|ends| ends.give_pipes_to(owner).is_ok());
        if !given {
            let _ = process::kill(pid, libc::SIGKILL);
        }
        self.place.state.store(TAKEN, Ordering::Release);
        sync::wake(&self.place.state);
        Some((pid, ends?)).filter(|_| given)
    }

    fn ends(&self) -> Option<Ends> {
        // SAFETY: it is we who have moved on from `WANTED`.
        let [(out, their_out), (err, their_err)] = unsafe { &mut *self.place.pipes.get() }.take()?;
        let outputs = vec![(Output::Stdout, out), (Output::Stderr, err)];
        Some(Ends { input: None, outputs, theirs: vec![their_out, their_err] })
    }

    /// Whether one is to be made once nothing else is to be done: who has asked will ask again.
    pub fn is_due(&self) -> bool {
        // The thread may not have seen yet that the last one is on its way.
        let comes = self.place.is(IDLE) || self.place.is(TAKEN);
        self.asked && comes && !self.place.lost.load(Ordering::Acquire)
    }

    /// Has one made, unless the thread is still held for the last one.
    pub fn make(&self) {
        let place = self.place;
        if !place.is(IDLE) {
            return;
        }
        place.pid.store(0, Ordering::Release);
        // SAFETY: the thread is idle.
        unsafe { *place.owner.get() = self.owner };
        place.state.store(WANTED, Ordering::Release);
        sync::wake(&place.state);
    }
}

/// The thread.
fn live(place: &'static Place, stack: &'static mut [u8]) {
    loop {
        sync::wait_while(&place.state, IDLE);
        if make(place, stack).is_err() {
            place.lost.store(true, Ordering::Release);
        }
        if place.moves(WANTED, IDLE) {
            place.lost.store(true, Ordering::Release);
            // SAFETY: it is we who have moved on from `WANTED`.
            drop(unsafe { &mut *place.pipes.get() }.take());
        } else {
            sync::wait_until(&place.state, TAKEN);
            place.state.store(IDLE, Ordering::Release);
        }
    }
}

/// Makes it, and comes back when it has become its program, or is gone. Nothing is allocated: in a copy of this process
/// that is made meanwhile nobody would release the allocator.
fn make(place: &'static Place, stack: &mut [u8]) -> Sys<()> {
    let (one, other) = (fd::pipe()?, fd::pipe()?);
    // They have no other flags.
    fd::set_flags(one.0.as_raw_fd(), libc::O_NONBLOCK)?;
    fd::set_flags(other.0.as_raw_fd(), libc::O_NONBLOCK)?;
    // SAFETY: there is no pid yet.
    let (uid, gid) = unsafe { *place.owner.get() };
    if uid != place.own_id {
        fd::chown(one.1.as_raw_fd(), uid, gid)?;
        fd::chown(other.1.as_raw_fd(), uid, gid)?;
    }
    // SAFETY: as above.
    unsafe { *place.pipes.get() = Some([one, other]) };
    // SAFETY: this thread waits; what the process and the guest both touch is in `Place`.
    unsafe { process::vfork_with(stack, begin, (&raw const *place).cast_mut().cast()) }.map(drop)
}

extern "C" fn begin(argument: *mut libc::c_void) -> i32 {
    // SAFETY: `make` gave it.
    let place = unsafe { &*argument.cast::<Place>() };
    // SAFETY: there is no pid yet.
    let writers = match unsafe { &*place.pipes.get() } {
        Some([(_, out), (_, err)]) => [out.as_raw_fd(), err.as_raw_fd()],
        None => process::exit(1),
    };
    place.pid.store(std::process::id() as i32, Ordering::Release);
    process::set_name(c"immure-next");
    if stage_ahead(place.stage, [place.null, writers[0], writers[1]]).is_err() {
        process::exit(1);
    }
    sync::wait_until(&place.state, TAKEN);
    // SAFETY: it is ours since `TAKEN`.
    let Some(task) = (unsafe { &*place.task.get() }) else {
        process::exit(1);
    };
    let fault = match stage_at_last(place.stage, &task.command) {
        Ok(()) => command::execute(&task.command),
        Err(fault) => fault,
    };
    command::leave_word(task.word, &fault);
    process::exit(127)
}
