//! Amounts of memory on the command line.

/// Powers of 1024, by the suffix that stands for them.
const UNITS: [(&str, u32); 4] = [("KiB", 1), ("MiB", 2), ("GiB", 3), ("TiB", 4)];

/// Bytes, of a whole number with or without a unit: `1048576`, `512MiB`, `2GiB`.
pub(crate) fn parse(text: &str) -> Result<usize, String> {
    let unit = UNITS.iter().find_map(|&(suffix, power)| Some((text.strip_suffix(suffix)?, power)));
    let (number, power) = unit.unwrap_or((text, 0));
    // No sign: `parse` would take a plus.
    let number =
        number.starts_with(|first: char| first.is_ascii_digit()).then(|| number.parse::<usize>().ok()).flatten();
    let bytes = number.and_then(|number| number.checked_mul(1024_usize.checked_pow(power)?));
    bytes.ok_or_else(|| "expected a number of bytes, or one with KiB, MiB, GiB or TiB, as in 512MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_units() {
        for (text, bytes) in
            [("0", 0), ("1048576", 1 << 20), ("3KiB", 3 << 10), ("512MiB", 512 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse("1TiB"), Ok(1 << 40));
    }

    #[test]
    fn what_is_no_size() {
        for text in
            ["", "MiB", "-1", "+1", "1.5GiB", "1 MiB", "1MB", "1mib", "99999999999999999999", "99999999TiB", "1MiBMiB"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
