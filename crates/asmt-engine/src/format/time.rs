//! Times as people write them.

use jiff::Timestamp;

/// A time as people write it, UTC, to the second; the last one there is for what a lie in a file
/// may claim.
pub fn rfc3339(unix_ms: u64) -> String {
    let second = i64::try_from(unix_ms / 1000).ok().and_then(|second| Timestamp::from_second(second).ok());
    second.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696_000), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(4_107_542_399_999), "2100-02-28T23:59:59Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-30T22:00:00Z");
    }
}
