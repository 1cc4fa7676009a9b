//! The framed channel, over any stream of bytes: `u32 length` (little-endian), then a MessagePack array that begins with
//! the frame's kind. docs/channel.md says what each means; `immure.channel` is the host's side.

mod field;
pub mod frame;
mod split;
#[cfg(test)]
mod tests;

pub use split::Splitter;

pub const MAGIC: &str = "immure";
pub const VERSION: u32 = 1;

/// The most that one frame carries of a stream.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// The longest frame from a guest, and from a host: that which holds as many arguments as the kernel ever takes, 6 MiB.
/// execve(2).
pub const GUEST_FRAME_BYTES: u32 = CHUNK_BYTES as u32 + 1024;
pub const HOST_FRAME_BYTES: u32 = (6 << 20) + 1024;
/// What may be under way in one direction of a stream before its receiver has said that it has room again.
pub const WINDOW_BYTES: u32 = 256 * 1024;
/// Commands at once.
pub const STREAMS: u32 = 1024;
/// What the limits of a hello may be.
pub const FRAME_BYTES_RANGE: [u32; 2] = [4096, 8 << 20];
pub const WINDOW_BYTES_RANGE: [u32; 2] = [4096, 4 << 20];
pub const STREAMS_RANGE: [u32; 2] = [1, 4096];

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its length is nothing, or above the limit.
    Length,
    /// It is no MessagePack array that begins with a number.
    Malformed,
    /// There is no such kind.
    Kind,
    /// Too few or too many fields, one of the wrong type, one out of its range, or something behind them.
    Fields,
    /// A hello of another protocol, or of another version of it.
    Version,
}

impl Broken {
    pub fn name(self) -> &'static str {
        match self {
            Broken::Length => "length",
            Broken::Malformed => "malformed",
            Broken::Kind => "kind",
            Broken::Fields => "fields",
            Broken::Version => "version",
        }
    }
}
