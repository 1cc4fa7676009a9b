//! Messages between the engine, the spawner and what runs in a box. Little-endian, one datagram each:
//! `u16 kind, u16 flags, u32 id`, then what the kind says. `runtimes/process/frames.py` is the other side.

use crate::fault::Fault;

/// The longest message; what is longer goes into a memory file. Each page of a buffer is a page fault in each new box.
pub const LIMIT: usize = 4096;

// Engine to spawner. The first message is the configuration and has no kind to tell.
pub const PLAN: u16 = 2;
pub const BOX: u16 = 3;
// A box's owner to the spawner, and back.
pub const RELEASE: u16 = 4;
pub const KILL: u16 = 5;
pub const READY: u16 = 101;
pub const ENDED: u16 = 102;
pub const FAILED: u16 = 103;
// Engine to stem. A first EXEC brings the asker's socket, on which later ones can follow its exit.
pub const EXEC: u16 = 11;
pub const SIGNAL: u16 = 12;
/// Everything in the box is to stop, and to go on.
pub const PAUSE: u16 = 13;
pub const RESUME: u16 = 14;
/// A terminal is wanted; it goes to the socket that comes along.
pub const OPEN_TERMINAL: u16 = 15;
// Stem to engine.
pub const EXITED: u16 = 111;
/// With the listener of the command's filter.
pub const LISTENER: u16 = 112;
/// The command's program runs.
pub const STARTED: u16 = 113;
/// With both ends of a terminal, ours first, or the errno by which there is none.
pub const OPENED_TERMINAL: u16 = 114;
/// All of one output that was written before the exit has been passed on. Said behind a channel, by the engine itself.
#[allow(dead_code)]
pub const DRAINED: u16 = 115;
// What runs in a box, to the spawner and back, before the first command.
pub const FAULT: u16 = 21;
/// With what the stem reports of itself.
pub const WITNESS: u16 = 23;
pub const GO: u16 = 24;
/// The box is wanted, with what its request brought: the engine's socket, and the user's mounts.
pub const ORDER: u16 = 25;

/// BOX, ORDER: the box ends with its first command, whose process is the witness.
pub const ONE_SHOT: u16 = 1;
/// EXEC: the payload is in the last descriptor, a memory file.
pub const IN_FILE: u16 = 1;
/// EXEC: standard input is the box's own null device; no descriptor comes for it.
pub const NO_INPUT: u16 = 4;
/// EXEC: standard output and error stay open until the exit has been told, so that the asker needs to wake for that alone.
pub const HOLD: u16 = 8;
/// EXEC: an operation of our own, of the name and arguments of a command.
pub const BUILTIN: u16 = 16;
/// EXEC: STARTED comes as soon as the command is under way.
pub const TELL: u16 = 32;
/// EXEC: standard input is a terminal, which becomes the command's controlling one.
pub const TERMINAL: u16 = 64;
/// SIGNAL: to the whole process group of the command.
pub const GROUP: u16 = 2;
/// EXITED: of each output DRAINED follows.
#[allow(dead_code)]
pub const DRAINING: u16 = 128;

pub struct Header {
    pub kind: u16,
    pub flags: u16,
    pub id: u32,
}

pub fn header(kind: u16, flags: u16, id: u32) -> Vec<u8> {
    let mut data = Vec::with_capacity(64);
    data.extend(kind.to_le_bytes());
    data.extend(flags.to_le_bytes());
    data.extend(id.to_le_bytes());
    data
}

/// Splits a message into its header and the rest.
pub fn split(data: &[u8]) -> Option<(Header, &[u8])> {
    let (head, rest) = data.split_at_checked(8)?;
    let header = Header {
        kind: u16::from_le_bytes(head[0..2].try_into().ok()?),
        flags: u16::from_le_bytes(head[2..4].try_into().ok()?),
        id: u32::from_le_bytes(head[4..8].try_into().ok()?),
    };
    Some((header, rest))
}

/// Takes one number off the front.
pub fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_at_checked(4)?;
    *rest = tail;
    Some(u32::from_le_bytes(head.try_into().ok()?))
}

/// Takes one NUL-terminated string off the front, without its NUL.
pub fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|&byte| byte == 0)?;
    let text = &rest[..end];
    *rest = &rest[end + 1..];
    Some(text)
}

/// Appends a named value: `u8 length, name, u32 length, value`.
pub fn put_item(data: &mut Vec<u8>, name: &str, value: &[u8]) {
    data.push(name.len() as u8);
    data.extend(name.as_bytes());
    data.extend((value.len() as u32).to_le_bytes());
    data.extend(value);
}

pub fn fault(kind: u16, id: u32, fault: &Fault) -> Vec<u8> {
    let mut data = header(kind, 0, id);
    data.extend(fault.errno.to_le_bytes());
    data.extend(fault.step.as_bytes());
    data.push(0);
    data.extend(fault.object.as_bytes());
    data.push(0);
    data
}
