//! What a run found: a table for people, one JSON object for machines.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::statistics::Estimate;

/// A promise of `SPECIFICATION.md` that a case measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The median must not exceed this; times vary, so a miss is reported and no more.
    AtMost(f64),
    /// The median must reach this; likewise.
    AtLeast(f64),
    /// A count that must not exceed this; counts do not vary, so a miss fails the run.
    CountAtMost(f64),
}

impl Target {
    fn is_met_by(self, median: f64) -> bool {
        match self {
            Target::AtMost(most) | Target::CountAtMost(most) => median <= most,
            Target::AtLeast(least) => median >= least,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AtMost(most) | Target::CountAtMost(most) => write!(f, "<= {most}"),
            Target::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

/// One measured case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Name, as in `SPECIFICATION.md` and in the JSON.
    pub name: &'static str,
    /// What was found.
    pub estimate: Estimate,
    /// Unit of the figures; "ratio" for ratios.
    pub unit: &'static str,
    /// The promise, if the case has one.
    pub target: Option<Target>,
}

/// All cases of a run, in the order they are shown.
#[derive(Debug, Default)]
pub struct Report {
    cases: Vec<Case>,
}

impl Report {
    /// Adds a case; one without samples is left out.
    pub fn add(
        &mut self,
        name: &'static str,
        estimate: Option<Estimate>,
        unit: &'static str,
        target: Option<Target>,
    ) {
        if let Some(estimate) = estimate {
            self.cases.push(Case { name, estimate, unit, target });
        }
    }

    /// Cases whose promise was not kept.
    pub fn missed(&self) -> impl Iterator<Item = &Case> {
        self.cases
            .iter()
            .filter(|case| case.target.is_some_and(|target| !target.is_met_by(case.estimate.median)))
    }

    /// Whether a count was missed: that is a defect, not noise.
    pub fn count_missed(&self) -> bool {
        self.missed().any(|case| matches!(case.target, Some(Target::CountAtMost(_))))
    }

    /// Case name -> `{"median", "low", "high", "unit"}`.
    pub fn json(&self) -> Value {
        let cases = self.cases.iter().map(|case| {
            let Estimate { median, low, high } = case.estimate;
            (case.name.to_owned(), json!({"median": median, "low": low, "high": high, "unit": case.unit}))
        });
        Value::Object(cases.collect::<Map<_, _>>())
    }

    /// Writes [`json`](Self::json) to `path`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.json()).context("write figures as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<32} {:>12} {:>12} {:>12}  {:<13} {:>8}",
            "case", "median", "low", "high", "unit", "target"
        )?;
        for case in &self.cases {
            let [median, low, high] =
                [case.estimate.median, case.estimate.low, case.estimate.high].map(figure);
            write!(f, "{:<32} {median:>12} {low:>12} {high:>12}  {:<13}", case.name, case.unit)?;
            match case.target {
                Some(target) if target.is_met_by(case.estimate.median) => writeln!(f, " {target:>8}  met")?,
                Some(target) => writeln!(f, " {target:>8}  MISSED")?,
                None => writeln!(f)?,
            }
        }
        write!(f, "medians over rounds, with the interval that covers the true median with 95% confidence")
    }
}

/// Three significant digits or whole numbers: more would be noise.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(median: f64, target: Target) -> Report {
        let mut report = Report::default();
        report.add("a_case", Some(Estimate { median, low: median, high: median }), "ratio", Some(target));
        report
    }

    #[test]
    fn only_a_missed_count_is_a_defect() {
        assert!(report(2.0, Target::CountAtMost(1.0)).count_missed());
        assert!(!report(2.0, Target::AtMost(1.0)).count_missed());
        assert_eq!(report(2.0, Target::AtMost(1.0)).missed().count(), 1);
        assert_eq!(report(2.0, Target::AtLeast(1.0)).missed().count(), 0);
        assert!(report(2.0, Target::AtMost(1.0)).to_string().contains("MISSED"));
    }

    #[test]
    fn the_json_is_one_object_by_case() {
        let json = report(1.5, Target::AtMost(2.0)).json();
        assert_eq!(json, json!({"a_case": {"median": 1.5, "low": 1.5, "high": 1.5, "unit": "ratio"}}));
    }
}
