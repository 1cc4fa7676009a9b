//! Waiting for everybody at once: the host, the commands' pipes, and the end of processes.

use super::hand::Hand;
use super::next::Next;
use super::requests::broken;
use super::stream::{Exit, Stream};
use super::wire::{raw, Wire, READ_BYTES};
use super::{accept, everything};
use crate::channel::frame::{decode, Frame, Output};
use crate::channel::{self, Splitter, CHUNK_BYTES};
use crate::fault::{At, Fault, Outcome};
use crate::init::start::micros;
use crate::sys::{fd, process};
use std::os::fd::{AsRawFd, OwnedFd};

/// How often to look whether a paused box has come to rest.
const LOOK_MS: i32 = 1;
/// How long nobody has wanted anything when the next command's process is begun.
const IDLE_MS: i32 = 2;
const GONE: i16 = libc::POLLERR | libc::POLLHUP;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    New,
    Greeted,
    Ready,
    /// Nothing is said, and nobody but the host is heard: this moment may be copied.
    Parked,
    /// The same, over another channel than before, on which HELLO was said: for the host of before, or that of a copy.
    Met,
    /// As `Greeted`, by the host of a copy.
    Greeted2,
}

pub struct Guest {
    pub wire: Wire,
    /// Where another channel comes from, if one may take this one's place.
    listener: Option<OwnedFd>,
    pub state: State,
    pub hand: Option<Hand>,
    /// By their ids.
    pub streams: Vec<Stream>,
    pub last_stream: u32,
    /// Of each output, as the host has said.
    pub window_bytes: u32,
    /// The pause that is to be told of.
    pub pausing: Option<u32>,
    /// From a pause on, until everything is to go on.
    pub stands_still: bool,
}

/// What a descriptor that is waited for stands for.
#[derive(Clone, Copy)]
enum Place {
    /// The way from the host, which may be the way there, too.
    Host,
    Unsent,
    Signals,
    Input(u32),
    Output(u32, Output),
}

/// How the service of a channel ended: the host had asked for it, or has gone.
enum Served {
    Asked,
    Left,
}

type Watched = Vec<(Place, libc::pollfd)>;

impl Guest {
    pub fn new(wire: Wire, listener: Option<OwnedFd>) -> Guest {
        Guest {
            wire,
            listener,
            state: State::New,
            hand: None,
            streams: Vec::new(),
            last_stream: 0,
            window_bytes: 0,
            pausing: None,
            stands_still: false,
        }
    }

