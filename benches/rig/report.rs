//! The table, in Markdown, and the same as JSON: medians, ranges, and the ratio of ours to each other's, round by
//! round.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::choice::rounds;
use super::machine::{IDLE, Machine};
use super::stats::{median, spread};
use crate::lab::{Result, io_error};

/// What is measured of each contender in each case.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Over its column: `MB/s`.
    pub title: &'static str,
    /// In JSON: `mb_per_s`.
    pub key: &'static str,
    /// Digits behind the point.
    pub decimals: usize,
}

impl Measure {
    /// As its fields.
    pub const fn new(title: &'static str, key: &'static str, decimals: usize) -> Self {
        Self {
            title,
            key,
            decimals,
        }
    }
}

/// One contender in one case in one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The case's name, over its table.
    pub case: String,
    /// From 1.
    pub round: usize,
    /// Whose it is.
    pub contender: String,
    /// One for each measure of the report, in its order; not a number where there is none.
    pub values: Vec<f64>,
}

/// What ours is to reach: in `case`, by `key`, beside the best of `beside` in the same round.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    /// Of which case.
    pub case: &'static str,
    /// Of which measure.
    pub key: &'static str,
    /// The others.
    pub beside: &'static [&'static str],
    /// Ours divided by the best of the others', the median of all rounds.
    pub ratio: f64,
    /// More is better (a rate), or less (a time, a cost).
    pub more: bool,
}

/// All of a benchmark.
#[derive(Debug)]
pub struct Report {
    bench: &'static str,
    ours: &'static str,
    measures: &'static [Measure],
    machine: Machine,
    samples: Vec<Sample>,
    /// Aims, judged where their contenders took part.
    pub aims: Vec<Aim>,
    /// What the reader has to know, below the tables.
    pub notes: String,
    /// Versions and commands, below the notes.
    pub conditions: Vec<(String, String)>,
}

impl Report {
    /// Begins one, before the first round: it looks what the machine is doing. `ours` is the contender that the
    /// others are compared to.
    pub fn new(bench: &'static str, ours: &'static str, measures: &'static [Measure]) -> Self {
        Self {
            bench,
            ours,
            measures,
            machine: Machine::look(),
            samples: Vec::new(),
            aims: Vec::new(),
            notes: String::new(),
            conditions: Vec::new(),
        }
    }

    /// Measures every contender, called as `name` says, in each of `runs` rounds ([`rounds`]). `measure` gives a value
    /// for each measure of the report.
    ///
    /// # Errors
    /// The first of `measure`, or an interrupt.
    pub fn case<T: Copy>(
        &mut self,
        case: &str,
        runs: usize,
        contenders: &[T],
        name: impl Fn(T) -> &'static str,
        mut measure: impl FnMut(usize, T) -> Result<Vec<f64>>,
    ) -> Result<()> {
        rounds(runs, contenders, |round, contender| {
            let values = measure(round, contender)?;
            self.add(Sample {
                case: case.to_owned(),
                round,
                contender: name(contender).to_owned(),
                values,
            });
            Ok(())
        })
    }

    /// Takes one, and shows it.
    pub fn add(&mut self, sample: Sample) {
        let mut line = format!(
            "{}, round {}: {:<12}",
            sample.case, sample.round, sample.contender
        );
        for (measure, value) in self.measures.iter().zip(&sample.values) {
            let Measure {
                title, decimals, ..
            } = measure;
            let _ = write!(line, " {value:>8.decimals$} {title},");
        }
        eprintln!("{}", line.trim_end_matches(','));
        self.samples.push(sample);
    }

    /// Prints the tables and keeps them as `out/BENCH.md` and `.json`.
    ///
    /// # Errors
    /// Where a file can't be written.
    pub fn write(&self, out: &Path) -> Result<()> {
        fs::create_dir_all(out).map_err(io_error("create", out))?;
        let text = self.text();
        print!("\n{text}");
        for (suffix, content) in [("md", text), ("json", format!("{:#}\n", self.json()))] {
            let file = out.join(format!("{}.{suffix}", self.bench));
            fs::write(&file, content).map_err(io_error("write", &file))?;
        }
        println!("\nKept as {}/{}.md and .json.", out.display(), self.bench);
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for case in self.distinct(|sample| &sample.case) {
            let _ = writeln!(text, "### {case}\n\n{}", self.table(case));
        }
        for aim in &self.aims {
            if let Some(verdict) = self.judge(aim) {
                let _ = writeln!(text, "- {verdict}");
            }
        }
        if self.machine.idle < IDLE {
            text.push_str(
                "\nWarning: others were at work on this machine: the times are theirs as much as ours.\n",
            );
        }
        let _ = writeln!(
            text,
            "\n{}\n\n- machine: {}",
            self.notes.trim(),
            self.machine.line()
        );
        for (key, value) in &self.conditions {
            let _ = writeln!(text, "- {key}: {value}");
        }
        text
    }

