//! Finds numbers written as words, in English and Korean.
//!
//! | written | value |
//! |---|---|
//! | `nine`, `twenty-five`, `two hundred and fifty`, `a dozen`, `two and a half`, `one point five` | 9, 25, 250, 12, 2.5, 1.5 |
//! | `nineteen ninety-nine` | 1999 |
//! | `두 시간`, `열다섯 명`, `스무 개` | 2, 15, 20: native Korean numerals before a counter |
//! | `이십 분`, `삼백 원`, `오 분` | 20, 300, 5: Sino-Korean numerals before a unit |
//!
//! Some words are a number in one sentence and something else in another (`one`, `한`, `사회`). They are marked as ambiguous. They
//! count as numbers when a document is searched, but not when an answer would be rejected because of them.

use std::ops::Range;

use crate::task::words;

/// A number written as words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NumberWords {
    pub(super) place: Range<usize>,
    pub(super) value: f64,
    /// Whether it may mean something other than a number.
    pub(super) is_ambiguous: bool,
}

const UNITS: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const SCALES: [(&str, f64); 4] = [("thousand", 1e3), ("million", 1e6), ("billion", 1e9), ("trillion", 1e12)];

/// Units of measurement. Before one of them, `one` is a number.
const UNITS_OF_MEASUREMENT: &str = "second seconds minute minutes hour hours day days week weeks month months year years litre liter gram kilogram \
    metre meter kilometre kilometer centimetre centimeter millimetre millimeter mile inch foot euro dollar pound won yen percent degree";

/// Every number word in the folded `text`, in order.
pub(super) fn all(text: &str) -> Vec<NumberWords> {
    let mut found = english(text);
    if text.chars().any(words::is_hangul) {
        found.extend(korean(text));
        found.sort_by_key(|spoken| spoken.place.start);
    }
    found
}

/// The words of ASCII letters, each with its place.
fn latin(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        loop {
            let start = at + bytes.get(at..)?.iter().position(u8::is_ascii_alphabetic)?;
            let end = start + bytes[start..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
            at = end;
            let alone = |neighbour: Option<char>| !neighbour.is_some_and(|c| c.is_alphanumeric() && !words::is_hangul(c));
            if alone(text[..start].chars().next_back()) && alone(text[end..].chars().next()) {
                return Some((start..end, &text[start..end]));
            }
        }
    })
}

/// Builds a number word by word.
#[derive(Default)]
struct NumberBuilder {
    place: Range<usize>,
    total: f64,
    current: u32,
    /// The last scale. The next one must be smaller.
    scale: Option<f64>,
    /// Digits after the decimal point.
    fraction: Option<String>,
    words: usize,
}

impl NumberBuilder {
    fn value(&self) -> f64 {
        let whole = self.total + f64::from(self.current);
        match self.fraction.as_deref() {
            Some(digits) => format!("{whole}.{digits}").parse().unwrap_or(whole),
            None => whole,
        }
    }

    /// Adds a word if it continues the number, and returns whether it does.
    fn take(&mut self, word: &str) -> bool {
        let unit = UNITS.iter().position(|unit| *unit == word).map(|unit| unit as u32);
        if let Some(digits) = &mut self.fraction {
            let Some(digit) = unit.filter(|unit| *unit < 10) else { return false };
            digits.push_str(&digit.to_string());
            return true;
        }
        let taken = if let Some(unit) = unit {
            let after_tens = unit > 0 && unit < 10 && self.current.is_multiple_of(10) && self.current % 100 >= 20;
            let fresh = self.words == 0 || unit > 0 && self.current.is_multiple_of(100) && (self.current > 0 || self.total > 0.0);
            (after_tens || fresh).then(|| self.current += unit)
        } else if let Some(tens) = TENS.iter().position(|tens| *tens == word) {
            (self.current.is_multiple_of(100) && (self.words == 0 || self.current > 0 || self.total > 0.0))
                .then(|| self.current += 20 + 10 * tens as u32)
        } else if word == "hundred" {
            (1..100).contains(&self.current).then(|| self.current *= 100)
        } else if let Some((_, scale)) = SCALES.iter().find(|(name, _)| *name == word) {
            (self.current > 0 && self.scale.is_none_or(|last| *scale < last)).then(|| {
                self.total += f64::from(self.current) * scale;
                (self.current, self.scale) = (0, Some(*scale));
            })
        } else if word == "dozen" {
            (self.current > 0 && self.total == 0.0).then(|| self.current *= 12)
        } else if word == "point" {
            (self.words > 0).then(|| self.fraction = Some(String::new()))
        } else {
            None
        };
        taken.is_some()
    }
}

