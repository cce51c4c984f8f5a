# shellcheck shell=sh
# Writes $BROKER_CONF to $SERVER_HOME, and executes the broker. If set, $BROKER_ACCOUNTS (lines of user:password) and
# $BROKER_ACL are written to the files passwords and acl, and $TLS_CERTIFICATE, $TLS_KEY and $TLS_AUTHORITY to
# certificate.pem, key.pem and authority.pem. The scripts and the tests pass this text to `sh -c`, in a container (the
# official image or one of scripts/images) and on the machine itself, under an unprivileged account. With $PREPARE_ONLY it
# exits before it starts the broker.
set -eu
home=${SERVER_HOME:-/tmp/tributary}
mkdir -p "$home"
cd "$home"
umask 077
# put FILE TEXT
put() { [ -z "$2" ] || printf '%s\n' "$2" >"$1"; }
put passwords "${BROKER_ACCOUNTS:-}"
# Not with -b: every process of the machine can read its arguments.
[ -z "${BROKER_ACCOUNTS:-}" ] || mosquitto_passwd -U passwords
put acl "${BROKER_ACL:-}"
put certificate.pem "${TLS_CERTIFICATE:-}"
put key.pem "${TLS_KEY:-}"
put authority.pem "${TLS_AUTHORITY:-}"
put mosquitto.conf "$BROKER_CONF"
[ -z "${PREPARE_ONLY:-}" ] || exit 0
exec mosquitto -c mosquitto.conf
