//! The words of a plan's line: places and `name=value` pairs, and lengths of time as people write them.

use crate::base::time::Nanos;

const UNITS: [(&str, Nanos); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// The shortest text: `4.2s`, `800ms`, `30us`.
pub fn span(nanos: Nanos) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let (unit, size) = *UNITS.iter().rev().find(|(_, size)| nanos >= *size).expect("a nanosecond fits");
    let digits = size.ilog10() as usize;
    let fraction = if digits == 0 { String::new() } else { format!("{:0digits$}", nanos % size) };
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}{unit}", nanos / size)
}

/// The inverse.
pub fn parse_span(text: &str) -> Result<Nanos, String> {
    let wrong = || format!("`{text}` is not a length of time");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut nanos = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(*size)).ok_or_else(wrong)?;
    let mut place = *size;
    for digit in fraction.chars() {
        place /= 10;
        nanos += place * u64::from(digit.to_digit(10).ok_or_else(wrong)?);
    }
    Ok(nanos)
}

/// One line, taken apart. Whatever is not asked for is an error at the end.
pub struct Words {
    places: std::vec::IntoIter<String>,
    named: Vec<(String, String)>,
}

impl Words {
    pub fn new(line: &str) -> Words {
        let (mut places, mut named) = (Vec::new(), Vec::new());
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => named.push((name.to_string(), value.to_string())),
                None => places.push(word.to_string()),
            }
        }
        Words { places: places.into_iter(), named }
    }

    pub fn next(&mut self, what: &str) -> Result<String, String> {
        self.places.next().ok_or_else(|| format!("{what} is missing"))
    }

    pub fn has_next(&self) -> bool {
        self.places.len() > 0
    }

    pub fn expect(&mut self, word: &str) -> Result<(), String> {
        match self.next(word)? {
            found if found == word => Ok(()),
            found => Err(format!("`{found}` where `{word}` was expected")),
        }
    }

    pub fn one_of<T: Copy>(&mut self, names: &[(&str, T)]) -> Result<T, String> {
        let word = self.next("a name")?;
        lookup(&word, names)
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.named.iter().position(|(named, _)| named == name)?;
        Some(self.named.remove(at).1)
    }

    pub fn number(&mut self, name: &str, default: u64) -> Result<u64, String> {
        self.take(name)
            .map_or(Ok(default), |text| text.parse().map_err(|_| format!("{name}: `{text}` is not a number")))
    }

    pub fn span(&mut self, name: &str) -> Result<Nanos, String> {
        let text = self.take(name).ok_or_else(|| format!("{name}= is missing"))?;
        parse_span(&text)
    }

    pub fn named<T: Copy>(&mut self, name: &str, names: &[(&str, T)], default: T) -> Result<T, String> {
        self.take(name).map_or(Ok(default), |word| lookup(&word, names))
    }

    /// A word that stands there or not.
    pub fn flag(&mut self, word: &str) -> bool {
        let mut rest: Vec<String> = self.places.as_slice().to_vec();
        let found = rest.iter().position(|place| place == word);
        if let Some(at) = found {
            rest.remove(at);
            self.places = rest.into_iter();
        }
        found.is_some()
    }

    /// The first pair that nobody asked for.
    pub fn first_name(&self) -> Option<&str> {
        self.named.first().map(|(name, _)| name.as_str())
    }

    pub fn end(&mut self) -> Result<(), String> {
        match (self.places.next(), self.named.first()) {
            (Some(word), _) => Err(format!("nothing is known of `{word}` here")),
            (None, Some((name, _))) => Err(format!("nothing is known of `{name}=` here")),
            (None, None) => Ok(()),
        }
    }
}

fn lookup<T: Copy>(word: &str, names: &[(&str, T)]) -> Result<T, String> {
    let found = names.iter().find(|(name, _)| *name == word);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("`{word}` is none of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_come_back() {
        for (text, nanos) in [
            ("0s", 0),
            ("7ns", 7),
            ("30us", 30_000),
            ("1.5ms", 1_500_000),
            ("4.2s", 4_200_000_000),
            ("1.000000001s", 1_000_000_001),
            ("3600s", 3_600_000_000_000),
        ] {
            assert_eq!(parse_span(text), Ok(nanos), "{text}");
            assert_eq!(span(nanos), text);
        }
        for text in ["", "5", "s", "1.2.3s", "-1s", "99999999999999s"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}