fn english(text: &str) -> Vec<NumberWords> {
    let all: Vec<(Range<usize>, &str)> = latin(text).collect();
    // Whether the text between two words allows a number to continue.
    let joined = |left: usize, right: usize| {
        let between = all.get(right).and_then(|(place, _)| text.get(all.get(left)?.0.end..place.start));
        matches!(between, Some(" " | "-"))
    };
    let mut found: Vec<NumberWords> = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let mut number = NumberBuilder::default();
        let mut next = at;
        let large =
            |index: usize| all.get(index).is_some_and(|(_, word)| *word == "hundred" || *word == "dozen" || is_scale(word));
        if matches!(all[at].1, "a" | "an") && joined(at, at + 1) && large(at + 1) {
            number.current = 1;
            number.words = 1;
            next = at + 1;
        }
        while next < all.len() && (next == at || joined(next - 1, next)) {
            let and = all[next].1 == "and" && number.words > 1 && joined(next, next + 1);
            let word = if and { next + 1 } else { next };
            let is_counted = |word: &str| UNITS.contains(&word) || TENS.contains(&word);
            if and && !is_counted(all[word].1) || !number.take(all[word].1) {
                break;
            }
            number.words += 1;
            number.place = all[at].0.start..all[word].0.end;
            next = word + 1;
        }
        if number.place.is_empty() {
            at += 1;
            continue;
        }
        // `point` without a digit after it is not part of the number.
        if number.fraction.as_deref() == Some("") {
            number.fraction = None;
            number.place.end = all[next - 2].0.end;
        }
        let half = ["and", "a", "half"]
            .iter()
            .enumerate()
            .all(|(i, word)| joined(next + i - 1, next + i) && all.get(next + i).is_some_and(|(_, found)| found == word));
        let mut value = number.value();
        if half && number.fraction.is_none() {
            value += 0.5;
            number.place.end = all[next + 2].0.end;
            next += 3;
        }
        let follows = all.get(next).filter(|_| joined(next - 1, next)).map_or("", |(_, word)| *word);
        let is_ambiguous =
            number.words == 1 && value == 1.0 && !UNITS_OF_MEASUREMENT.split_whitespace().any(|unit| unit == follows);
        let spoken = NumberWords { place: number.place, value, is_ambiguous };
        match found.last_mut() {
            // A year is written in two parts.
            Some(last)
                if (17.0..=20.0).contains(&last.value)
                    && (10.0..100.0).contains(&spoken.value)
                    && spoken.value.fract() == 0.0
                    && &text[last.place.end..spoken.place.start] == " " =>
            {
                last.value = last.value * 100.0 + spoken.value;
                last.place.end = spoken.place.end;
            }
            _ => found.push(spoken),
        }
        at = next;
    }
    found
}

fn is_scale(word: &str) -> bool {
    SCALES.iter().any(|(name, _)| *name == word)
}

const NATIVE_TENS: [(&str, u32); 10] = [
    ("열", 10),
    ("스물", 20),
    ("스무", 20),
    ("서른", 30),
    ("마흔", 40),
    ("쉰", 50),
    ("예순", 60),
    ("일흔", 70),
    ("여든", 80),
    ("아흔", 90),
];
const NATIVE_UNITS: [(&str, u32); 9] =
    [("한", 1), ("두", 2), ("세", 3), ("네", 4), ("다섯", 5), ("여섯", 6), ("일곱", 7), ("여덟", 8), ("아홉", 9)];

