//! The words of which a member or a parameter takes one, as schemas: made from the lists that the
//! code itself asks, so that none is missing. Used by the annotations of handlers. Pure.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::{Kind, Reason, Severity};

macro_rules! words {
    ($($(#[$doc:meta])+ $name:ident as $title:literal is $says:literal of $all:expr;)+) => { $(
        $(#[$doc])+
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let words: Vec<&'static str> = $all;
                let schema = ObjectBuilder::new().schema_type(Type::String);
                schema.description(Some($says)).enum_values(Some(words)).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                $title.into()
            }
        }
    )+ };
}

words! {
    /// The code of a rejection.
    ReasonCode as "RejectionReason" is "Why it was rejected: stable, compare this one"
        of Reason::ALL.iter().map(|reason| reason.code()).collect();
    /// What a sensor says.
    KindName as "Kind" is "What a sensor says"
        of Kind::ALL.into_iter().map(Kind::name).collect();
    /// How grave a log message is.
    SeverityName as "Severity" is "How grave it is"
        of Severity::ALL.into_iter().map(Severity::name).collect();
}
