//! Dice that fall the same way for the same seed (SplitMix64).

/// A source of choices.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// A short text, with characters that make trouble.
    pub fn text(&mut self) -> String {
        const CHARACTERS: [char; 24] = [
            'a',
            'b',
            '0',
            '9',
            '_',
            '-',
            '.',
            ':',
            ' ',
            '"',
            '\\',
            '/',
            '\0',
            '\n',
            '\u{7f}',
            '<',
            '&',
            'ä',
            '\u{2028}',
            '\u{feff}',
            '\u{202e}',
            '漢',
            '\u{1f511}',
            '\u{10ffff}',
        ];
        (0..self.below(12)).map(|_| self.pick(&CHARACTERS)).collect()
    }
}