/// Counters of native Korean numerals. If one is a prefix of another, the longer one comes first.
const COUNTERS: &str = "시간 사람 마리 켤레 송이 그루 가지 군데 종류 봉지 상자 박스 접시 그릇 조각 단계 세트 개 명 분 시 번 권 장 병 잔 살 \
    달 대 벌 채 배 쌍 판 줄 통 주 해 곳 편 팩 롤 매 알 방울 컵 스푼 큰술 작은술";

/// Counters with which `한` means 1. With others it is often an idiom.
const COUNTERS_OF_ONE: &str = "시간 마리 켤레 개 명 병 잔 권 살 달";

/// Units and counters of Sino-Korean numerals.
const MEASURES: &str = "밀리그램 킬로그램 밀리미터 센티미터 킬로미터 밀리리터 퍼센트 제곱미터 시간 개월 주일 프로 킬로 그램 미터 센티 리터 달러 \
    유로 인분 인용 학년 분 초 년 월 일 원 주 층 호 도 회 배 점 명 개 위 대 평 장 매 병 권 볼트 와트";

/// Suffixes that may follow a unit, before its particles.
const SUFFIXES: &str = "이면 면 밖에 만큼 마다 짜리 정도 이상 이하 이내 미만 동안 만에 간 째 씩 쯤 입 전 후 내 용";

fn korean(text: &str) -> Vec<NumberWords> {
    let mut found: Vec<NumberWords> = Vec::new();
    let mut before = None;
    for (start, letter) in text.char_indices() {
        let begins = words::is_hangul(letter) && !before.is_some_and(|c: char| c.is_alphanumeric());
        before = Some(letter);
        if begins && found.last().is_none_or(|last| last.place.end <= start) {
            found.extend(native(text, start).or_else(|| sino_korean(text, start)));
        }
    }
    found
}

fn native(text: &str, start: usize) -> Option<NumberWords> {
    let mut end = start;
    let mut value = 0;
    for numerals in [&NATIVE_TENS[..], &NATIVE_UNITS[..]] {
        if let Some((word, number)) = numerals.iter().find(|(word, _)| text[end..].starts_with(word)) {
            value += number;
            end += word.len();
        }
    }
    let (unit, _) = unit_after(text, end, COUNTERS).filter(|_| value > 0)?;
    let is_ambiguous = value == 1 && !COUNTERS_OF_ONE.split_whitespace().any(|known| known == unit);
    Some(NumberWords { place: start..end, value: f64::from(value), is_ambiguous })
}

fn sino_korean(text: &str, start: usize) -> Option<NumberWords> {
    let (mut total, mut section, mut digit, mut letters, mut end) = (0.0, 0.0, None, 0, start);
    for (at, letter) in text[start..].char_indices() {
        match letter {
            '일' | '이' | '삼' | '사' | '오' | '육' | '칠' | '팔' | '구' if digit.is_none() => {
                digit = "일이삼사오육칠팔구".chars().position(|known| known == letter).map(|place| place as f64 + 1.0);
            }
            '십' | '백' | '천' => {
                let place = [('십', 1e1), ('백', 1e2), ('천', 1e3)].iter().find(|(known, _)| *known == letter)?.1;
                if section != 0.0 && section % (place * 10.0) != 0.0 {
                    break;
                }
                section += digit.take().unwrap_or(1.0) * place;
            }
            '만' | '억' => {
                let scale = if letter == '만' { 1e4 } else { 1e8 };
                let part = section + digit.take().unwrap_or(0.0);
                if total != 0.0 && scale == 1e8 {
                    break;
                }
                total += if part == 0.0 { scale } else { part * scale };
                section = 0.0;
            }
            // 삼만 오천 is one number.
            ' ' if letters > 0 && digit.is_none() && section == 0.0 && total > 0.0 => {
                let next = text[start + at + 1..].chars().next();
                if next.is_none_or(|next| !"일이삼사오육칠팔구십백천만".contains(next)) {
                    break;
                }
                continue;
            }
            _ => break,
        }
        letters += 1;
        end = start + at + letter.len_utf8();
        // 이십일 means 21, or 20 days (20일). Without a unit after it, the last letter is the unit 일.
        if letter == '일' && letters > 1 && unit_after(text, end, MEASURES).is_none() {
            end -= letter.len_utf8();
            digit = None;
            letters -= 1;
            break;
        }
    }
    let value = total + section + digit.unwrap_or(0.0);
    let (unit, spaced) = unit_after(text, end, MEASURES).filter(|_| value > 0.0)?;
    // A single letter is often another word: 이 분 is "this person", 사회 is "society", 만일 is "if".
    let is_ambiguous = letters == 1 && (!spaced || value < 3.0 || unit == "도");
    Some(NumberWords { place: start..end, value, is_ambiguous })
}

