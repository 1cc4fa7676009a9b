//! The codec, with the frames that the host's codec is tested with too, and with what is made of them by chance.

mod chance;
mod corpus;
mod fuzz;

use super::frame::{decode, encode};
use super::{Broken, Splitter, HOST_FRAME_BYTES};
use corpus::{rows, to_bytes};

/// Reads the one frame that is there, and writes it again.
fn rewritten(data: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut splitter = Splitter::new(HOST_FRAME_BYTES);
    splitter.put(data);
    let mut out = Vec::new();
    encode(&decode(splitter.next()?.expect("a whole frame"))?, &mut out);
    assert_eq!(splitter.next(), Ok(None));
    Ok(out)
}

#[test]
fn a_frame_is_read_and_written_as_it_was() {
    for row in rows("valid.txt") {
        let data = to_bytes(&row[1]);
        assert_eq!(rewritten(&data), Ok(data), "{}", row[0]);
    }
}

#[test]
fn longer_forms_mean_the_same() {
    for row in rows("loose.txt") {
        let (loose, strict) = row[1].split_once(' ').expect("two words");
        assert_ne!(loose, strict);
        assert_eq!(rewritten(&to_bytes(loose)), Ok(to_bytes(strict)), "{}", row[0]);
    }
}

#[test]
fn what_is_no_frame_is_refused_and_says_why() {
    for row in rows("invalid.txt") {
        let fault = rewritten(&to_bytes(&row[2])).expect_err(&row[1]);
        assert_eq!(fault.name(), row[0], "{}", row[1]);
    }
}

#[test]
fn the_corpus_is_there() {
    assert!(rows("valid.txt").len() > 40 && rows("loose.txt").len() > 5 && rows("invalid.txt").len() > 80);
}
