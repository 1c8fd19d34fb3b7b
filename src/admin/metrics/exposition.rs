//! The two text forms in which metrics are told: Prometheus's (0.0.4) and OpenMetrics's (1.0), which differ in what a counter's
//! family is called, in their end, and in little else.

use std::fmt::Write;

/// A form, by what a scraper asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Form {
    Prometheus,
    OpenMetrics,
}

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows, but for a restart; its name ends with `_total`.
    Counter,
    /// A level.
    Gauge,
    Histogram,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A label and its value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// A text in the making.
pub(in crate::admin) struct Exposition {
    form: Form,
    text: String,
    /// The name of the family that was begun last, as its samples have it.
    name: String,
}

impl Form {
    /// What a scraper takes that sends this header: OpenMetrics where it is preferred, or takes nothing else.
    pub fn accepted(accept: Option<&str>) -> Self {
        let preference = |wanted: &str| {
            let ranges = accept.unwrap_or_default().split(',');
            let of_type = ranges.filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                (parts.next()? == wanted).then(|| {
                    let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
                    quality.unwrap_or(1.0)
                })
            });
            of_type.fold(0.0, f64::max)
        };
        let open = preference("application/openmetrics-text");
        if open > 0.0 && open >= preference("text/plain") { Form::OpenMetrics } else { Form::Prometheus }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Exposition {
    pub fn new(form: Form) -> Self {
        Self { form, text: String::new(), name: String::new() }
    }

    /// Begins a family; its samples follow. It is told of even when it has none.
    pub fn begin(&mut self, name: &str, kind: Kind, help: &str) {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let family = match self.form {
            Form::Prometheus => name,
            Form::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        self.text += &format!("# HELP {family} ");
        escape(help, false, &mut self.text);
        self.text += &format!("\n# TYPE {family} {}\n", kind.name());
        name.clone_into(&mut self.name);
    }

    /// A sample of a counter or a gauge.
    pub fn sample(&mut self, labels: &[Label<'_>], value: f64) {
        self.line("", labels, None, value);
    }

    /// The samples of a histogram: `counts` has one more than there are bounds, of what lies above the one before.
    pub fn histogram(&mut self, labels: &[Label<'_>], bounds: &[f64], counts: &[u64], sum: f64) {
        debug_assert_eq!(bounds.len() + 1, counts.len(), "{}", self.name);
        let mut total = 0;
        for (bound, count) in bounds.iter().zip(counts) {
            total += count;
            self.line("_bucket", labels, Some(&bound_text(*bound)), total as f64);
        }
        let total = counts.iter().sum::<u64>() as f64;
        self.line("_bucket", labels, Some("+Inf"), total);
        self.line("_count", labels, None, total);
        self.line("_sum", labels, None, sum);
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], bound: Option<&str>, value: f64) {
        self.text += &self.name;
        self.text += suffix;
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        for (number, (label, said)) in all.enumerate() {
            self.text.push(if number == 0 { '{' } else { ',' });
            self.text += label;
            self.text += "=\"";
            escape(said, true, &mut self.text);
            self.text.push('"');
        }
        if !labels.is_empty() || bound.is_some() {
            self.text.push('}');
        }
        // Nothing fails to be written to a string.
        let _ = writeln!(self.text, " {value}");
    }

    pub fn end(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text += "# EOF\n";
        }
        self.text
    }
}

/// A bucket's bound, which OpenMetrics has as a real number always.
fn bound_text(bound: f64) -> String {
    let text = bound.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

fn escape(text: &str, quotes: bool, output: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => output.push_str("\\\\"),
            '\n' => output.push_str("\\n"),
            '"' if quotes => output.push_str("\\\""),
            other => output.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(form: Form) -> String {
        let mut exposition = Exposition::new(form);
        exposition.begin("a_total", Kind::Counter, "What\nis counted");
        exposition.sample(&[("topic", "o\"r\\d\n")], 3.0);
        exposition.begin("b_seconds", Kind::Histogram, "Times");
        exposition.histogram(&[], &[0.000001, 5.0], &[1, 0, 2], 7.5);
        exposition.begin("c", Kind::Gauge, "Nothing");
        exposition.end()
    }

    #[test]
    fn both_forms_are_written_as_they_are_read() {
        let expected = "# HELP a_total What\\nis counted\n# TYPE a_total counter\na_total{topic=\"o\\\"r\\\\d\\n\"} 3\n\
            # HELP b_seconds Times\n# TYPE b_seconds histogram\nb_seconds_bucket{le=\"0.000001\"} 1\nb_seconds_bucket{le=\"5.0\"} 1\n\
            b_seconds_bucket{le=\"+Inf\"} 3\nb_seconds_count 3\nb_seconds_sum 7.5\n# HELP c Nothing\n# TYPE c gauge\n";
        assert_eq!(text(Form::Prometheus), expected);
        let open = expected.replace("HELP a_total", "HELP a").replace("TYPE a_total", "TYPE a") + "# EOF\n";
        assert_eq!(text(Form::OpenMetrics), open);
    }

    #[test]
    fn a_scraper_gets_the_form_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for accept in [prometheus, "application/openmetrics-text", "text/plain, application/openmetrics-text"]
        {
            assert_eq!(Form::accepted(Some(accept)), Form::OpenMetrics, "{accept}");
        }
        for accept in [
            "*/*",
            "",
            "text/plain",
            "text/plain, application/openmetrics-text;q=0.5",
            ";;q=,",
            "application/openmetrics-text;q=0",
        ] {
            assert_eq!(Form::accepted(Some(accept)), Form::Prometheus, "{accept}");
        }
        assert_eq!(Form::accepted(None), Form::Prometheus);
    }
}
