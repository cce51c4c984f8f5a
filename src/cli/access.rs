//! `tributary token` and `tributary user`: manage access to the API directly in the database. Called by the command
//! line. A token is printed alone on the last line; a password is never an argument, which every user of the machine
//! could read.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use crate::domain::{
    NetworkIdentifier, Role, Scope, Timestamp, Token, hash_password, is_usable_password,
};
use crate::store::{AccessError, NewToken, NewUser, Page, Store, StoreError, TokenRow};

const MAX_NAME_CHARACTERS: usize = 200;
const MAX_DAYS: u64 = 36_600;

/// A larger file is not a password.
const MAX_PASSWORD_BYTES: u64 = 4_096;

/// `tributary token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token, and print it, alone on the last line. It is shown only once.
    Create {
        #[command(flatten)]
        grant: Grant,
        /// It expires after this number of days [default: never]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=MAX_DAYS))]
        expires_in: Option<u64>,
    },
    /// List the tokens, without their text; sessions are left out.
    List,
    /// Revoke a token, by its name or its identifier. Running services refuse it within two seconds.
    Revoke {
        /// Its name, or its identifier
        token: String,
    },
}

/// `tributary user …`
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user, who signs in with a password at POST /api/v1/sessions.
    Create {
        #[command(flatten)]
        grant: Grant,
        /// The file whose first line is the password [default: standard input]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

/// A name, a role and its scope.
#[derive(Debug, Args)]
pub struct Grant {
    /// The name: unique in the network, and that of a user among all users
    #[arg(long, value_parser = name)]
    name: String,
    /// viewer reads, operator also configures and replays, admin does everything
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// The identifier of the one network in which the role holds [default: all networks]
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    network: Option<NetworkIdentifier>,
}

fn name(text: &str) -> Result<String, String> {
    let usable = (1..=MAX_NAME_CHARACTERS).contains(&text.chars().count())
        && !text.chars().any(char::is_control);
    usable.then(|| text.to_owned()).ok_or_else(|| "it takes 1 to 200 printable characters".into())
}

fn network(text: &str) -> Result<NetworkIdentifier, String> {
    NetworkIdentifier::parse(text).ok_or_else(|| "it takes a UUID in its hyphenated form".into())
}

/// # Errors
/// When the command fails; the error is one sentence for the person at the terminal.
pub(super) async fn token(command: TokenCommand, store: &Store) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { grant, expires_in } => create_token(grant, expires_in, store).await,
        TokenCommand::List => list_tokens(store).await,
        TokenCommand::Revoke { token } => revoke_token(&token, store).await,
    }
}

/// # Errors
/// When the command fails; the error is one sentence for the person at the terminal.
pub(super) async fn user(command: UserCommand, store: &Store) -> anyhow::Result<()> {
    let UserCommand::Create { grant, password_file } = command;
    let password = read_password(password_file)?;
    ensure!(
        is_usable_password(password.expose_secret()),
        "the password is not usable: it takes 12 to 200 characters"
    );
    let new = NewUser {
        password_hash: hash_password(&password),
        name: grant.name,
        role: grant.role,
        scope: Scope::of(grant.network),
        signs_in_with_network: false,
    };
    let created = store.create_user(&new).await;
    let identifier = created.map_err(|error| refusal(error, "user", &new.name))?;
    print_line(&format!("Created the user {} ({identifier}), {}.", new.name, new.role))
}

async fn create_token(grant: Grant, expires_in: Option<u64>, store: &Store) -> anyhow::Result<()> {
    let token = Token::random();
    let lasts = |days| Duration::from_secs(days * 86_400);
    let expires_at = expires_in.map(|days| Timestamp::now().saturating_add(lasts(days)));
    let new = NewToken {
        name: grant.name,
        digest: token.digest(),
        role: grant.role,
        scope: Scope::of(grant.network),
        expires_at,
        user: None,
    };
    let created = store.create_token(&new).await;
    let identifier = created.map_err(|error| refusal(error, "token", &new.name))?;
    print_line(&format!(
        "Created the token {} ({identifier}), {}. It is shown this once:",
        new.name, new.role
    ))?;
    print_line(token.reveal())
}

async fn list_tokens(store: &Store) -> anyhow::Result<()> {
    let mut page = Page { limit: 1_000, after: None };
    loop {
        let mut rows = store.list_tokens(Scope::All, &page).await.map_err(with_hint)?;
        let there_is_more = rows.len() > page.limit as usize;
        rows.truncate(page.limit as usize);
        for row in &rows {
            print_line(&line(row))?;
        }
        if !there_is_more {
            return Ok(());
        }
        page.after = rows.last().map(|last| last.identifier);
    }
}

fn line(row: &TokenRow) -> String {
    let time = |at: Option<jiff::Timestamp>, none: &str| {
        at.map_or_else(|| none.to_owned(), |at| format!("{at:.0}"))
    };
    format!(
        "{}  {:8}  {:36}  expires {:20}  used {:20}  {}",
        row.identifier,
        row.role.name(),
        row.network.map_or_else(|| "all networks".into(), |network| network.to_string()),
        time(row.expiry_timestamp, "never"),
        time(row.last_used_timestamp, "never"),
        row.name,
    )
}

async fn revoke_token(token: &str, store: &Store) -> anyhow::Result<()> {
    let named = match Uuid::try_parse(token) {
        Ok(identifier) => store.revoke_token(Scope::All, identifier).await.map_err(with_hint)?,
        Err(_no_identifier) => false,
    };
    let count = if named { 1 } else { store.revoke_token_named(token).await.map_err(with_hint)? };
    match count {
        1 => print_line("Revoked."),
        0 => bail!("there is no token {token:?}; tributary token list shows those that exist"),
        _ => bail!(
            "{count} tokens of different networks are named {token:?}; \
             give the identifier that tributary token list shows"
        ),
    }
}

fn refusal(error: AccessError, what: &str, name: &str) -> anyhow::Error {
    match error {
        AccessError::NameTaken => anyhow::anyhow!("there is a {what} named {name:?} already"),
        AccessError::Store(error) => with_hint(error),
        other => other.into(),
    }
}

fn with_hint(error: StoreError) -> anyhow::Error {
    if error.lacks_tables() {
        return anyhow::anyhow!("the tables do not exist; run tributary migrate");
    }
    error.into()
}

/// Reads the first line.
fn read_password(file: Option<PathBuf>) -> anyhow::Result<SecretString> {
    let mut text = String::new();
    match file {
        Some(path) => {
            let problem = || format!("the password file {}", path.display());
            let file = std::fs::File::open(&path).with_context(problem)?;
            file.take(MAX_PASSWORD_BYTES).read_to_string(&mut text).with_context(problem)?;
        }
        None => {
            let standard_input = std::io::stdin().lock();
            let mut limited = standard_input.take(MAX_PASSWORD_BYTES);
            limited.read_line(&mut text).context("reading the password from standard input")?;
        }
    }
    let line = text.lines().next().unwrap_or_default();
    Ok(SecretString::from(line))
}

fn print_line(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("writing to standard output")
}
