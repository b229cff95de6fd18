//! Lengths and sizes as people write them.
//!
//! Machines get seconds and bytes. A newcomer would add a third way to write a length; these two serve an age or an
//! objective ([`length`]) and how long something took ([`took`]).

use std::time::Duration;

/// A length by its two largest units: `3d 4h`, `12h`, `5m 30s`, `40s`.
pub fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    let units = [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let first = units.iter().position(|&(n, _)| n > 0).unwrap_or(units.len() - 1);
    let words = units[first..].iter().take(2).enumerate().filter(|&(i, &(n, _))| i == 0 || n > 0);
    words.map(|(_, (n, unit))| format!("{n}{unit}")).collect::<Vec<_>>().join(" ")
}

/// How long something took: to the millisecond while it is short, else to the second.
pub fn took(length: Duration) -> String {
    let cut = match length.as_secs() {
        0..10 => Duration::from_millis(length.as_millis().try_into().unwrap_or(u64::MAX)),
        _ => Duration::from_secs(length.as_secs()),
    };
    humantime::format_duration(cut).to_string()
}

/// A number of bytes in the binary unit that fits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_said_by_their_two_largest_units() {
        for (seconds, said) in [(0, "0s"), (40, "40s"), (330, "5m 30s"), (43_200, "12h"), (273_630, "3d 4h")] {
            assert_eq!(length(Duration::from_secs(seconds)), said);
        }
        assert_eq!(length(Duration::from_hours(24 * 30)), "30d");
        assert_eq!(length(Duration::from_secs(86_430)), "1d", "seconds do not matter beside days");
    }

    #[test]
    fn what_was_short_is_told_to_the_millisecond() {
        assert_eq!(took(Duration::from_micros(3_030_700)), "3s 30ms");
        assert_eq!(took(Duration::from_millis(61_999)), "1m 1s");
    }

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(344_684_916), "328.7 MiB");
    }
}
