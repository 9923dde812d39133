//! Limits the digits of numbers in a generated answer.
//!
//! A schema can bound the size of a number, but not its digits: under `{"minimum": 0, "maximum": 1}` a model may write zeros until
//! it reaches its token limit.

/// Digits before the decimal point, as many as the largest 64-bit integer has.
const WHOLE: usize = 20;

/// Digits after the decimal point. With more, a JSON reader would round the number.
const FRACTION: usize = 15;

/// Digits of an exponent. With more, a JSON reader would not keep the number.
const EXPONENT: usize = 2;

/// Tracks the position inside JSON text.
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
    /// Reads the bytes that were written next.
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

    /// Whether the current part of a number has its maximum number of digits.
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
        assert!(!enough(&format!("[1.{zeros},2")), "the next number starts at zero");
    }

    #[test]
    fn digits_in_strings_are_letters() {
        let digits = "7".repeat(40);
        assert!(!enough(&format!("{{\"a\":\"{digits}")));
        assert!(!enough(&format!("{{\"a\":\"\\\"{digits}")), "an escaped quote does not end the string");
        assert!(enough(&format!("{{\"\\\\\":{digits}")), "an escaped backslash does not escape the quote");
    }
}
