//! Detects a pooler that changes a session's server between transactions. Called once at the start, by
//! the migrations and `app.rs`: we depend on temporary tables, prepared statements, locks and settings
//! of a session.

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::connector::Connector;
use super::pooled_client::PooledClient;
use crate::store::{Config, StoreError};

const SETTING: &str = "select current_setting('tributary.session', true)";

/// A pooler assigns the server that was used last, unless another client gets it first.
const ROUNDS: usize = 3;

/// Fails if a pooler in transaction or statement mode is in use.
pub async fn refuse_transaction_pooling(config: &Config) -> Result<(), StoreError> {
    let connector = Connector::new(config, "tributary-check");
    let (session, other) = (connector.connect().await?, connector.connect().await?);
    let mark = uuid::Uuid::new_v4().to_string();
    for _ in 0..ROUNDS {
        session.batch_execute(&format!("set tributary.session = '{mark}'")).await?;
        // In transaction mode this gets the server on which the setting was made.
        match other.batch_execute("begin").await {
            Err(error) if error.code() == Some(&SqlState::PROTOCOL_VIOLATION) => {
                return Err(StoreError::TransactionPooling);
            }
            outcome => outcome?,
        }
        let is_ours = setting(&session).await?.as_deref() == Some(mark.as_str());
        let is_shared = setting(&other).await?.as_deref() == Some(mark.as_str());
        other.batch_execute("rollback").await?;
        if !is_ours || is_shared {
            return Err(StoreError::TransactionPooling);
        }
    }
    Ok(())
}

async fn setting(client: &PooledClient) -> Result<Option<String>, StoreError> {
    let answer = client.simple_query(SETTING).await?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    }))
}
