//! Doubles as PostgreSQL writes them: the shortest digits that read back the same.

/// Appends `real` in the form of PostgreSQL's `float8out` with `extra_float_digits` at its default.
pub fn write(out: &mut Vec<u8>, real: f64) {
    if real.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if real.is_infinite() {
        return out.extend_from_slice(if real > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    let scientific = format!("{real:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..15).contains(&exponent) {
        out.extend_from_slice(format!("{real}").as_bytes());
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        out.extend_from_slice(format!("{mantissa}e{sign}{:02}", exponent.abs()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn as_postgresql_writes_them() {
        let cases = [
            (1.0, "1"),
            (-0.0, "-0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1.2345678901234568e17, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::INFINITY, "Infinity"),
            (f64::NAN, "NaN"),
            (5e-324, "5e-324"),
        ];
        for (real, expected) in cases {
            let mut out = Vec::new();
            super::write(&mut out, real);
            assert_eq!(out, expected.as_bytes(), "{real}");
        }
    }
}
