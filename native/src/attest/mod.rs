//! What a box says of itself, and what it lets a command try: told by a process that has passed the last stage, so by
//! what commands are. Whoever asked judges; here nothing is left out because it looks wrong.
//!
//! Whoever starts that process may wait for its end before reading a word: a pipe holds all that is said.

mod facts;
mod trials;

use crate::sys::{fd, Sys};
use trials::Paths;

/// Carries out `attest OUTSIDE INSIDE [apart]` and gives the exit status. Standard output gets one MessagePack map of
/// names and bytes; where there is none, standard error has a line `ERRNO STEP`. A filter may answer an attempt with a
/// signal that ends this process. With `apart`, attempts are made by others, so that such an answer is told, too.
///
/// What can't be read is `NAME.errno`. A trial is an i32, little-endian: 0 where it succeeded, else the errno, or minus
/// the signal by which it ended.
pub fn run(arguments: &[&[u8]]) -> i32 {
    match attest(arguments) {
        Ok(()) => 0,
        Err(errno) => {
            eprintln!("{errno} attest");
            1
        }
    }
}

fn attest(arguments: &[&[u8]]) -> Sys<()> {
    let (outside, inside, apart) = match arguments {
        [_, outside, inside] => (outside, inside, false),
        [_, outside, inside, b"apart"] => (outside, inside, true),
        _ => return Err(libc::EINVAL),
    };
    let paths = Paths::new(outside, inside);
    let mut items = facts::read();
    let answers = if apart { trials::run_apart(&paths) } else { trials::run(&paths) };
    items.extend(answers.into_iter().map(|(name, answer)| (name.to_string(), answer.to_le_bytes().to_vec())));
    fd::write_all(1, &encode(&items))
}

type Item = (String, Vec<u8>);

fn encode(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to memory can't fail.
    let _ = rmp::encode::write_map_len(&mut out, items.len() as u32);
    for (name, value) in items {
        let _ = rmp::encode::write_str(&mut out, name);
        let _ = rmp::encode::write_bin(&mut out, value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_one_map() {
        assert_eq!(encode(&[("a".into(), vec![1, 2])]), b"\x81\xa1a\xc4\x02\x01\x02");
    }

    #[test]
    fn all_of_it_is_what_a_pipe_holds() {
        // Two more where the kernel's status does not have them.
        let most = (facts::read().len() + 2) * facts::MOST_BYTES;
        assert!(most + 64 * trials::TRIALS.len() < 64 * 1024);
    }

    #[test]
    fn other_arguments_are_refused() {
        assert_eq!(attest(&[b"attest", b"/a"]), Err(libc::EINVAL));
    }
}
