//! Ages and durations as upstream prints them (`duration.HumanDuration`): the longer, the coarser.

use jiff::{SignedDuration, Timestamp};

const MINUTE_SECONDS: i64 = 60;
const HOUR_SECONDS: i64 = 60 * MINUTE_SECONDS;
const DAY_HOURS: i64 = 24;
const YEAR_DAYS: i64 = 365;

/// Time since an RFC 3339 time, or `<unknown>` when there is none.
pub(super) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => human_duration(now.duration_since(then)),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// A duration, in at most two units.
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    // Clocks of different machines may differ by a little.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let (minutes, hours) = (seconds / MINUTE_SECONDS, seconds / HOUR_SECONDS);
    let (days, years) = (hours / DAY_HOURS, hours / DAY_HOURS / YEAR_DAYS);
    if seconds < 2 * MINUTE_SECONDS {
        format!("{}s", seconds.max(0))
    } else if minutes < 10 {
        two_units(minutes, "m", seconds % MINUTE_SECONDS, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two_units(hours, "h", minutes % 60, "m")
    } else if hours < 2 * DAY_HOURS {
        format!("{hours}h")
    } else if days < 8 {
        two_units(days, "d", hours % DAY_HOURS, "h")
    } else if years < 2 {
        format!("{days}d")
    } else if years < 8 {
        two_units(years, "y", days % YEAR_DAYS, "d")
    } else {
        format!("{years}y")
    }
}

fn two_units(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit}{small}{small_unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_get_coarser() {
        let (minute, hour, day) = (60, 3600, 86_400);
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * minute, "2m"),
            (3 * minute + 7, "3m7s"),
            (10 * minute + 7, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (7 * hour + 30 * minute, "7h30m"),
            (47 * hour, "47h"),
            (2 * day, "2d"),
            (7 * day + hour, "7d1h"),
            (8 * day + hour, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (735 * day, "2y5d"),
            (8 * 365 * day + day, "8y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human_duration(SignedDuration::from_secs(seconds)), expected, "{seconds}");
        }
    }
}
