//! One command under way, and what goes in and out of it.

use crate::channel::frame::{Chunk, Count, Frame, Output, TERMINAL};
use crate::channel::{CHUNK_BYTES, WINDOW_BYTES};
use crate::guest::wire::Wire;
use crate::init::stem::Running;
use crate::sys::fd;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};

/// What of a terminal's output is read at most after its command's end: nobody says how much there is.
const TERMINAL_BYTES: usize = 64 * 1024;

pub struct Stream {
    pub id: u32,
    pub running: Option<Running>,
    pub input: Option<Input>,
    /// Those that are not at their end.
    pub outputs: Vec<Pipe>,
    pub terminal: bool,
    /// A program without input, of which nothing is told but its output and its end.
    pub plain: bool,
    /// Its end was told.
    pub told: bool,
}

pub struct Input {
    pub fd: OwnedFd,
    pending: VecDeque<u8>,
    /// What the host may still send, and what has been taken since it was last told.
    credit: u32,
    drained: u32,
    ended: bool,
}

pub struct Pipe {
    pub which: Output,
    pub fd: OwnedFd,
    pub credit: u32,
    /// What was in it at the command's end, and was not sent yet.
    owed: Option<usize>,
}

pub struct Exit {
    pub status: i32,
    pub errno: i32,
    pub step: u32,
    pub cpu_us: u64,
    pub memory_peak_kib: u64,
}

impl Stream {
    /// Tells the command's end. What is in its pipes was written before; what its orphans will write later was not.
    pub fn end(&mut self, exit: Exit, wire: &mut Wire, buffer: &mut [u8]) {
        // With what was held for it, so that its pipes may be at their end.
        self.running = None;
        let (mut draining, mut ended) = (0, Vec::new());
        for pipe in &mut self.outputs {
            match self.terminal {
                true => pipe.owed = Some(TERMINAL_BYTES),
                false if pipe.send_rest(self.id, wire, buffer) => ended.push(pipe.which),
                false => {}
            }
            draining |= if pipe.owed.is_some() { pipe.which as u16 } else { 0 };
        }
        let (stream, errno, step) = (Count(self.id), exit.errno as u16, exit.step as u16);
        let Exit { status, cpu_us, memory_peak_kib, .. } = exit;
        wire.send(&Frame::Exited { stream, status, errno, step, cpu_us, memory_peak_kib, draining });
        self.told = true;
        for which in ended {
            self.end_output(which, wire);
        }
    }

    pub fn is_over(&self) -> bool {
        self.told && self.outputs.is_empty()
    }

    /// What another host is told of it, to which nothing has been sent and which has sent nothing.
    pub fn stand_anew(&mut self, window: u32) -> Frame<'static> {
        let mut outputs = 0;
        for pipe in &mut self.outputs {
            pipe.credit = window;
            outputs |= pipe.which as u16;
        }
        let input_room = self.input.as_mut().filter(|input| !input.ended).map_or(0, Input::begin_anew);
        let flags = if self.terminal { TERMINAL } else { 0 };
        Frame::Standing { stream: Count(self.id), flags, outputs, input_room, exited: self.told }
    }

    /// Sends what an output has, as far as the host has room.
    pub fn pump(&mut self, which: Output, wire: &mut Wire, buffer: &mut [u8]) {
        let Some(place) = self.outputs.iter().position(|pipe| pipe.which == which) else {
            return;
        };
        let pipe = &mut self.outputs[place];
        let most = CHUNK_BYTES.min(pipe.credit as usize);
        if most == 0 {
            return;
        }
        match fd::read(pipe.fd.as_raw_fd(), &mut buffer[..most]) {
            // Nothing more of it was written before the end.
            Err(libc::EAGAIN) => pipe.sent(self.id, usize::MAX, wire),
            // A terminal's end is an error.
            Ok(0) | Err(_) => self.end_output(which, wire),
            Ok(count) => {
                pipe.send(self.id, &buffer[..count], wire);
                pipe.sent(self.id, count, wire);
            }
        }
    }

    /// At its end, or nobody wants it any more.
    pub fn end_output(&mut self, which: Output, wire: &mut Wire) {
        let before = self.outputs.len();
        self.outputs.retain(|pipe| pipe.which != which);
        if self.outputs.len() < before {
            wire.send(&Frame::OutputEnd { stream: Count(self.id), output: which });
        }
    }

    /// A pipe's end is told by closing it; a terminal is hung up, since what was typed before says no more.
    pub fn end_input(&mut self, wire: &mut Wire) {
        if self.terminal {
            self.input = None;
            self.end_output(Output::Stdout, wire);
        } else if let Some(input) = &mut self.input {
            input.ended = true;
            if input.pending.is_empty() {
                self.input = None;
            }
        }
    }

    /// Gives a command what was sent to it, as far as it takes it.
    pub fn feed(&mut self, wire: &mut Wire, broken: bool) {
        let Some(input) = &mut self.input else {
            return;
        };
        if broken || input.write().is_err() {
            self.input = None;
            wire.send(&Frame::InputClosed { stream: Count(self.id) });
            return;
        }
        if input.ended {
            if input.pending.is_empty() {
                self.input = None;
            }
        } else if input.drained >= WINDOW_BYTES / 2 {
            let bytes = Count(std::mem::take(&mut input.drained));
            input.credit += bytes.0;
            wire.send(&Frame::InputCredit { stream: Count(self.id), bytes });
        }
    }
}

