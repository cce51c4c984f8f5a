//! What could not be stored, newest first. Reads what the writer recorded beside the rows. Promises
//! the bytes as they came: as text where they are text, in base64 where not.

use actix_web::Responder;
use actix_web::web::{self, ServiceConfig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::caller::Caller;
use super::page::{Listing, Parameters, listing};
use super::problem::Problem;
use super::{Context, read, resource};
use crate::domain::{Reason, Role, SensorIdentifier};
use crate::store::{RejectionFilter, RejectionRow};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/rejections", "GET, HEAD").route(read().to(list)));
}

/// A rejection as it stands on the wire.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Rejection)]
pub(super) struct Item {
    identifier: i64,
    receipt_timestamp: jiff::Timestamp,
    topic: String,
    #[schema(value_type = Option<uuid::Uuid>)]
    sensor_identifier: Option<SensorIdentifier>,
    kind: Option<String>,
    item_index: Option<i32>,
    item_count: i32,
    reason: String,
    detail: String,
    #[serde(flatten)]
    raw: Raw,
}

/// The bytes as they came: text where they are UTF-8.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum Raw {
    Text { raw: String },
    Bytes { raw_base64: String },
}

impl From<Vec<u8>> for Raw {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(raw) => Self::Text { raw },
            Err(not_utf8) => Self::Bytes { raw_base64: STANDARD.encode(not_utf8.as_bytes()) },
        }
    }
}

impl From<RejectionRow> for Item {
    fn from(row: RejectionRow) -> Self {
        Self {
            identifier: row.identifier,
            receipt_timestamp: row.received_at.to_jiff(),
            topic: row.topic,
            sensor_identifier: row.sensor,
            kind: row.kind,
            item_index: row.item_index,
            item_count: row.item_count,
            reason: row.reason,
            detail: row.detail,
            raw: row.raw.into(),
        }
    }
}

/// What could not be stored, newest first
#[utoipa::path(
    get, path = "/api/v1/rejections", tag = "rejections", operation_id = "list_rejections",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "100 if not said"),
        ("cursor" = Option<String>, Query, description = "What the last page gave as next"),
        ("sensor" = Option<uuid::Uuid>, Query, description = "Of this sensor"),
        ("reason" = Option<String>, Query, description = "With this code"),
    ),
    responses((status = 200, description = "A page of rejections", body = Listing<Item>)),
)]
pub(super) async fn list(
    context: web::Data<Context>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    caller.may_everywhere(Role::Viewer)?;
    let page = parameters.page::<i64>()?;
    let filter = RejectionFilter {
        sensor: parameters.take_as(
            "sensor",
            "a UUID in its hyphenated form",
            SensorIdentifier::parse,
        )?,
        reason: parameters.take_as("reason", "one of the codes of rejections", known_code)?,
    };
    parameters.finish()?;
    let rows = context.store.list_rejections(&page, filter).await?;
    Ok(listing(rows, &page, |row| row.identifier, Item::from))
}

fn known_code(text: &str) -> Option<&'static str> {
    Reason::ALL.iter().map(|reason| reason.code()).find(|code| *code == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_are_text() {
        let json = |bytes: &[u8]| serde_json::to_value(Raw::from(bytes.to_vec())).unwrap();
        assert_eq!(json(b"{\"a\":1"), serde_json::json!({ "raw": "{\"a\":1" }));
        assert_eq!(json(b""), serde_json::json!({ "raw": "" }));
        assert_eq!(json(b"\xff\0"), serde_json::json!({ "raw_base64": "/wA=" }));
    }
}
