//! A session never has an outdated role or password, also if the user is changed during the sign-in.

use tributary::domain::{Role, Scope, Timestamp, Token};
use tributary::store::{NewToken, NewUser, Store, UserChange, UserRow};

use crate::support::postgres::{Database, connect};
use crate::support::service::{count, database};
use crate::support::store::config;
use crate::support::wait::{TIMEOUT, eventually};

const SESSIONS: &str = "select count(*) from token where account_identifier is not null";

async fn user(database: &Database) -> (Store, UserRow) {
    let config = config(database);
    tributary::store::migrate(&config).await.unwrap();
    let store = Store::new(&config);
    let new = NewUser {
        signs_in_with_network: false,
        name: "user".into(),
        password_hash: "hash".into(),
        role: Role::Admin,
        scope: Scope::All,
    };
    store.create_user(&new).await.unwrap();
    let (user, _) = store.user_named("user", None).await.unwrap().unwrap();
    (store, user)
}

fn session(user: &UserRow) -> NewToken {
    NewToken {
        name: user.name.clone(),
        digest: Token::random().digest(),
        role: user.role,
        scope: Scope::of(user.network),
        expires_at: Some(Timestamp::from_unix_seconds(4_000_000_000.0).unwrap()),
        user: Some(user.identifier),
    }
}

#[actix_rt::test]
async fn a_change_of_the_user_during_the_password_check_prevents_the_session() {
    let database = database().await;
    let (store, outdated) = user(&database).await;
    for change in [
        UserChange { role: Some(Role::Viewer), ..UserChange::default() },
        UserChange { role: Some(Role::Admin), password_hash: Some("new".into()), scope: None },
    ] {
        store.change_user(Scope::All, outdated.identifier, &change).await.unwrap();
        assert_eq!(store.open_session(&outdated, "hash", &session(&outdated)).await.unwrap(), None);
    }
    let (current, hash) = store.user_named("user", None).await.unwrap().unwrap();
    assert!(store.open_session(&current, &hash, &session(&current)).await.unwrap().is_some());
    assert_eq!(count(&database, SESSIONS).await, 1);
}

#[actix_rt::test]
async fn a_change_of_the_user_during_the_insert_of_the_session_revokes_it() {
    let database = database().await;
    let (store, user) = user(&database).await;
    let mut lock_holder = connect(&database.url).await.unwrap();
    let lock = lock_holder.transaction().await.unwrap();
    lock.batch_execute("lock table token in share row exclusive mode").await.unwrap();
    let new = session(&user);
    let wait_for_blocked = async |query: &str| {
        let blocked = format!(
            "select count(*) from pg_stat_activity
             where wait_event_type = 'Lock' and datname = current_database() and query like '{query}%'"
        );
        eventually(TIMEOUT, async || match count(&database, &blocked).await {
            1 => Ok(()),
            seen => Err(seen),
        })
        .await;
    };
    // The sign-in has read the user, and waits to insert the session; then the user is changed.
    let sign_in = store.open_session(&user, "hash", &new);
    let change = UserChange { role: Some(Role::Viewer), ..UserChange::default() };
    let change_user = async {
        wait_for_blocked("delete from token where expiry").await;
        let change = store.change_user(Scope::All, user.identifier, &change);
        let unlock = async {
            wait_for_blocked("update account").await;
            lock.rollback().await.unwrap();
        };
        futures_util::future::join(change, unlock).await.0.unwrap();
    };
    let (session, ()) = futures_util::future::join(sign_in, change_user).await;
    assert!(session.unwrap().is_some());
    assert_eq!(count(&database, SESSIONS).await, 0);
}
