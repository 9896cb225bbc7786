//! Measured figures, as every `--json FILE` of the project holds them: one object, case name ->
//! `{"median", "low", "high", "unit"}`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Middle of the samples.
    pub median: f64,
    /// Least of them.
    pub low: f64,
    /// Greatest of them.
    pub high: f64,
    /// What is counted: "rows/s", "1" for a plain number or a truth.
    pub unit: &'static str,
}

impl Figure {
    /// Of one sample.
    #[must_use]
    pub fn one(value: f64, unit: &'static str) -> Self {
        Self { median: value, low: value, high: value, unit }
    }

    /// Of several samples; `None` without any.
    #[must_use]
    pub fn of(samples: &[f64], unit: &'static str) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, low, high, unit })
    }
}

/// All cases of a command.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<&'static str, Figure>);

impl Figures {
    /// Adds a case.
    pub fn add(&mut self, name: &'static str, figure: Figure) {
        self.0.insert(name, figure);
    }

    /// The median of a case.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        self.0.get(name).map(|figure| figure.median)
    }

    /// All of them in a line.
    #[must_use]
    pub fn line(&self) -> String {
        let shown = self.0.iter().map(|(name, figure)| {
            // Whole where that says enough, as in 48211 rows/s, else as in 0.0042 a row.
            let digits = if figure.median >= 100.0 || figure.median.fract() == 0.0 { 0 } else { 4 };
            format!("{name}={:.digits$}", figure.median)
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("formatting figures")?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let figure = Figure::of(&[5.0, 1.0, 3.0], "1").unwrap();
        assert_eq!((figure.low, figure.median, figure.high), (1.0, 3.0, 5.0));
        assert_eq!(Figure::of(&[1.0, 2.0], "1").unwrap().median, 1.5);
        assert_eq!(Figure::of(&[], "1"), None);
    }

    #[test]
    fn a_file_is_one_object_of_cases() {
        let mut figures = Figures::default();
        figures.add("rows_per_second", Figure::one(2.0, "rows/s"));
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(text, r#"{"rows_per_second":{"median":2.0,"low":2.0,"high":2.0,"unit":"rows/s"}}"#);
    }
}
