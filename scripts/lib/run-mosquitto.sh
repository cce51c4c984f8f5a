# shellcheck shell=sh
# Writes $BROKER_CONF to $SERVER_HOME, and becomes the broker. Where they are set, $BROKER_ACCOUNTS (lines of user:password)
# and $BROKER_ACL go into the files passwords and acl, $TLS_CERTIFICATE, $TLS_KEY and $TLS_AUTHORITY into certificate.pem, ...
# The scripts and the tests hand this text to `sh -c`: in a container, of the official image or one that scripts/images
# made, and on the machine itself. It runs as an unprivileged account; with $PREPARE_ONLY it ends where the broker begins.
set -eu
home=${SERVER_HOME:-/tmp/tributary}
mkdir -p "$home"
cd "$home"
umask 077
# put FILE TEXT
put() { [ -z "$2" ] || printf '%s\n' "$2" >"$1"; }
put passwords "${BROKER_ACCOUNTS:-}"
# Not by -b, whose arguments every process of the machine can read.
[ -z "${BROKER_ACCOUNTS:-}" ] || mosquitto_passwd -U passwords
put acl "${BROKER_ACL:-}"
put certificate.pem "${TLS_CERTIFICATE:-}"
put key.pem "${TLS_KEY:-}"
put authority.pem "${TLS_AUTHORITY:-}"
put mosquitto.conf "$BROKER_CONF"
[ -z "${PREPARE_ONLY:-}" ] || exit 0
exec mosquitto -c mosquitto.conf
