//! Frames out of a stream that comes in pieces of any size.

use super::Broken;

const HEAD: usize = 4;

pub struct Splitter {
    buffer: Vec<u8>,
    /// How much of `buffer` was given out.
    taken: usize,
    most: usize,
}

impl Splitter {
    /// Frames of at most `most` bytes.
    pub fn new(most: u32) -> Splitter {
        Splitter { buffer: Vec::new(), taken: 0, most: most as usize }
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, where it is whole. A length is refused as soon as it is known.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Broken> {
        let rest = &self.buffer[self.taken..];
        let Some(head) = rest.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length == 0 || length > self.most {
            return Err(Broken::Length);
        }
        if rest.len() < HEAD + length {
            return Ok(None);
        }
        let begin = self.taken + HEAD;
        self.taken = begin + length;
        Ok(Some(&self.buffer[begin..self.taken]))
    }
}
