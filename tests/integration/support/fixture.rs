//! A service with a database of its own, one sensor, and an MQTT client that publishes as that sensor.

use super::broker::Broker;
use super::client::Client;
use super::postgres::Database;
use super::service::{Service, database};

pub(crate) struct Fixture {
    pub(crate) database: Database,
    pub(crate) service: Service,
    pub(crate) client: Client,
    pub(crate) sensor: String,
}

impl Fixture {
    pub(crate) async fn new(settings: &[(&str, &str)]) -> Self {
        let broker = Broker::shared().await;
        let database = database().await;
        let service = Service::start(&database, broker, settings).await;
        let sensor = service.create_sensor("device").await;
        let client = Client::connect(broker.url(), &format!("{}-device", database.name)).await;
        Self { database, service, client, sensor }
    }

    /// Restarts the service with other settings.
    pub(crate) async fn restart(&mut self, settings: &[(&str, &str)]) {
        assert!(self.service.terminate().await.success());
        self.service = Service::start(&self.database, Broker::shared().await, settings).await;
    }

    pub(crate) async fn publish(&self, kind: &str, payload: impl Into<Vec<u8>>) {
        let topic = format!("{}/{kind}/{}", self.database.name, self.sensor);
        self.client.publish(&topic, payload).await.unwrap();
    }
}