    /// Contenders, then ours divided by each other's.
    fn table(&self, case: &str) -> String {
        let rounds = self.distinct(|sample| &sample.round).len();
        let mut text = format!("| median of {rounds} (min-max) |");
        for measure in self.measures {
            let _ = write!(text, " {} |", measure.title);
        }
        let _ = writeln!(text, "\n|---|{}", "---:|".repeat(self.measures.len()));
        let contenders = self.distinct(|sample| &sample.contender);
        for contender in &contenders {
            let cell = |(at, measure): (usize, &Measure)| {
                spread(&self.values(case, contender, at), measure.decimals)
            };
            self.row(&mut text, contender, cell);
        }
        for other in contenders.iter().filter(|other| **other != self.ours) {
            let title = format!("{} / {other}", self.ours);
            let cell = |(at, _): (usize, &Measure)| spread(&self.ratios(case, other, at), 2);
            self.row(&mut text, &title, cell);
        }
        text
    }

    fn row(&self, text: &mut String, title: &str, cell: impl Fn((usize, &Measure)) -> String) {
        let cells: Vec<String> = self.measures.iter().enumerate().map(cell).collect();
        // Without samples in this case there is nothing to say.
        if cells.iter().any(|cell| cell != "-") {
            let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
        }
    }

    /// `met` or `missed`, and by how much; nothing where too few took part.
    fn judge(&self, aim: &Aim) -> Option<String> {
        let at = self.measures.iter().position(|m| m.key == aim.key)?;
        let others: Vec<Vec<f64>> = aim
            .beside
            .iter()
            .map(|other| self.ratios(aim.case, other, at))
            .filter(|ratios| !ratios.is_empty())
            .collect();
        let rounds = others.iter().map(Vec::len).min()?;
        let best = if aim.more { f64::min } else { f64::max };
        let hardest = |round: usize| others.iter().map(|o| o[round]).reduce(best);
        let ratios: Vec<f64> = (0..rounds).filter_map(hardest).collect();
        let (ratio, wanted) = (median(&ratios), aim.ratio);
        let met = if aim.more {
            ratio >= wanted
        } else {
            ratio <= wanted
        };
        let word = if met { "met" } else { "missed" };
        let bound = if aim.more { "at least" } else { "at most" };
        let title = self.measures[at].title;
        Some(format!(
            "{}: {title} {bound} {wanted} of the best other's: {ratio:.2}, {word}",
            aim.case
        ))
    }

    fn values(&self, case: &str, contender: &str, at: usize) -> Vec<f64> {
        self.of(case, contender).map(|s| s.values[at]).collect()
    }

    /// Both of a round ran on the machine in the same state, as near as can be.
    fn ratios(&self, case: &str, other: &str, at: usize) -> Vec<f64> {
        let theirs = |round| self.of(case, other).find(move |s| s.round == round);
        self.of(case, self.ours)
            .filter_map(|ours| Some(ours.values[at] / theirs(ours.round)?.values[at]))
            .filter(|ratio| ratio.is_finite())
            .collect()
    }

    fn of<'a>(&'a self, case: &'a str, contender: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |s| s.case == case && s.contender == contender)
    }

    /// The values of a field, each once, in the order in which they came.
    fn distinct<'a, T: PartialEq>(&'a self, field: impl Fn(&'a Sample) -> &'a T) -> Vec<&'a T> {
        let mut found: Vec<&T> = Vec::new();
        for sample in &self.samples {
            let value = field(sample);
            if !found.contains(&value) {
                found.push(value);
            }
        }
        found
    }

    fn json(&self) -> Value {
        let samples = self.samples.iter().map(|sample| {
            let measured = self.measures.iter().zip(&sample.values);
            let values: serde_json::Map<_, _> = measured
                .map(|(measure, value)| (measure.key.to_owned(), json!(value)))
                .collect();
            json!({
                "case": sample.case, "round": sample.round, "contender": sample.contender, "values": values,
            })
        });
        let samples: Vec<Value> = samples.collect();
        let conditions: serde_json::Map<_, _> = self
            .conditions
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        json!({
            "schema": 1, "bench": self.bench, "machine": self.machine.line(), "idle": self.machine.idle,
            "conditions": conditions, "samples": samples,
        })
    }
}
