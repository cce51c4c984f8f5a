//! Failed sign-ins, counted over all instances: a token bucket per key. Called by the check of passwords, after the
//! buckets of its own process, which bound how often that is. The table holds the attempts of the last minute or two.

use tokio_postgres::types::Type;

use crate::store::columns::Parameters;
use crate::store::{Store, StoreError};

/// Parameters: keys, seconds for a token by key, tokens less one in seconds by key. Returns the keys that had one.
const TAKE: &str = "\
with expired as (
    delete from sign_in_bucket where key in (
        select key from sign_in_bucket where full_timestamp < now() and key <> all ($1)
        limit 10 for update skip locked)
)
insert into sign_in_bucket as bucket (key, full_timestamp)
select key, now() + make_interval(secs => interval_secs)
from unnest($1::bytea[], $2::float8[], $3::float8[]) as taken (key, interval_secs, room_secs)
where not exists (
    select 1 from sign_in_bucket as empty
    where empty.key = taken.key and empty.full_timestamp > now() + make_interval(secs => room_secs))
order by key
on conflict (key) do update
    set full_timestamp = greatest(bucket.full_timestamp, now()) + (excluded.full_timestamp - now())
returning key";

/// Parameters: keys, seconds for a token by key.
const PUT_BACK: &str = "\
update sign_in_bucket as bucket set full_timestamp = full_timestamp - make_interval(secs => interval_secs)
from unnest($1::bytea[], $2::float8[]) as taken (key, interval_secs)
where bucket.key = taken.key";

/// One bucket.
#[derive(Clone, Debug)]
pub struct SignInBucket {
    /// A digest of what is counted.
    pub key: [u8; 32],
    /// The time in which a token comes back.
    pub interval_secs: f64,
    /// Its size.
    pub burst: u32,
}

impl Store {
    /// Takes a token from each of these buckets; false if one of them is empty.
    pub async fn take_sign_ins(&self, buckets: &[SignInBucket]) -> Result<bool, StoreError> {
        let (keys, intervals) = columns(buckets);
        let rooms: Vec<f64> =
            buckets.iter().map(|it| it.interval_secs * f64::from(it.burst - 1)).collect();
        let parameters: Parameters<'_> = &[
            (&keys, Type::BYTEA_ARRAY),
            (&intervals, Type::FLOAT8_ARRAY),
            (&rooms, Type::FLOAT8_ARRAY),
        ];
        Ok(self.rows(TAKE, parameters).await?.len() == buckets.len())
    }

    /// Puts the tokens back: the sign-in succeeded.
    pub async fn put_back_sign_ins(&self, buckets: &[SignInBucket]) -> Result<(), StoreError> {
        let (keys, intervals) = columns(buckets);
        let parameters: Parameters<'_> =
            &[(&keys, Type::BYTEA_ARRAY), (&intervals, Type::FLOAT8_ARRAY)];
        self.execute(PUT_BACK, parameters).await.map(drop)
    }
}

fn columns(buckets: &[SignInBucket]) -> (Vec<&[u8]>, Vec<f64>) {
    buckets.iter().map(|it| (&it.key[..], it.interval_secs)).unzip()
}
