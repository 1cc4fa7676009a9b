//! What the host asks for.

use super::ends::Ends;
use super::everything;
use super::serve::{Guest, State};
use super::stream::{Exit, Input, Pipe, Stream};
use crate::channel::frame::{Count, Frame, Output, ALL_FLAGS, BUILTIN, HOLD, NO_INPUT, TELL, TERMINAL};
use crate::channel::{self, FRAME_BYTES_RANGE, STREAMS, STREAMS_RANGE, WINDOW_BYTES_RANGE};
use crate::fault::{Fault, Outcome};
use crate::init::command::{parse, Command};
use crate::init::start::send_signal;
use crate::init::starter::Manner;
use crate::init::stem::Running;
use crate::plan::GuestPlan;
use crate::sys::{terminal, Sys};
use std::os::fd::AsRawFd;

/// What breaks the protocol ends the guest: nobody knows what else was meant otherwise.
pub fn broken(what: &str) -> Fault {
    Fault::new("protocol", what, libc::EBADMSG)
}

/// What the host tells a guest at its beginning.
fn read<'a, T: serde::Deserialize<'a>>(told: &'a [u8]) -> Outcome<T> {
    rmp_serde::from_slice(told).map_err(|error| Fault::new("plan", error.to_string(), libc::EBADMSG))
}

/// What an EXEC says beside its command.
struct Asked {
    id: u32,
    flags: u16,
    size: (u16, u16),
}

impl Guest {
    /// Carries one request out. False where it was the last.
    pub fn hear(&mut self, frame: Frame) -> Outcome<bool> {
        match (self.state, frame) {
            (State::New, Frame::Hello { frame_bytes, streams, window_bytes, .. }) => {
                self.greet(frame_bytes, streams, window_bytes)?
            }
            (State::Ready, Frame::Park {}) => self.park(),
            (State::Parked, Frame::Unpark {}) => self.state = State::Ready,
            (State::Parked, Frame::Hello { frame_bytes, streams, window_bytes, .. }) => {
                self.greet(frame_bytes, streams, window_bytes)?;
                self.state = State::Greeted2;
                self.say_hello();
            }
            (State::Met, Frame::Hello { frame_bytes, streams, window_bytes, .. }) => {
                self.greet(frame_bytes, streams, window_bytes)?;
                self.state = State::Greeted2;
            }
            // By the host of before, over another channel.
            (State::Greeted2, Frame::Unpark {}) => self.state = State::Ready,
            (State::Greeted2, Frame::Adopt { moment }) => self.be_adopted(moment)?,
            (State::Greeted, Frame::Configure { configuration }) => self.configure(configuration)?,
            (State::Ready, Frame::Shutdown {}) => return Ok(false),
            (State::Greeted | State::Greeted2 | State::Ready, Frame::Ping { number }) => {
                self.wire.send(&Frame::Pong { number })
            }
            (State::Ready, Frame::Pause { number }) => {
                self.pausing = Some(number);
                self.stands_still = true;
            }
            (State::Ready, Frame::Resume {}) => {
                self.pausing = None;
                self.stands_still = false;
                everything::signal(libc::SIGCONT)?;
            }
            (State::Ready, Frame::Exec { stream, flags, columns, rows, command }) => {
                self.exec(Asked { id: stream.0, flags, size: (columns, rows) }, command)?
            }
            (State::Ready, frame) => self.hear_of_stream(frame)?,
            _ => return Err(broken("order")),
        }
        Ok(true)
    }

    fn greet(&mut self, frame_bytes: u32, streams: u32, window_bytes: u32) -> Outcome<()> {
        let within = |[least, most]: [u32; 2], value| (least..=most).contains(&value);
        if !within(FRAME_BYTES_RANGE, frame_bytes) || frame_bytes < channel::GUEST_FRAME_BYTES {
            return Err(broken("frame limit"));
        }
        if !within(WINDOW_BYTES_RANGE, window_bytes) || !within(STREAMS_RANGE, streams) {
            return Err(broken("limits"));
        }
        self.window_bytes = window_bytes;
        self.state = State::Greeted;
        Ok(())
    }

    /// Says that it says no more. A pause that has not come to rest is forgotten: whoever goes on asks again.
    fn park(&mut self) {
        self.streams.retain(|one| !one.is_over());
        self.pausing = None;
        self.wire.send(&Frame::Parked {});
        self.state = State::Parked;
    }

    /// Tells another host than before what stands, with nothing under way to either side.
    fn be_adopted(&mut self, moment: &[u8]) -> Outcome<()> {
        if !moment.is_empty() {
            crate::machine::set_moment(&read(moment)?)?;
        }
        for one in &mut self.streams {
            self.wire.send(&one.stand_anew(self.window_bytes));
        }
        self.state = State::Ready;
        self.say_configured(&Frame::Configured { sentinel_before: None, sentinel_after: None });
        Ok(())
    }

    fn configure(&mut self, configuration: &[u8]) -> Outcome<()> {
        let mut plan: GuestPlan = read(configuration)?;
        super::take_descriptors(&mut plan.command)?;
        // As long as this process lives.
        let (hand, sentinel) = super::apply(Box::leak(Box::new(plan)))?;
        self.hand = Some(hand);
        self.state = State::Ready;
        let (sentinel_before, sentinel_after) = sentinel.map(|it| (it.before, it.after)).unzip();
        self.say_configured(&Frame::Configured { sentinel_before, sentinel_after });
        Ok(())
    }

    /// At once: a command that was asked for already may keep this process for a while.
    fn say_configured(&mut self, answer: &Frame) {
        self.wire.send(answer);
        // A host that is gone is noticed when it is heard next.
        let _ = self.wire.flush();
    }

