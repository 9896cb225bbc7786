//! `numeric` between its text form and PostgreSQL's binary form: digits of base 10,000.

use bytes::{Buf, BufMut, BytesMut};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;

/// Appends the binary form of a decimal number; false if it is not one.
pub fn put(out: &mut BytesMut, text: &str) -> bool {
    if text.eq_ignore_ascii_case("nan") {
        [0, 0, NAN, 0].into_iter().for_each(|word| out.put_u16(word));
        return true;
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => match exponent.parse::<i32>() {
            Ok(exponent) if exponent.abs() <= 400 => (mantissa, exponent),
            _ => return false,
        },
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if digits.is_empty() || digits.len() > 16_000 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    // Where the decimal point is, counted from the first digit.
    let point = whole.len() as i32 + exponent;
    let scale = (digits.len() as i32 - point).max(0);
    // Groups of four digits, aligned to the point.
    let lead = point.rem_euclid(4);
    let padding = if lead == 0 { 0 } else { 4 - lead } as usize;
    let mut padded = vec![b'0'; padding];
    padded.extend_from_slice(&digits);
    padded.resize(padded.len().div_ceil(4) * 4, b'0');
    let groups = padded
        .chunks(4)
        .map(|group| group.iter().fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0')));
    let mut groups: Vec<u16> = groups.collect();
    let mut weight = (point + padding as i32) / 4 - 1;
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight -= zeros as i32;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.put_u16(groups.len() as u16);
    out.put_i16(weight as i16);
    out.put_u16(if negative && !groups.is_empty() { NEGATIVE } else { 0 });
    out.put_u16(scale as u16);
    groups.into_iter().for_each(|group| out.put_u16(group));
    true
}

/// The text of a binary number; `None` if the bytes are not one.
pub fn text(mut bytes: &[u8]) -> Option<String> {
    let count = usize::from(bytes.try_get_u16().ok()?);
    let weight = i32::from(bytes.try_get_i16().ok()?);
    let sign = bytes.try_get_u16().ok()?;
    let scale = usize::from(bytes.try_get_u16().ok()?);
    if bytes.len() != count * 2 || scale > 16_383 {
        return None;
    }
    if sign == NAN {
        return Some("NaN".to_owned());
    }
    let groups: Vec<u16> = (0..count).map(|_| bytes.get_u16()).collect();
    if sign & !NEGATIVE != 0 || groups.iter().any(|group| *group > 9_999) {
        return None;
    }
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let mut whole = String::new();
    for at in 0..=weight {
        whole.push_str(&format!("{:04}", group(at)));
    }
    let whole = whole.trim_start_matches('0');
    let mut fraction = String::new();
    // The first group behind the point has weight -1; those before the first digit are zero.
    let mut at = weight + 1;
    while fraction.len() < scale {
        fraction.push_str(&format!("{:04}", group(at)));
        at += 1;
    }
    fraction.truncate(scale);
    let sign = if sign == NEGATIVE { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for number in [
            "0",
            "1",
            "-1",
            "10000",
            "12345.678",
            "0.0001",
            "0.00012345",
            "-99999999999999999999.5",
            "100.00",
            "0.50",
        ] {
            let mut out = BytesMut::new();
            assert!(put(&mut out, number), "{number}");
            assert_eq!(text(&out).as_deref(), Some(number));
        }
        let mut out = BytesMut::new();
        assert!(put(&mut out, "1.5e3"));
        assert_eq!(text(&out).as_deref(), Some("1500"));
        // 12345.678 as PostgreSQL sends it.
        let mut out = BytesMut::new();
        put(&mut out, "12345.678");
        assert_eq!(&out[..], [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for wrong in ["", "x", "1x", ".", "1e9999", "--1"] {
            assert!(!put(&mut BytesMut::new(), wrong), "{wrong}");
        }
        assert_eq!(text(&[0, 9, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(text(&[0xff, 0xff]), None);
    }
}
