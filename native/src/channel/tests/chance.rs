//! Numbers by chance that are the same for the same seed. xorshift64*.

pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From 0 on, below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Bytes put in, taken out, changed or doubled, up to four times.
pub fn change(chance: &mut Chance, data: &mut Vec<u8>) {
    const WORDS: [&[u8]; 12] = [
        b"\x00",
        b"\x7f",
        b"\x90",
        b"\x9f",
        b"\xc0",
        b"\xc4\x01",
        b"\xc6\xff\xff\xff\xff",
        b"\xcf",
        b"\xd3",
        b"\xdc",
        b"\xdd\xff\xff\xff\xff",
        b"\xff\xff\xff\xff",
    ];
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(data.len() + 1);
        let end = data.len().min(at + chance.below(9));
        match chance.below(5) {
            0 => drop(data.splice(at..end, chance.pick(&WORDS).iter().copied())),
            1 => drop(data.drain(at..end)),
            2 => {
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
            3 => data.truncate(at),
            _ if at < data.len() => data[at] ^= 1 << chance.below(8),
            _ => data.push(chance.next() as u8),
        }
    }
}