    /// The commands, and the process of the next.
    pub fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        let next = self.hand.as_ref().and_then(|hand| hand.next.as_ref()?.pid());
        self.streams.iter().filter_map(|one| Some(one.running.as_ref()?.pid)).chain(next)
    }

    /// Until the host is gone (false) or has asked for the end (true).
    pub fn serve(&mut self) -> Outcome<bool> {
        let signals = process::watch_signals().at("signals", "")?;
        loop {
            self.say_hello();
            match self.serve_channel(&signals)? {
                Served::Asked => return Ok(true),
                Served::Left if !self.meet_again()? => return Ok(false),
                Served::Left => {}
            }
        }
    }

    fn serve_channel(&mut self, signals: &OwnedFd) -> Outcome<Served> {
        let mut splitter = Splitter::new(channel::HOST_FRAME_BYTES);
        let mut buffer = vec![0; READ_BYTES.max(CHUNK_BYTES)];
        loop {
            if self.wire.flush().is_err() {
                return Ok(Served::Left);
            }
            let watched = self.wait(signals)?;
            for (place, seen) in watched {
                match place {
                    // It was told to say nothing more, and what is ready stays so.
                    Place::Signals | Place::Input(_) | Place::Output(..) if self.is_parked() => {}
                    // There is room again.
                    Place::Host if seen.revents == libc::POLLOUT => {}
                    // Its end, where nothing that it says is waited for.
                    Place::Host if seen.revents & libc::POLLIN == 0 => return Ok(Served::Left),
                    Place::Host => match self.wire.receive(&mut buffer) {
                        Ok(None) => {}
                        Ok(Some(data)) if !data.is_empty() => {
                            splitter.put(data);
                            if !self.hear_all(&mut splitter)? {
                                return Ok(Served::Asked);
                            }
                        }
                        _ => return Ok(Served::Left),
                    },
                    Place::Unsent if seen.revents & GONE != 0 => return Ok(Served::Left),
                    Place::Unsent => {}
                    Place::Signals => {
                        let asked = process::drain_signals(signals.as_raw_fd());
                        // As process 1 it hears the box's own processes alone, which have no say in that.
                        if asked && std::process::id() != 1 {
                            return Ok(Served::Left);
                        }
                        self.reap(&mut buffer)?;
                    }
                    Place::Input(id) => self.with(id, |one, wire| one.feed(wire, seen.revents & GONE != 0)),
                    Place::Output(id, which) => {
                        self.with(id, |one, wire| one.pump(which, wire, &mut buffer));
                    }
                }
            }
            self.go_on_pausing()?;
            self.streams.retain(|one| !one.is_over());
        }
    }

    /// Waits for another channel where the one that has ended had nothing under way: before there are commands, or while
    /// this moment may be copied. False where there is none to come: then everything ends with its host.
    fn meet_again(&mut self) -> Outcome<bool> {
        let met = match self.state {
            State::New | State::Greeted => State::New,
            State::Parked | State::Met | State::Greeted2 => State::Met,
            State::Ready => return Ok(false),
        };
        let Some(listener) = &self.listener else {
            return Ok(false);
        };
        self.wire = accept(listener)?;
        self.state = met;
        Ok(true)
    }

    fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked | State::Met | State::Greeted2)
    }

    pub fn say_hello(&mut self) {
        self.wire.send(&Frame::Hello {
            magic: channel::MAGIC,
            version: channel::VERSION,
            frame_bytes: channel::HOST_FRAME_BYTES,
            streams: channel::STREAMS,
            window_bytes: channel::WINDOW_BYTES,
        });
    }

    fn hear_all(&mut self, splitter: &mut Splitter) -> Outcome<bool> {
        while let Some(frame) = splitter.next().map_err(|fault| broken(fault.name()))? {
            let frame = decode(frame).map_err(|fault| broken(fault.name()))?;
            if !self.hear(frame)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn with(&mut self, id: u32, work: impl FnOnce(&mut Stream, &mut Wire)) {
        if let Some(place) = self.find(id) {
            work(&mut self.streams[place], &mut self.wire);
        }
    }

    /// None where it is over: nothing is to be said of it any more, though it may not be gone yet.
    pub fn find(&self, id: u32) -> Option<usize> {
        let place = self.streams.binary_search_by_key(&id, |one| one.id).ok()?;
        (!self.streams[place].is_over()).then_some(place)
    }

    /// What is ready of all that is waited for.
    fn wait(&self, signals: &OwnedFd) -> Outcome<Watched> {
        let mut places = Vec::new();
        let mut watch = Vec::new();
        let mut add = |place: Place, fd: &OwnedFd, events: i16| {
            places.push(place);
            watch.push(libc::pollfd { fd: raw(fd), events, revents: 0 });
        };
        let parked = self.is_parked();
        if !parked {
            add(Place::Signals, signals, libc::POLLIN);
        }
        // Without anything to send or to hear, whether the host is gone.
        let hears = if self.wire.hears() { libc::POLLIN } else { 0 };
        let sends = if self.wire.waits_to_send() { libc::POLLOUT } else { 0 };
        match &self.wire.output {
            Some(output) => {
                if hears != 0 {
                    add(Place::Host, &self.wire.input, hears);
                }
                add(Place::Unsent, output, sends);
            }
            // Once: of virtio's port, the second look of one call may take what came since the first, and whoever waits
            // for that is not woken.
            None => add(Place::Host, &self.wire.input, hears | sends),
        }
        for one in self.streams.iter().filter(|_| !parked) {
            if let Some(input) = &one.input {
                add(Place::Input(one.id), &input.fd, if input.waits() { libc::POLLOUT } else { 0 });
            }
            if self.wire.has_room() {
                for pipe in one.outputs.iter().filter(|pipe| pipe.credit > 0) {
                    add(Place::Output(one.id, pipe.which), &pipe.fd, libc::POLLIN);
                }
            }
        }
        let next = self.due();
        let timeout_ms = match next {
            _ if self.pausing.is_some() => LOOK_MS,
            Some(_) => IDLE_MS,
            None => -1,
        };
        if fd::poll(&mut watch, timeout_ms).at("poll", "")? == 0 {
            next.iter().for_each(|next| next.make());
        }
        Ok(places.into_iter().zip(watch).filter(|(_, seen)| seen.revents != 0).collect())
    }

    /// Where the next command's process is to be begun as soon as nothing is to be done. While one like it runs it would
    /// be seen by that, and a box that is there for one command needs no other.
    fn due(&self) -> Option<&Next> {
        let hand = self.hand.as_ref().filter(|_| self.state == State::Ready && !self.stands_still)?;
        let runs = self.streams.iter().any(|one| one.plain && one.running.is_some());
        hand.next.as_ref().filter(|next| !runs && next.is_due())
    }

    fn go_on_pausing(&mut self) -> Outcome<()> {
        if let Some(number) = self.pausing {
            // One that is being made would run on.
            let next = self.hand.as_ref().and_then(|hand| hand.next.as_ref());
            if !next.is_some_and(Next::is_being_made) && everything::stop()? {
                self.pausing = None;
                self.wire.send(&Frame::Paused { number });
            }
        }
        Ok(())
    }

    fn reap(&mut self, buffer: &mut [u8]) -> Outcome<()> {
        while let Some((pid, status, usage)) = process::wait(-1, libc::WNOHANG).at("wait", "")? {
            let is_it = |one: &&mut Stream| one.running.as_ref().is_some_and(|running| running.pid == pid);
            let Some(one) = self.streams.iter_mut().find(is_it) else {
                continue;
            };
            let slot = one.running.as_ref().map(|running| running.slot).unwrap_or(0);
            let hand = self.hand.as_ref().ok_or_else(|| Fault::new("wait", "hand", libc::EINVAL))?;
            let word = hand.starter().word(slot);
            let exit = Exit {
                status,
                errno: word.errno,
                step: word.step,
                cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
                memory_peak_kib: usage.ru_maxrss as u64,
            };
            one.end(exit, &mut self.wire, buffer);
            // At once: somebody waits. A host that is gone is noticed when it is heard next.
            let _ = self.wire.flush();
        }
        Ok(())
    }
}
