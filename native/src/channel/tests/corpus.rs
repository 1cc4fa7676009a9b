//! `tests/channel/frames`, whose form `tests/channel/corpus.py` describes.

use std::path::Path;

/// The lines of one file, in the parts that colons divide them into.
pub fn rows(file: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/channel/frames").join(file);
    let text = std::fs::read_to_string(path).expect("the corpus");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split(": ").map(str::to_owned).collect()).collect()
}

pub fn to_bytes(words: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in words.split_whitespace() {
        let (word, count) = word.split_once('*').unwrap_or((word, "1"));
        let part: Vec<u8> = (0..word.len() / 2)
            .map(|at| u8::from_str_radix(&word[2 * at..2 * at + 2], 16).expect("a byte"))
            .collect();
        bytes.extend(part.repeat(count.parse().expect("a count")));
    }
    bytes
}
