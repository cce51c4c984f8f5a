//! A property test: for any malformed URL with a password, no output about it (an error, the settings, their `Debug`)
//! contains the password.

use proptest::prelude::*;

use tributary::config::{Config, EnvFile, Inspection};

/// Contained in every part of a password.
const SECRET: &str = "s3cret";

/// Characters that occur in passwords and that users do not encode.
const SPECIAL: &[char] = &[
    '@', '?', '/', '#', ':', '&', '=', '%', ' ', '\'', '"', '\\', ';', ',', '+', '[', ']', '$',
    '!', '\n', '\t', '{', '}', '|', '^', '<', '>', '~', '\u{feff}', 'é', '€',
];

/// One to three times `SECRET`, each after special characters and digits.
fn password() -> impl Strategy<Value = String> {
    let special = prop::collection::vec(prop::sample::select(SPECIAL), 0..3);
    let part = (special, "[0-9]{0,2}")
        .prop_map(|(special, digits)| special.into_iter().collect::<String>() + &digits + SECRET);
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.concat())
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Forms of a database's URL. `{}` is the password.
const DATABASE: &[&str] = &[
    "postgres://u:{}@db.invalid:5432/d",
    "postgres://u:{}@db.invalid/d?sslmode=require",
    "postgres://u:{}@a.invalid:1,b.invalid:2/d",
    "postgres://u:{}@[::1]/d",
    "postgres://u:{}@%2Frun%2Fpostgresql/d",
    "postgres://:{}@db.invalid",
    "postgres://u:{}@:5432/d",
    "postgres://u:{}@db.invalid:port/d",
    "postgres://u:{}@",
    "postgres:///u:{}@db.invalid/d",
    "postgres://u:[{}]@[db.invalid]/d",
    "postgres://db.invalid/d?user=u&password={}",
    "postgres://db.invalid/d?user=u&pasword={}",
    "postgres://db.invalid/d&password={}",
    "postgres://db.invalid/d;password={}",
    "postgres://db.invalid/d?options=-c%20a=b;password={}",
    "postgres://u:{}@db.invalid/d?sslmode={}",
    "postgres://u:{}@db.invalid/d?connect_timeout={}",
    "host=db.invalid user=u password={} dbname=d",
    "host=db.invalid user=u password='{}' dbname=d",
    "host=db.invalid user=u password=\"{}\" dbname=d",
    "host=db.invalid password:{}",
    "host=db.invalid;user=u;password={}",
    "Host=db.invalid;Username=u;Password={}",
    "user=u;password={};host=db.invalid",
    "application_name=x;password={}",
    "host=db.invalid,user=u,password={}",
    "db.invalid:5432:d:u:{}",
    "u:{}@db.invalid/d",
    "{}",
];

const BROKER: &[&str] = &[
    "mqtt://u:{}@broker.invalid",
    "mqtts://u:{}@broker.invalid:8883/",
    "mqtt://u:{}@broker.invalid:port",
    "mqtt://u:{}@[::1]:1883",
    "mqtt://u:{}@",
    "mqtt://:{}@broker.invalid",
    "ws://u:{}@broker.invalid:9001/mqtt",
    "tcp://u:{}@broker.invalid:1883",
    "u:{}@broker.invalid",
    "broker.invalid:1883:u:{}",
    "{}",
];

const COLLECTOR: &[&str] =
    &["http://u:{}@collector.invalid:4318", "https://collector.invalid?key={}", "u:{}@c", "{}"];

/// Further mistakes in the environment.
fn mangled(text: &str, how: usize) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    match how {
        0 => text.to_owned(),
        1 => format!("\"{text}\""),
        2 => format!("'{text}'"),
        3 => format!("{text}\""),
        4 => format!("\u{feff}{text}"),
        5 => format!("“{text}”"),
        6 => format!("{}://{rest}", scheme.to_uppercase()),
        7 => format!("{scheme}+asyncpg://{rest}"),
        8 => format!("mysql://{rest}"),
        9 => format!("jdbc:{text}"),
        10 => format!("{scheme}:{rest}"),
        11 => format!("{scheme}:/{rest}"),
        12 => format!("{scheme}//{rest}"),
        13 => format!("{scheme}:\\\\{rest}"),
        14 => rest.to_owned(),
        15 => format!("//{rest}"),
        16 => format!("DATABASE_URL={text}"),
        17 => format!("export DATABASE_URL={text}"),
        18 => format!("psql {text}"),
        19 => format!("<{text}>"),
        20 => format!("{text}\n{text}"),
        21 => text.replace("://", ":// "),
        22 => text.replace(":", "%3A").replacen("%3A//", "://", 1),
        23 => text.replace("@", "%40"),
        24 => encoded(text),
        25 => format!("{scheme}://{}", encoded(rest)),
        26 => text.replace("?", "%3F").replace("=", "%3D"),
        27 => text.replace("/", "\\"),
        28 => format!("{text};"),
        _ => format!("{text} # the database"),
    }
}

fn assert_password_is_hidden(name: &str, url: &str) -> Result<(), TestCaseError> {
    let environment = |variable: &str| match variable {
        _ if variable == name => Some(url.to_owned()),
        "DATABASE_URL" => Some("postgres://db.invalid/d".to_owned()),
        "MQTT_URL" => Some("mqtt://broker.invalid".to_owned()),
        _ => None,
    };
    let inspection = Inspection::of(environment, &EnvFile::default());
    let read = Config::read(environment);
    prop_assert_eq!(read.is_ok(), inspection.problems.is_empty());
    let mut output = format!("{inspection} {inspection:?} {read:?}");
    match read {
        Ok(config) => {
            output += &tributary::store::describe(&config.store.postgres, &config.store.ssl)
        }
        Err(error) => output += &error.to_string(),
    }
    let line = output.lines().find(|line| line.to_lowercase().contains(SECRET));
    prop_assert!(line.is_none(), "{name}={url:?} shows {line:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_mangled_url_shows_its_password(
        password in password(),
        is_encoded in prop::bool::weighted(0.2),
        form in any::<prop::sample::Index>(),
        how in 0..30_usize,
        name in prop::sample::select(vec![
            "DATABASE_URL", "DATABASE_URL", "DATABASE_URL", "MQTT_URL", "OTEL_EXPORTER_OTLP_ENDPOINT",
            "DATABASE_PASSWORD_FILE",
        ]),
    ) {
        let forms = match name {
            "DATABASE_URL" => DATABASE,
            "MQTT_URL" => BROKER,
            _ => COLLECTOR,
        };
        let password = if is_encoded { encoded(&password) } else { password };
        assert_password_is_hidden(name, &mangled(&form.get(forms).replace("{}", &password), how))?;
    }
}
