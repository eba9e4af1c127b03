//! Resource quantities (Kubernetes API conventions) as exact integers. Only what the agent needs:
//! parsing, rounding up to whole units, and division for the downward API.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths of the unit, rounded up; `None` where the text is not a quantity.
pub(crate) fn parse_milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let split = text
        .char_indices()
        .find(|(at, c)| {
            !(c.is_ascii_digit() || *c == '.' || (*at == 0 && (*c == '+' || *c == '-')))
        })
        .map_or(text.len(), |(at, _)| at);
    let (number, suffix) = text.split_at(split);
    let (multiplier, divisor): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let scale = 10i128.checked_pow(power.unsigned_abs().min(18))?;
            if power >= 0 { (scale, 1) } else { (1, scale) }
        }
    };
    let negative = number.starts_with('-');
    let digits = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 || whole.len() > 19 {
        return None;
    }
    let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let value = (whole * scale + fraction).checked_mul(multiplier)?.checked_mul(1000)?;
    let value = div_ceil(value, scale.checked_mul(divisor)?);
    Some(if negative { -value } else { value })
}

/// Thousandths of the unit; anything unreadable counts as nothing, the API server has refused it.
pub(crate) fn milli(quantity: &Quantity) -> i64 {
    parse_milli(&quantity.0).and_then(|value| i64::try_from(value).ok()).unwrap_or(0)
}

/// Whole units, rounded up.
pub(crate) fn value(quantity: &Quantity) -> i64 {
    parse_milli(&quantity.0)
        .map(|milli| div_ceil(milli, 1000))
        .and_then(|value| i64::try_from(value).ok())
        .unwrap_or(0)
}

/// `value / divisor` rounded up, as the downward API prints a resource.
pub(crate) fn divided(quantity: &Quantity, divisor: Option<&Quantity>) -> i64 {
    let value = parse_milli(&quantity.0).unwrap_or(0);
    let divisor = divisor
        .and_then(|divisor| parse_milli(&divisor.0))
        .filter(|divisor| *divisor > 0)
        .unwrap_or(1000);
    i64::try_from(div_ceil(value, divisor)).unwrap_or(i64::MAX)
}

fn div_ceil(value: i128, divisor: i128) -> i128 {
    value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("100m", Some(100)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1Ki", Some(1_024_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("1e3", Some(1_000_000)),
            ("5E-1", Some(500)),
            ("1u", Some(1)),
            ("-2", Some(-2000)),
            ("", None),
            ("x", None),
            ("1Qi", None),
        ] {
            assert_eq!(parse_milli(text), expected, "{text}");
        }
        assert_eq!(value(&Quantity("1500m".into())), 2);
        assert_eq!(divided(&Quantity("64Mi".into()), Some(&Quantity("1Mi".into()))), 64);
        assert_eq!(divided(&Quantity("250m".into()), Some(&Quantity("1m".into()))), 250);
        assert_eq!(divided(&Quantity("250m".into()), None), 1);
    }
}