impl Input {
    pub fn new(fd: OwnedFd) -> Input {
        Input { fd, pending: VecDeque::new(), credit: WINDOW_BYTES, drained: 0, ended: false }
    }

    /// Gives what the host may send.
    fn begin_anew(&mut self) -> u32 {
        self.drained = 0;
        self.credit = WINDOW_BYTES.saturating_sub(self.pending.len() as u32).max(1);
        self.credit
    }

    pub fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    #[cfg(test)]
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// False where the host had been told of no room for it, or had ended the input.
    pub fn take(&mut self, data: &[u8]) -> bool {
        let fits = !self.ended && data.len() <= self.credit as usize;
        if fits {
            self.credit -= data.len() as u32;
            // As much as goes is not copied first. What can't be written is told when that is tried the next time.
            let written = match self.pending.is_empty() {
                true => fd::write(self.fd.as_raw_fd(), data).unwrap_or(0),
                false => 0,
            };
            self.drained += written as u32;
            self.pending.extend(&data[written..]);
        }
        fits
    }

    fn write(&mut self) -> Result<(), i32> {
        while self.waits() {
            let (front, _) = self.pending.as_slices();
            match fd::write(self.fd.as_raw_fd(), front) {
                Ok(count) => {
                    self.pending.drain(..count);
                    self.drained += count as u32;
                }
                Err(libc::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl Pipe {
    pub fn new(which: Output, fd: OwnedFd, credit: u32) -> Pipe {
        Pipe { which, fd, credit, owed: None }
    }

    /// Sends what is in it at its command's end, as far as the host has room; what it has not is owed. True where that
    /// was its own end, too.
    fn send_rest(&mut self, id: u32, wire: &mut Wire, buffer: &mut [u8]) -> bool {
        loop {
            let most = CHUNK_BYTES.min(self.credit as usize);
            if most == 0 || !wire.has_room() {
                break;
            }
            match fd::read(self.fd.as_raw_fd(), &mut buffer[..most]) {
                Err(libc::EAGAIN) => return false,
                Ok(0) | Err(_) => return true,
                Ok(count) => self.send(id, &buffer[..count], wire),
            }
        }
        let left = fd::unread(self.fd.as_raw_fd()).unwrap_or(0);
        self.owed = (left > 0).then_some(left);
        false
    }

    fn send(&mut self, id: u32, data: &[u8], wire: &mut Wire) {
        self.credit -= data.len() as u32;
        wire.send(&Frame::OutputData { stream: Count(id), output: self.which, data: Chunk(data) });
    }

    /// Says so once all is sent that was there at the command's end.
    fn sent(&mut self, id: u32, count: usize, wire: &mut Wire) {
        self.owed = match self.owed {
            Some(owed) if owed > count => Some(owed - count),
            Some(_) => {
                wire.send(&Frame::OutputDrained { stream: Count(id), output: self.which });
                None
            }
            None => None,
        };
    }
}
