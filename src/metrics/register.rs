//! Creates and registers metrics. Called by `Metrics::new`. Describes each, so that a test can compare them
//! with the documentation.

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

use super::Age;

const CONSTANT_NAMES: &str = "the names of metrics are constants, each used once";

/// Name, type and labels of a metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its name, including the unit.
    pub name: String,
    /// Its type.
    pub form: MetricType,
    /// Names of its labels.
    pub labels: Vec<String>,
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

    fn add<C: Collector + Clone + 'static>(&mut self, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect(CONSTANT_NAMES);
        self.registry.register(Box::new(collector.clone())).expect(CONSTANT_NAMES);
        let (description, form) = (collector.desc()[0], collector.collect()[0].get_field_type());
        let (name, labels) = (description.fq_name.clone(), description.variable_labels.clone());
        self.descriptions.push(Description { name, form, labels });
        collector
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    pub(super) fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let collector = IntCounterVec::new(Opts::new(name, help), labels);
        self.add(collector)
    }

    pub(super) fn seconds(&mut self, name: &str, help: &str) -> Counter {
        self.add(Counter::new(name, help))
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    pub(super) fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let collector = IntGaugeVec::new(Opts::new(name, help), labels);
        self.add(collector)
    }

    pub(super) fn float(&mut self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    pub(super) fn age(&mut self, name: &str, help: &str) -> Age {
        Age::new(self.float(name, help))
    }

    pub(super) fn floats(&mut self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let collector = GaugeVec::new(Opts::new(name, help), labels);
        self.add(collector)
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options))
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, labels))
    }
}
