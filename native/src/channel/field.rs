//! The types that fields of a frame have, strictly: no text in the place of bytes, no fraction in that of a number.

use rmp::{decode, encode, Marker};

pub trait Field<'a>: Sized {
    /// Takes one off the front; None where something else is there, or where it was cut.
    fn take(rest: &mut &'a [u8]) -> Option<Self>;
    fn put(&self, out: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($number:ty, $wide:ty, $write:path;)*) => {$(
        impl Field<'_> for $number {
            fn take(rest: &mut &[u8]) -> Option<Self> {
                decode::read_int(rest).ok()
            }
            fn put(&self, out: &mut Vec<u8>) {
                // A Vec takes everything.
                let _ = $write(out, <$wide>::from(*self));
            }
        }
    )*};
}

numbers! {
    u16, u64, encode::write_uint;
    u32, u64, encode::write_uint;
    u64, u64, encode::write_uint;
    i32, i64, encode::write_sint;
}

impl Field<'_> for bool {
    fn take(rest: &mut &[u8]) -> Option<Self> {
        decode::read_bool(rest).ok()
    }
    fn put(&self, out: &mut Vec<u8>) {
        let _ = encode::write_bool(out, *self);
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let length = decode::read_bin_len(rest).ok()? as usize;
        let (bytes, tail) = rest.split_at_checked(length)?;
        *rest = tail;
        Some(bytes)
    }
    fn put(&self, out: &mut Vec<u8>) {
        let _ = encode::write_bin(out, self);
    }
}

impl<'a> Field<'a> for &'a str {
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let length = decode::read_str_len(rest).ok()? as usize;
        let (bytes, tail) = rest.split_at_checked(length)?;
        *rest = tail;
        std::str::from_utf8(bytes).ok()
    }
    fn put(&self, out: &mut Vec<u8>) {
        let _ = encode::write_str(out, self);
    }
}

/// Nil, or what there is.
impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        if rest.first().copied().map(Marker::from_u8) == Some(Marker::Null) {
            *rest = &rest[1..];
            return Some(None);
        }
        T::take(rest).map(Some)
    }
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.put(out),
            None => drop(encode::write_nil(out)),
        }
    }
}

/// A number that is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub u32);

impl Field<'_> for Count {
    fn take(rest: &mut &[u8]) -> Option<Self> {
        u32::take(rest).filter(|&count| count > 0).map(Count)
    }
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
}

/// Some of what goes through a stream: never nothing, and never more than a frame may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a>(pub &'a [u8]);

impl<'a> Field<'a> for Chunk<'a> {
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let fits = |bytes: &&[u8]| !bytes.is_empty() && bytes.len() <= super::CHUNK_BYTES;
        <&[u8]>::take(rest).filter(fits).map(Chunk)
    }
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout = 1,
    Stderr = 2,
}

impl Field<'_> for Output {
    fn take(rest: &mut &[u8]) -> Option<Self> {
        match u32::take(rest)? {
            1 => Some(Output::Stdout),
            2 => Some(Output::Stderr),
            _ => None,
        }
    }
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u32).put(out);
    }
}