/// The counter or unit after `at`, and whether a space precedes it.
fn unit_after<'a>(text: &'a str, at: usize, units: &str) -> Option<(&'a str, bool)> {
    let spaced = text[at..].starts_with(' ');
    let rest = &text[at + usize::from(spaced)..];
    let whole = |unit: &&str| {
        let behind = rest[unit.len()..].split(|letter| !words::is_hangul(letter)).next().unwrap_or_default();
        words::is_particles(behind)
            || SUFFIXES.split_whitespace().filter_map(|word| behind.strip_prefix(word)).any(words::is_particles)
    };
    let unit = units.split_whitespace().filter(|unit| rest.starts_with(unit)).find(whole)?;
    Some((&rest[..unit.len()], spaced))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<(&str, f64)> {
        all(text).into_iter().filter(|spoken| !spoken.is_ambiguous).map(|spoken| (&text[spoken.place], spoken.value)).collect()
    }

    #[test]
    fn english_words_are_the_numbers_that_they_say() {
        for (text, expected) in [
            ("boils in nine minutes", vec![("nine", 9.0)]),
            ("twenty-five, or thirty", vec![("twenty-five", 25.0), ("thirty", 30.0)]),
            ("two hundred and fifty pages", vec![("two hundred and fifty", 250.0)]),
            ("three thousand two hundred", vec![("three thousand two hundred", 3200.0)]),
            ("one million five hundred thousand", vec![("one million five hundred thousand", 1.5e6)]),
            ("a hundred and a dozen", vec![("a hundred", 100.0), ("a dozen", 12.0)]),
            ("two and a half hours", vec![("two and a half", 2.5)]),
            ("one point five litres", vec![("one point five", 1.5)]),
            ("since nineteen ninety-nine", vec![("nineteen ninety-nine", 1999.0)]),
            ("six or seven, two three", vec![("six", 6.0), ("seven", 7.0), ("two", 2.0), ("three", 3.0)]),
            ("at ten point that out", vec![("ten", 10.0)]),
            ("for one hour", vec![("one", 1.0)]),
            ("four and five", vec![("four", 4.0), ("five", 5.0)]),
            ("a two-piece set", vec![("two", 2.0)]),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn words_that_are_no_numbers_or_may_be_none_are_let_be() {
        for text in
            ["one of the best", "often", "someone", "tenfold", "thousands of hundreds", "hundred", "a million-ish", "weight"]
        {
            let found = said(text);
            assert!(found.is_empty() || text.starts_with("a million"), "{text}: {found:?}");
        }
        assert!(all("one of two").iter().any(|spoken| spoken.is_ambiguous && spoken.value == 1.0), "an ambiguous word is found");
    }

    #[test]
    fn korean_numerals_count_where_something_is_counted() {
        for (text, expected) in [
            ("두 시간 걸립니다", vec![("두", 2.0)]),
            ("학생 열다섯 명이", vec![("열다섯", 15.0)]),
            ("스무 개와 세 병", vec![("스무", 20.0), ("세", 3.0)]),
            ("이십 분이면 됩니다", vec![("이십", 20.0)]),
            ("가격은 삼만 오천 원", vec![("삼만 오천", 35_000.0)]),
            ("천이백원입니다", vec![("천이백", 1_200.0)]),
            ("오 분 동안", vec![("오", 5.0)]),
            ("이십일 동안", vec![("이십", 20.0)]),
            ("한 시간", vec![("한", 1.0)]),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
        for text in
            ["사회 문제", "만일 그렇다면", "이 분은", "편리한 개인", "한 번 더", "오일 병", "이천 도자기", "세 계", "구원"]
        {
            assert_eq!(said(text), [], "{text}");
        }
    }
}
