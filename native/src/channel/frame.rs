//! Every kind of frame, as both codecs know it. `immure/channel/frames.py` has the same table.

use super::field::Field;
pub use super::field::{Chunk, Count, Output};
use super::{Broken, MAGIC, VERSION};

macro_rules! frames {
    ($($number:literal $name:ident { $($field:ident: $type:ty),* })*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Frame<'a> {
            $($name { $($field: $type),* },)*
        }

        fn take_fields<'a>(kind: u32, count: u32, rest: &mut &'a [u8]) -> Result<Frame<'a>, Broken> {
            match kind {
                $($number => {
                    if count != 1 $(+ one(stringify!($field)))* {
                        return Err(Broken::Fields);
                    }
                    $(let $field = <$type as Field>::take(rest).ok_or(Broken::Fields)?;)*
                    Ok(Frame::$name { $($field),* })
                })*
                _ => Err(Broken::Kind),
            }
        }

        impl Frame<'_> {
            fn put_fields(&self, out: &mut Vec<u8>) {
                match self {
                    $(Frame::$name { $($field),* } => {
                        let count = 1 $(+ one(stringify!($field)))*;
                        let _ = rmp::encode::write_array_len(out, count);
                        u32::put(&$number, out);
                        $($field.put(out);)*
                    })*
                }
            }
        }
    };
}

const fn one(_: &str) -> u32 {
    1
}

frames! {
    // Both ways, first of all, and alike in every version up to the version's number.
    0 Hello { magic: &'a str, version: u32, frame_bytes: u32, streams: u32, window_bytes: u32 }
    // Host to guest.
    1 Configure { configuration: &'a [u8] }
    2 Exec { stream: Count, flags: u16, columns: u16, rows: u16, command: &'a [u8] }
    3 Input { stream: Count, data: Chunk<'a> }
    4 InputEnd { stream: Count }
    5 OutputCredit { stream: Count, output: Output, bytes: Count }
    6 OutputClose { stream: Count, output: Output }
    7 Signal { stream: Count, signal: u16, group: bool }
    8 Resize { stream: Count, columns: u16, rows: u16 }
    9 Pause { number: u32 }
    10 Resume {}
    11 Ping { number: u32 }
    12 Shutdown {}
    13 Park {}
    14 Unpark {}
    15 Adopt { moment: &'a [u8] }
    // Guest to host.
    64 Configured { sentinel_before: Option<i32>, sentinel_after: Option<i32> }
    65 Started { stream: Count }
    66 OutputData { stream: Count, output: Output, data: Chunk<'a> }
    67 OutputEnd { stream: Count, output: Output }
    68 InputCredit { stream: Count, bytes: Count }
    69 InputClosed { stream: Count }
    70 Exited { stream: Count, status: i32, errno: u16, step: u16, cpu_us: u64, memory_peak_kib: u64, draining: u16 }
    71 Paused { number: u32 }
    72 Pong { number: u32 }
    73 Fault { step: &'a str, object: &'a str, errno: u16 }
    74 Bye {}
    75 OutputDrained { stream: Count, output: Output }
    76 Parked {}
    77 Standing { stream: Count, flags: u16, outputs: u16, input_room: u32, exited: bool }
}

/// EXEC: standard input is the guest's own null device, and none will come.
pub const NO_INPUT: u16 = 1;
/// EXEC: outputs have no end before the exit.
pub const HOLD: u16 = 2;
/// EXEC: STARTED comes as soon as the program runs.
pub const TELL: u16 = 4;
/// EXEC: all three streams are one terminal of the command's own.
pub const TERMINAL: u16 = 8;
/// EXEC: an operation of the native program, of the name and arguments of a command.
pub const BUILTIN: u16 = 16;
pub const ALL_FLAGS: u16 = 31;

/// A frame out of its bytes, without its length.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, Broken> {
    let rest = &mut &bytes[..];
    let count = rmp::decode::read_array_len(rest).map_err(|_| Broken::Malformed)?;
    let kind: u32 = rmp::decode::read_int(rest).map_err(|_| Broken::Malformed)?;
    if kind == 0 {
        check_version(rest)?;
    }
    let frame = take_fields(kind, count, rest)?;
    if !rest.is_empty() {
        return Err(Broken::Fields);
    }
    Ok(frame)
}

/// Before anything that another version may have changed.
fn check_version(mut rest: &[u8]) -> Result<(), Broken> {
    let ours = <&str>::take(&mut rest).ok_or(Broken::Fields)? == MAGIC
        && u32::take(&mut rest).ok_or(Broken::Fields)? == VERSION;
    ours.then_some(()).ok_or(Broken::Version)
}

/// Appends a frame with its length.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend([0; 4]);
    frame.put_fields(out);
    let length = (out.len() - begin - 4) as u32;
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
}
