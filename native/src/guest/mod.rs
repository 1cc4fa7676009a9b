//! A box's first process where no descriptor can be passed into it: what stem and asker say to each other goes through
//! the framed channel, over whatever stream of bytes the box has. Commands get pipes, or a terminal of their own.

mod ends;
mod everything;
mod furnish;
mod hand;
mod ids;
mod next;
mod requests;
pub mod serve;
pub mod stream;
pub mod wire;

use crate::channel::frame::Frame;
use crate::channel::STREAMS;
use crate::fault::{At, Fault, Outcome};
use crate::init::{command, landlock, root};
use crate::plan::{CommandStage, GuestPlan};
use crate::sys::{fd, process, vsock};
use hand::Hand;
use serve::Guest;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use wire::Wire;

/// The longest object of a fault; what a host takes is more.
const FAULT_BYTES: usize = 1024;
/// How long the host's end may be full before a last word is given up.
const LAST_WORD_MS: i32 = 5_000;

/// How a machine's host is reached: by a stream that is there, or where it connects to.
pub enum Way {
    Stream(OwnedFd),
    Listener(OwnedFd),
}

/// Serves the host on these descriptors. `end` is the end of this process.
pub fn run(input: RawFd, output: RawFd, end: fn(i32) -> !) -> ! {
    begin(end, || {
        let [input, output] = settle_in([input, output])?;
        Ok(Guest::new(Wire::new(input, Some(output)).at("stream", "")?, None))
    })
}

/// Serves a machine's host, as its first process.
pub fn serve_machine(way: Way, end: fn(i32) -> !) -> ! {
    match way {
        Way::Stream(stream) => begin(end, || {
            let [stream] = settle_in([stream.as_raw_fd()])?;
            Ok(Guest::new(Wire::new(stream, None).at("stream", "")?, None))
        }),
        Way::Listener(listener) => begin(end, || {
            let [listener] = settle_in([listener.as_raw_fd()])?;
            let wire = accept(&listener)?;
            Ok(Guest::new(wire, Some(listener)))
        }),
    }
}

/// The next channel to the host.
fn accept(listener: &OwnedFd) -> Outcome<Wire> {
    let stream = vsock::accept_host(listener.as_raw_fd()).at("stream", "")?;
    Wire::new(stream, None).at("stream", "")
}

fn begin(end: fn(i32) -> !, make: impl FnOnce() -> Outcome<Guest>) -> ! {
    process::set_name(c"immure-guest");
    let mut guest = match make() {
        Ok(guest) => guest,
        Err(fault) => {
            eprintln!("immure-init: {fault}");
            end(1)
        }
    };
    let outcome = guest.serve();
    // Before anything of ours is closed: an end of input that comes of that must not be taken for a real one.
    everything::end(guest.pids());
    match &outcome {
        Ok(true) => guest.wire.last_word(&Frame::Bye {}, LAST_WORD_MS),
        Ok(false) => {}
        Err(fault) => guest.wire.last_word(&told(fault), LAST_WORD_MS),
    }
    end(i32::from(outcome.is_err()))
}

fn told(fault: &Fault) -> Frame<'_> {
    // Nobody takes more of it.
    let end = fault.object.floor_char_boundary(FAULT_BYTES);
    Frame::Fault { step: fault.step, object: &fault.object[..end], errno: fault.errno as u16 }
}

/// Signals, descriptors and orphans as a guest needs them, whatever started it. Gives its own copies of `needed`, and
/// nothing else stays open.
fn settle_in<const COUNT: usize>(needed: [RawFd; COUNT]) -> Outcome<[OwnedFd; COUNT]> {
    process::default_signals().at("signals", "")?;
    // An error in its place; a command's own mask is empty.
    process::block_signal(libc::SIGPIPE).at("signals", "")?;
    let copies = needed.map(fd::dup_high).into_iter().collect::<Result<Vec<_>, _>>().at("stream", "")?;
    let mut kept: Vec<RawFd> = copies.iter().map(wire::raw).chain([2]).collect();
    fd::close_all_but(&mut kept).at("descriptors", "")?;
    // A command's streams must not have standard numbers here.
    for number in 0..3 {
        fd::occupy(number).at("descriptors", "/dev/null")?;
    }
    if std::process::id() != 1 {
        process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).at("subreaper", "")?;
    }
    copies.try_into().map_err(|_| Fault::new("stream", "", libc::EINVAL))
}

/// A guest has three descriptors for each command. What it takes more than it was given is not its commands'.
fn take_descriptors(stage: &mut CommandStage) -> Outcome<()> {
    let resource = libc::RLIMIT_NOFILE;
    let (soft, hard) = process::limit(resource).at("rlimit", "descriptors")?;
    if !stage.rlimits.iter().any(|one| one.0 == resource) {
        stage.rlimits.push((resource, soft, hard));
    }
    let wanted = u64::from(3 * STREAMS + 64);
    process::set_limit(resource, wanted.clamp(soft, hard.max(soft)), hard).at("rlimit", "descriptors")
}

/// Makes what is missing of the box, applies what commands inherit, as a stem does, and says how Landlock answered.
fn apply(plan: &'static GuestPlan) -> Outcome<(Hand, Option<landlock::Sentinel>)> {
    let stage = &plan.command;
    if stage.listener_flags != 0 {
        // There is nobody to pass one to.
        return Err(Fault::new("seccomp", "listener", libc::EINVAL));
    }
    if plan.drop_groups && plan.own_ids.is_some() {
        return Err(Fault::new("identity", "groups", libc::EINVAL));
    }
    if let Some(moment) = &plan.moment {
        crate::machine::set_moment(moment)?;
    }
    furnish::add(&plan.image)?;
    root::complete(&plan.root)?;
    if let Some(own) = &plan.own_ids {
        ids::take(own)?;
    }
    if let Some(id) = plan.own_id {
        ids::become_ids(id, id)?;
    }
    command::drop_bounding_set(stage)?;
    command::prepare_for_commands(stage, plan.drop_groups)?;
    let sentinel = match &plan.landlock {
        Some(rules) => landlock::enter_as_known(rules)?,
        None => None,
    };
    crate::init::hide_from_box()?;
    Ok((Hand::new(stage)?, sentinel))
}
