//! Sizes and times in the texts of a preflight.

/// `461 MiB`; three digits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = (1..UNITS.len()).rev().find(|unit| bytes >> (10 * unit) > 0).unwrap_or(0);
    let hundredths = (u128::from(bytes) * 100) >> (10 * unit);
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match (unit, whole) {
        (0, _) | (_, 100..) => format!("{whole} {}", UNITS[unit]),
        (_, 10..) => format!("{whole}.{} {}", rest / 10, UNITS[unit]),
        _ => format!("{whole}.{rest:02} {}", UNITS[unit]),
    }
}

/// `1 segment`, `2 segments`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `12 s`, `3 min 20 s`, `2 h 5 min`; a started second counts.
pub fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    let (minutes, rest) = (seconds / 60, seconds % 60);
    match (minutes, rest) {
        (0, _) => format!("{seconds} s"),
        (1..60, 0) => format!("{minutes} min"),
        (1..60, _) => format!("{minutes} min {rest} s"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_as_the_command_line_writes_them() {
        let sizes = [0, 1023, 1024, 1536 << 10, 20 << 30, 300 << 40, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.00 KiB", "1.50 MiB", "20.0 GiB", "300 TiB", "16383 PiB"]);
        assert_eq!(
            [0, 1, 59_000, 60_000, 61_500, 7_500_000].map(span),
            ["0 s", "1 s", "59 s", "1 min", "1 min 2 s", "2 h 5 min"]
        );
    }
}
