use super::*;
use crate::domain::{Arrivals, Kind};

#[test]
fn the_ledger_is_in_the_text() {
    let ledger = Arc::new(Ledger::default());
    let metrics = Metrics::new(Arc::clone(&ledger));
    let mut three = Arrivals::default();
    three.add(Some(Kind::Measurement), 3);
    ledger.receive(three);
    assert!(metrics.render().contains(" 3"));
    ledger.receive(three);
    let text = metrics.render();
    assert!(
        text.contains(r#"tributary_items_total{kind="measurements",outcome="received"} 6"#),
        "{text}"
    );
    assert!(text.contains(r#"tributary_items_in_flight{kind="measurements"} 6"#), "{text}");
}