    fn hear_of_stream(&mut self, frame: Frame) -> Outcome<()> {
        let (Frame::Input { stream, .. }
        | Frame::InputEnd { stream }
        | Frame::OutputCredit { stream, .. }
        | Frame::OutputClose { stream, .. }
        | Frame::Signal { stream, .. }
        | Frame::Resize { stream, .. }) = frame
        else {
            return Err(broken("order"));
        };
        let Some(place) = self.place_of(stream)? else {
            // It has ended meanwhile.
            return Ok(());
        };
        let (one, wire, window) = (&mut self.streams[place], &mut self.wire, self.window_bytes);
        match frame {
            Frame::Input { data, .. } => {
                if one.input.as_mut().is_some_and(|input| !input.take(data.0)) {
                    return Err(broken("credit"));
                }
                one.feed(wire, false);
            }
            Frame::InputEnd { .. } => one.end_input(wire),
            Frame::OutputCredit { output, bytes, .. } => {
                let pipe = one.outputs.iter_mut().find(|pipe| pipe.which == output);
                if let Some(pipe) = pipe {
                    let credit = pipe.credit.checked_add(bytes.0).filter(|&credit| credit <= window);
                    pipe.credit = credit.ok_or_else(|| broken("credit"))?;
                }
            }
            Frame::OutputClose { output, .. } => one.end_output(output, wire),
            Frame::Signal { signal, group, .. } => {
                // Not after its end: another process may have its number.
                if let Some(running) = &one.running {
                    send_signal(running.pid, signal.into(), group);
                }
            }
            Frame::Resize { columns, rows, .. } => {
                if let (true, [pipe, ..]) = (one.terminal, &one.outputs[..]) {
                    // One that has just been hung up has no size.
                    let _ = terminal::resize(pipe.fd.as_raw_fd(), columns, rows);
                    let leader = one.running.as_ref().map(|running| running.pid);
                    terminal::tell_of_size(pipe.fd.as_raw_fd(), leader);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// None where it is over. One that was never begun is an error.
    fn place_of(&self, stream: Count) -> Outcome<Option<usize>> {
        if stream.0 > self.last_stream {
            return Err(broken("stream"));
        }
        Ok(self.find(stream.0))
    }

    fn exec(&mut self, asked: Asked, command: &[u8]) -> Outcome<()> {
        if asked.id <= self.last_stream || self.streams.len() >= STREAMS as usize {
            return Err(broken("stream"));
        }
        let payload = command;
        let command = parse(payload).ok_or_else(|| broken("command"))?;
        if asked.flags & !ALL_FLAGS != 0 || asked.flags & (TERMINAL | NO_INPUT) == TERMINAL | NO_INPUT {
            return Err(broken("flags"));
        }
        self.last_stream = asked.id;
        if let Err(errno) = self.start(&asked, &command, payload) {
            self.refuse(&asked, errno);
        }
        Ok(())
    }

    fn start(&mut self, asked: &Asked, command: &Command, payload: &[u8]) -> Sys<()> {
        let &Asked { id, flags, size: (columns, rows) } = asked;
        let slot = self.free_slot();
        let hand = self.hand.as_mut().ok_or(libc::EINVAL)?;
        let owner = (command.uid, command.gid);
        let plain = flags & (NO_INPUT | TERMINAL | BUILTIN | TELL) == NO_INPUT;
        let begun = if plain { hand.take_next(payload, owner, slot) } else { None };
        let (pid, mut ends) = match begun {
            Some(begun) => begun,
            None => {
                let ends = Ends::open(flags, columns, rows, owner, hand.own_id())?;
                let null = hand.starter().null().map_err(|fault| fault.errno)?;
                let manner = Manner {
                    stdio: ends.stdio(null),
                    terminal: flags & TERMINAL != 0,
                    builtin: flags & BUILTIN != 0,
                    witness: None,
                    asker: None,
                };
                (hand.start(command, manner, slot)?, ends)
            }
        };
        if flags & TELL != 0 && hand.starter().word(slot).errno == 0 {
            self.wire.send(&Frame::Started { stream: Count(id) });
        }
        let outputs = ends.theirs.len().min(2);
        let held = match flags & (HOLD | TERMINAL) {
            HOLD => ends.theirs.split_off(ends.theirs.len() - outputs),
            _ => Vec::new(),
        };
        let window = self.window_bytes;
        self.streams.push(Stream {
            id,
            running: Some(Running { pid, slot, held }),
            input: ends.input.map(Input::new),
            outputs: ends.outputs.into_iter().map(|(which, fd)| Pipe::new(which, fd, window)).collect(),
            terminal: flags & TERMINAL != 0,
            plain,
            told: false,
        });
        Ok(())
    }

    /// A command that could not be started for want of something.
    fn refuse(&mut self, asked: &Asked, errno: i32) {
        let exit = Exit { status: 0, errno, step: 1, cpu_us: 0, memory_peak_kib: 0 };
        let mut stream = Stream {
            id: asked.id,
            running: None,
            input: None,
            outputs: Vec::new(),
            terminal: asked.flags & TERMINAL != 0,
            plain: false,
            told: false,
        };
        stream.end(exit, &mut self.wire, &mut []);
        self.wire.send(&Frame::OutputEnd { stream: Count(asked.id), output: Output::Stdout });
        if !stream.terminal {
            self.wire.send(&Frame::OutputEnd { stream: Count(asked.id), output: Output::Stderr });
        }
    }

    fn free_slot(&self) -> usize {
        let taken =
            |slot| self.streams.iter().any(|one| one.running.as_ref().is_some_and(|it| it.slot == slot));
        // There are fewer streams than slots.
        (0..).find(|&slot| !taken(slot)).unwrap_or(0)
    }
}
