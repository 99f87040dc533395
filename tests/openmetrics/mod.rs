//! A strict reader of OpenMetrics 1.0 text: what it lets through, Prometheus understands.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};

/// One family of metrics.
#[derive(Debug, Default)]
pub struct Family {
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// What it says of itself.
    pub help: String,
    /// Values, by the sample's name and labels as they stand.
    pub samples: BTreeMap<String, f64>,
}

/// Families by name.
#[derive(Debug, Default)]
pub struct Exposition {
    pub families: BTreeMap<String, Family>,
}

impl Exposition {
    /// Reads all of it, or says which line is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text
            .strip_suffix("# EOF\n")
            .ok_or("it does not end in `# EOF` and a line feed")?;
        let mut reader = Reader::default();
        for (index, line) in body.lines().enumerate() {
            reader
                .line(line)
                .map_err(|why| format!("line {}: {why}: {line:?}", index + 1))?;
        }
        reader.check_histograms()?;
        Ok(reader.read)
    }

    /// The value of a sample, such as `bridgehead_hosts{stage="dhcp"}`.
    pub fn value(&self, sample: &str) -> Option<f64> {
        let found = self.families.values().find_map(|f| f.samples.get(sample));
        found.copied()
    }

    /// Names of families as they are written in documentation: with `_total` and `_info`.
    pub fn documented_names(&self) -> BTreeSet<String> {
        let name = |(name, family): (&String, &Family)| match family.kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.clone(),
        };
        self.families.iter().map(name).collect()
    }
}

#[derive(Default)]
struct Reader {
    read: Exposition,
    current: String,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        match line.strip_prefix("# ") {
            Some(rest) => self.metadata(rest),
            None => self.sample(line),
        }
    }

    fn metadata(&mut self, rest: &str) -> Result<(), String> {
        let mut words = rest.splitn(3, ' ');
        let mut word = || words.next().ok_or("three words are needed");
        let (what, name, value) = (word()?, word()?, word()?);
        if name != self.current {
            let well_formed = name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !well_formed || name.ends_with("_total") {
                return Err(format!("`{name}` is no name of a family"));
            }
            if self.read.families.contains_key(name) {
                return Err(format!("{name} is there twice"));
            }
            self.read
                .families
                .insert(name.to_owned(), Family::default());
            name.clone_into(&mut self.current);
        }
        let family = self.read.families.entry(name.to_owned()).or_default();
        match what {
            "TYPE"
                if ["counter", "gauge", "histogram", "info"].contains(&value)
                    && family.kind.is_empty() =>
            {
                value.clone_into(&mut family.kind);
            }
            "HELP" if family.help.is_empty() => value.clone_into(&mut family.help),
            "UNIT" if name.ends_with(&format!("_{value}")) => {}
            _ => return Err(format!("{what} is wrong here")),
        }
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let (sample, value) = line.rsplit_once(' ').ok_or("no value")?;
        let value: f64 = match value {
            "+Inf" => f64::INFINITY,
            number => number.parse().map_err(|_| "the value is no number")?,
        };
        let (name, labels) = match sample.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').ok_or("no closing brace")?),
            None => (sample, ""),
        };
        check_labels(labels)?;
        let family = self
            .read
            .families
            .get_mut(&self.current)
            .ok_or("no family")?;
        let suffix = name
            .strip_prefix(&self.current)
            .ok_or("not of the family above")?;
        let fits = match family.kind.as_str() {
            "counter" => suffix == "_total" && value >= 0.0,
            "gauge" => suffix.is_empty(),
            "info" => suffix == "_info" && value == 1.0,
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            _ => return Err("the family has no type".into()),
        };
        if !fits || family.help.is_empty() {
            return Err(format!("no sample of a {} with help", family.kind));
        }
        match family.samples.insert(sample.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err("there twice".into()),
        }
    }

    /// Buckets add up, and the last one holds all.
    fn check_histograms(&self) -> Result<(), String> {
        for (name, family) in &self.read.families {
            if family.samples.is_empty() {
                return Err(format!("{name} has no sample"));
            }
            if family.kind != "histogram" || !family.samples.contains_key(&format!("{name}_count"))
            {
                continue;
            }
            let all = family.samples.get(&format!("{name}_bucket{{le=\"+Inf\"}}"));
            if all != family.samples.get(&format!("{name}_count")) {
                return Err(format!("{name}: the last bucket is not the count"));
            }
        }
        Ok(())
    }
}

/// `name="value",…`; and no value that tells one host from another.
fn check_labels(labels: &str) -> Result<(), String> {
    if labels.is_empty() {
        return Ok(());
    }
    for label in labels.split(',') {
        let (name, value) = label.split_once('=').ok_or("a label without value")?;
        let inner = value
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'))
            .ok_or("a label value without quotes")?;
        if name.is_empty() || inner.contains(['"', '\\', '\n']) {
            return Err("a label that is not well formed".into());
        }
        let of_a_host = inner.contains(':') || inner.split('.').count() == 4;
        if of_a_host {
            return Err(format!("`{inner}` looks like a MAC or an address"));
        }
    }
    Ok(())
}
