//! How far a number has come while an answer is written, so that its digits end.
//!
//! A schema bounds how large a number is, and never how many digits it has: under `{"minimum": 0, "maximum": 1}` a model may write zeros
//! until its tokens are spent.

/// Digits before the point: those of the largest integer of 64 bits.
const WHOLE: usize = 20;

/// Digits behind the point. With more, a reader's number is another than the one that was written.
const FRACTION: usize = 15;

/// Digits of an exponent: with more, a number is none that readers keep.
const EXPONENT: usize = 2;

/// Where a text of JSON has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DigitCounter {
    in_string: bool,
    escaped: bool,
    part: NumberPart,
    count: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum NumberPart {
    #[default]
    None,
    Whole,
    Fraction,
    Exponent,
}

impl DigitCounter {
    /// Takes what was written next.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.next(*byte));
    }

    fn next(&mut self, byte: u8) {
        if self.in_string {
            (self.in_string, self.escaped) = match byte {
                _ if self.escaped => (true, false),
                b'\\' => (true, true),
                b'"' => (false, false),
                _ => (true, false),
            };
            return;
        }
        let part = match (byte, self.part) {
            (b'0'..=b'9', NumberPart::None) => NumberPart::Whole,
            (b'0'..=b'9', part) => part,
            (b'.', NumberPart::Whole) => NumberPart::Fraction,
            (b'e' | b'E', NumberPart::Whole | NumberPart::Fraction) => NumberPart::Exponent,
            (b'+' | b'-', NumberPart::Exponent) => NumberPart::Exponent,
            _ => NumberPart::None,
        };
        self.count = if part == self.part { self.count } else { 0 } + usize::from(byte.is_ascii_digit());
        self.part = part;
        self.in_string = byte == b'"';
    }

    /// Whether the part of a number that is being written has as many digits as it may have.
    pub(super) fn is_at_limit(self) -> bool {
        match self.part {
            NumberPart::None => false,
            NumberPart::Whole => self.count >= WHOLE,
            NumberPart::Fraction => self.count >= FRACTION,
            NumberPart::Exponent => self.count >= EXPONENT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enough(text: &str) -> bool {
        let mut digits = DigitCounter::default();
        digits.read(text.as_bytes());
        digits.is_at_limit()
    }

    #[test]
    fn digits_are_counted_by_the_part_of_the_number() {
        let zeros = "0".repeat(FRACTION);
        assert!(enough(&format!("{{\"a\":1.{zeros}")) && !enough(&format!("{{\"a\":1.{}", &zeros[1..])));
        assert!(enough(&format!("[-{}", "9".repeat(WHOLE))) && !enough(&format!("[{}.5", "9".repeat(WHOLE))));
        assert!(enough("1e-40") && !enough("1e-4"));
        assert!(!enough(&format!("[1.{zeros},2")), "the next number begins anew");
    }

    #[test]
    fn digits_in_strings_are_letters() {
        let digits = "7".repeat(40);
        assert!(!enough(&format!("{{\"a\":\"{digits}")));
        assert!(!enough(&format!("{{\"a\":\"\\\"{digits}")), "a quote that is escaped ends nothing");
        assert!(enough(&format!("{{\"\\\\\":{digits}")), "a backslash that is escaped escapes nothing");
    }
}
