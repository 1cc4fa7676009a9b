//! What chance makes of frames, in pieces by chance: each is read or refused, and means the same in any pieces. And what
//! chance sends to a guest: it answers or gives up, and keeps no more than it said it would.

use super::chance::{change, Chance};
use super::corpus::{rows, to_bytes};
use crate::channel::frame::{decode, encode, Chunk, Count, Frame, Output};
use crate::channel::{Broken, Splitter, GUEST_FRAME_BYTES, HOST_FRAME_BYTES, WINDOW_BYTES};
use crate::guest::serve::{Guest, State};
use crate::guest::stream::{Input, Pipe, Stream};
use crate::guest::wire::Wire;
use crate::sys::fd;

/// `IMMURE_FUZZ_CASES` and `IMMURE_FUZZ_SEED` say otherwise.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn seeds() -> Vec<Vec<u8>> {
    let valid = rows("valid.txt").into_iter().map(|row| to_bytes(&row[1]));
    let loose = rows("loose.txt").into_iter().map(|row| to_bytes(row[1].split(' ').next().unwrap_or("")));
    let invalid = rows("invalid.txt").into_iter().map(|row| to_bytes(&row[2]));
    // Long ones have nothing to change but their length.
    valid.chain(loose).chain(invalid).filter(|data| data.len() < 512).collect()
}

/// The frames of a stream, written again, and what ends it.
fn read(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Broken>) {
    let mut splitter = Splitter::new(GUEST_FRAME_BYTES);
    let mut found = Vec::new();
    for piece in pieces {
        splitter.put(piece);
        loop {
            let frame = match splitter.next() {
                Ok(None) => break,
                Ok(Some(body)) => decode(body),
                Err(fault) => Err(fault),
            };
            let mut out = Vec::new();
            match frame {
                Ok(frame) => encode(&frame, &mut out),
                Err(fault) => return (found, Some(fault)),
            }
            assert_eq!(decode(&out[4..]), Ok(frame.expect("read")), "what was written is read as it was");
            found.push(out);
        }
    }
    (found, None)
}

fn pieces<'a>(chance: &mut Chance, mut data: &'a [u8]) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let (piece, rest) = data.split_at(1 + chance.below(data.len().min(20)));
        found.push(piece);
        data = rest;
    }
    found
}

#[test]
fn frames_by_chance() {
    let mut chance = Chance::new(setting("IMMURE_FUZZ_SEED", 7));
    let (seeds, count) = (seeds(), setting("IMMURE_FUZZ_CASES", 30_000));
    let (mut whole, mut refused) = (0u64, 0u64);
    for _ in 0..count {
        let mut data = match chance.below(10) {
            0 => {
                let length = chance.below(64);
                chance.bytes(length)
            }
            1..4 => [chance.pick(&seeds).clone(), chance.pick(&seeds).clone()].concat(),
            _ => chance.pick(&seeds).clone(),
        };
        if chance.below(8) > 0 {
            change(&mut chance, &mut data);
        }
        let at_once = read(&[&data]);
        assert_eq!(read(&pieces(&mut chance, &data)), at_once, "{data:02x?}");
        whole += at_once.0.len() as u64;
        refused += u64::from(at_once.1.is_some());
    }
    println!("{count} streams: {whole} frames read, {refused} refused; no other fault");
    // Otherwise it would test the first bytes alone.
    assert!(whole > count / 20 && refused > count / 20);
}

/// A guest to whom commands were given without a process, whose streams lead to pipes that nobody else has.
fn guest() -> (Guest, Vec<std::os::fd::OwnedFd>) {
    let pipe = || fd::pipe().expect("a pipe");
    let ((input, host), (answers, output)) = (pipe(), pipe());
    let mut guest = Guest::new(Wire::new(input, Some(output)).expect("a wire"), None);
    let mut others = vec![host, answers];
    for id in 1..4 {
        let ((reader, writer), (theirs, ours)) = (pipe(), pipe());
        fd::set_nonblocking(std::os::fd::AsRawFd::as_raw_fd(&writer)).expect("a pipe");
        guest.streams.push(Stream {
            id,
            running: None,
            input: Some(Input::new(writer)),
            outputs: vec![Pipe::new(Output::Stdout, theirs, WINDOW_BYTES)],
            terminal: id == 3,
            plain: false,
            told: false,
        });
        others.extend([reader, ours]);
    }
    guest.last_stream = 3;
    guest.window_bytes = WINDOW_BYTES;
    (guest, others)
}

/// A frame that may be said at some moment, with numbers that are seldom right.
fn a_call<'a>(chance: &mut Chance, data: &'a [u8]) -> Frame<'a> {
    // Mostly one of those that there are.
    let stream = Count(1 + if chance.below(32) > 0 { chance.below(3) } else { chance.below(6) } as u32);
    let output = *chance.pick(&[Output::Stdout, Output::Stderr]);
    let bytes = Count(if chance.below(32) > 0 { 1 } else { *chance.pick(&[4096, WINDOW_BYTES, u32::MAX]) });
    let (columns, rows) = (chance.next() as u16, chance.next() as u16);
    // Some end a conversation, wherever they are said.
    let kinds = if chance.below(64) > 0 { 12 } else { 16 };
    match chance.below(kinds) {
        0 => Frame::Ping { number: stream.0 },
        1 => Frame::OutputCredit { stream, output, bytes },
        2 if chance.below(4) == 0 => Frame::OutputClose { stream, output },
        3 if chance.below(4) == 0 => Frame::InputEnd { stream },
        4 => Frame::Signal { stream, signal: chance.next() as u16, group: rows % 2 == 0 },
        5 => Frame::Resize { stream, columns, rows },
        12 => Frame::Exec { stream: Count(3 + stream.0), flags: columns & 63, columns, rows, command: data },
        13 => Frame::Hello {
            magic: "immure",
            version: 1,
            frame_bytes: HOST_FRAME_BYTES,
            streams: 1,
            window_bytes: 4096,
        },
        14 => Frame::Configure { configuration: data },
        15 => Frame::Pong { number: 1 },
        _ => Frame::Input { stream, data: Chunk(&data[..1 + chance.below(data.len())]) },
    }
}

#[test]
fn calls_by_chance() {
    let mut chance = Chance::new(setting("IMMURE_FUZZ_SEED", 7));
    let count = setting("IMMURE_FUZZ_CASES", 30_000);
    let data = chance.bytes(4096);
    let (mut cases, mut heard, mut broken) = (0, 0, 0);
    while cases < count {
        let (mut guest, others) = guest();
        guest.state = *chance.pick(&[
            State::New,
            State::Greeted,
            State::Ready,
            State::Ready,
            State::Ready,
            State::Ready,
        ]);
        for _ in 0..64 {
            cases += 1;
            match guest.hear(a_call(&mut chance, &data)) {
                Ok(_) => heard += 1,
                Err(_) => {
                    broken += 1;
                    break;
                }
            }
            for stream in &guest.streams {
                let kept = stream.input.as_ref().map_or(0, Input::pending_bytes);
                assert!(kept <= WINDOW_BYTES as usize, "more is kept than there was said to be room for");
            }
        }
        drop(others);
    }
    println!("{cases} calls: {heard} heard, {broken} refused; no other fault");
    assert!(heard > count / 2 && broken > count / 100);
}
