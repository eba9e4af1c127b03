//! `resource.Quantity`: numbers with SI (`500m`, `2k`), binary (`64Mi`) or decimal-exponent (`1e3`)
//! suffixes, read and written canonically as `k8s.io/apimachinery/pkg/api/resource` does.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The smallest unit a quantity distinguishes.
const NANOS_PER_UNIT: i128 = 1_000_000_000;
/// Quantities are capped at 2^63-1 units, as upstream does.
const NANOS_MAX: i128 = i64::MAX as i128 * NANOS_PER_UNIT;

const DECIMAL_SUFFIXES: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY_SUFFIXES: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// An amount of a resource, exact to a billionth.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not look like a number with a suffix.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The digits are no number.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// The amount in thousandths, rounded up: millicores for CPU.
    pub fn millis(self) -> i128 {
        ceil_div(self.nanos, 1_000_000)
    }

    /// The amount in whole units, rounded up: bytes for memory.
    pub fn units(self) -> i128 {
        ceil_div(self.nanos, NANOS_PER_UNIT)
    }

    /// Whether the amount is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS_PER_UNIT == 0
    }

    /// Whether the amount is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether the amount is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The amount rounded up to thousandths: what defaulting keeps of resource lists.
    #[must_use]
    pub fn rounded_to_millis(self) -> Self {
        Self { nanos: self.millis() * 1_000_000, ..self }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let digits_len = unsigned.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (digits, suffix) = unsigned.split_at(digits_len);
        if digits.is_empty() {
            return Err(QuantityError::Format);
        }
        let (format, binary_shift, exponent) = parse_suffix(suffix)?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Number);
        }
        let nanos = scale(whole, fraction, exponent, binary_shift).min(NANOS_MAX);
        let nanos = if text.starts_with('-') { -nanos } else { nanos };
        Ok(Self { nanos, format })
    }
}

/// The format, the power of two and the power of ten a suffix stands for.
fn parse_suffix(suffix: &str) -> Result<(Format, u32, i32), QuantityError> {
    if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::DecimalSi, 0, *exponent));
    }
    if let Some((_, shift)) = BINARY_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::BinarySi, *shift, 0));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        return exponent
            .parse()
            .map(|exponent| (Format::DecimalExponent, 0, exponent))
            .map_err(|_| QuantityError::Suffix);
    }
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let number = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    match number.bytes().all(|b| b.is_ascii_digit()) {
        true => Err(QuantityError::Suffix),
        false => Err(QuantityError::Format),
    }
}

/// `whole.fraction × 10^exponent × 2^shift` in billionths, rounded up and saturating.
fn scale(whole: &str, fraction: &str, exponent: i32, binary_shift: u32) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let Ok(mut mantissa) = digits.parse::<i128>() else {
        return NANOS_MAX;
    };
    let fraction_len = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let power = exponent.saturating_add(9).saturating_sub(fraction_len);
    if power >= 0 {
        for _ in 0..power {
            match mantissa.checked_mul(10) {
                Some(product) if product <= NANOS_MAX => mantissa = product,
                _ => return NANOS_MAX,
            }
        }
        return mantissa.checked_mul(1_i128 << binary_shift).unwrap_or(NANOS_MAX);
    }
    let Some(shifted) = mantissa.checked_mul(1_i128 << binary_shift) else {
        return NANOS_MAX;
    };
    match 10_i128.checked_pow(power.unsigned_abs()) {
        Some(divisor) => ceil_div(shifted, divisor),
        None => 1,
    }
}

fn ceil_div(value: i128, divisor: i128) -> i128 {
    let quotient = value.div_euclid(divisor);
    if value.rem_euclid(divisor) == 0 { quotient } else { quotient + 1 }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi
            && self.is_whole()
            && self.nanos.abs() >= 1024 * NANOS_PER_UNIT
        {
            let units = self.nanos / NANOS_PER_UNIT;
            let fits = |shift: &u32| units % (1_i128 << shift) == 0;
            return match BINARY_SUFFIXES.iter().rev().find(|(_, shift)| fits(shift)) {
                Some((suffix, shift)) => write!(f, "{}{suffix}", units >> shift),
                None => write!(f, "{units}"),
            };
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        match (self.format, DECIMAL_SUFFIXES.iter().find(|(_, power)| *power == exponent)) {
            (Format::DecimalExponent, _) if exponent != 0 => write!(f, "{mantissa}e{exponent}"),
            (_, suffix) => write!(f, "{mantissa}{}", suffix.map_or("", |(name, _)| name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Quantity, QuantityError};

    #[test]
    fn quantities_are_written_canonically() {
        let cases = [
            ("1", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("10000", "10k"),
            ("12345", "12345"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("100Mi", "100Mi"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("-5", "-5"),
            ("+5", "5"),
            ("0", "0"),
            ("0Mi", "0"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("129M", "129M"),
            ("99999999999999999999", "9223372036854775807"),
            (".5", "500m"),
        ];
        for (text, canonical) in cases {
            let parsed: Quantity = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn broken_quantities_name_the_broken_part() {
        let cases = [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1Gb", QuantityError::Format),
            ("1GM", QuantityError::Suffix),
            ("1.2.3", QuantityError::Number),
            ("1ex", QuantityError::Suffix),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Quantity>(), Err(error), "{text}");
        }
    }

    #[test]
    fn amounts_compare_across_formats() {
        let quantity = |text: &str| text.parse::<Quantity>().expect("a quantity");
        assert!(quantity("1Gi") > quantity("1G"));
        assert_eq!(quantity("1000m"), quantity("1"));
        assert_eq!(quantity("0.1").millis(), 100);
        assert_eq!(quantity("1m").units(), 1);
    }
}
