//! Creates and registers metrics. Called by `Metrics::new`. Describes each, so that a test can compare them
//! with the documentation.

use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

use super::Age;

const CONSTANT_NAMES: &str = "the names of metrics are constants, each used once";

/// The type of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Only increases.
    Counter,
    /// Any value.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl Form {
    /// The name in Prometheus and docs/METRICS.md.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Name, type and labels of a metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its name, including the unit.
    pub name: &'static str,
    /// Its type.
    pub form: Form,
    /// Names of its labels.
    pub labels: Vec<&'static str>,
}

/// The registry under construction.
pub(super) struct Register {
    pub(super) registry: Registry,
    pub(super) descriptions: Vec<Description>,
}

impl Register {
    pub(super) fn new() -> Self {
        Self { registry: Registry::new(), descriptions: Vec::new() }
    }

    fn add<C: prometheus::core::Collector + Clone + 'static>(
        &mut self,
        (name, form, labels): (&'static str, Form, &[&'static str]),
        collector: Result<C, prometheus::Error>,
    ) -> C {
        let collector = collector.expect(CONSTANT_NAMES);
        self.registry.register(Box::new(collector.clone())).expect(CONSTANT_NAMES);
        self.descriptions.push(Description { name, form, labels: labels.to_vec() });
        collector
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> IntCounter {
        self.add((name, Form::Counter, &[]), IntCounter::new(name, help))
    }

    pub(super) fn counters(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[&'static str],
    ) -> IntCounterVec {
        let collector = IntCounterVec::new(Opts::new(name, help), labels);
        self.add((name, Form::Counter, labels), collector)
    }

    pub(super) fn seconds(&mut self, name: &'static str, help: &str) -> Counter {
        self.add((name, Form::Counter, &[]), Counter::new(name, help))
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> IntGauge {
        self.add((name, Form::Gauge, &[]), IntGauge::new(name, help))
    }

    pub(super) fn gauges(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[&'static str],
    ) -> IntGaugeVec {
        let collector = IntGaugeVec::new(Opts::new(name, help), labels);
        self.add((name, Form::Gauge, labels), collector)
    }

    pub(super) fn float(&mut self, name: &'static str, help: &str) -> Gauge {
        self.add((name, Form::Gauge, &[]), Gauge::new(name, help))
    }

    pub(super) fn age(&mut self, name: &'static str, help: &str) -> Age {
        Age::new(self.float(name, help))
    }

    pub(super) fn floats(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[&'static str],
    ) -> GaugeVec {
        let collector = GaugeVec::new(Opts::new(name, help), labels);
        self.add((name, Form::Gauge, labels), collector)
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        buckets: &[f64],
    ) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add((name, Form::Histogram, &[]), Histogram::with_opts(options))
    }

    pub(super) fn histograms(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[&'static str],
        buckets: &[f64],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add((name, Form::Histogram, labels), HistogramVec::new(options, labels))
    }
}
