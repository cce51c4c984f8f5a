//! Which tokens and sensors still exist, and when that may have changed. Called by the streams, which
//! end when their grant ends. While the LISTEN connection is open, each change is reported at its COMMIT;
//! without it, the tables are read through the pool.

use std::time::Duration;

use foldhash::HashMap;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::domain::{NetworkIdentifier, Scope, SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::connections::listener::Listener;
use crate::store::{Config, Store, StoreError};

/// For connecting, and for a query on the LISTEN connection: leaves time for the pool within the two
/// seconds in which a grant ends.
const LISTENER_TIMEOUT: Duration = Duration::from_millis(500);

const LISTEN: &str = "listen tributary_access";

const TOKENS: &str = "\
select identifier, network_identifier from token
where identifier = any ($1) and (expiry_timestamp is null or expiry_timestamp > greatest(now(), $2))";

const SENSORS: &str =
    "select identifier, network_identifier from sensor where identifier = any ($1)";

/// The tokens and sensors that exist.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// The tokens' scopes.
    pub tokens: HashMap<Uuid, Scope>,
    /// The sensors' networks.
    pub sensors: HashMap<SensorIdentifier, NetworkIdentifier>,
}

/// A LISTEN connection, and a pool as a fallback.
#[derive(Debug)]
pub struct AccessWatch {
    /// Notifies of changes.
    pub listener: Listener,
    store: Store,
}

impl AccessWatch {
    /// Call [`Listener::listen`] next.
    pub fn new(config: &Config, store: Store) -> Self {
        let listener = Listener::new(config, "tributary-listen", LISTEN, LISTENER_TIMEOUT);
        Self { listener, store }
    }

    /// Returns which of these exist.
    pub async fn existing(
        &mut self,
        tokens: &[Uuid],
        sensors: &[Uuid],
    ) -> Result<Existing, StoreError> {
        if self.listener.is_listening()
            && let Some(client) = &self.listener.client
        {
            let read = read(client, tokens, sensors);
            if let Ok(Ok(existing)) = tokio::time::timeout(LISTENER_TIMEOUT, read).await {
                return Ok(existing);
            }
            self.listener.client = None;
        }
        let connection = self.store.connection().await?;
        Ok(read(&connection, tokens, sensors).await?)
    }
}

async fn read(
    client: &Client,
    tokens: &[Uuid],
    sensors: &[Uuid],
) -> Result<Existing, tokio_postgres::Error> {
    let now = Timestamp::now();
    let of_tokens: Parameters<'_> = &[(&tokens, Type::UUID_ARRAY), (&now, Type::TIMESTAMPTZ)];
    let of_sensors: Parameters<'_> = &[(&sensors, Type::UUID_ARRAY)];
    let (tokens, sensors) = tokio::try_join!(
        client.query_typed(TOKENS, of_tokens),
        client.query_typed(SENSORS, of_sensors),
    )?;
    let mut existing = Existing::default();
    for row in &tokens {
        existing.tokens.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for row in &sensors {
        existing.sensors.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(existing)
}
