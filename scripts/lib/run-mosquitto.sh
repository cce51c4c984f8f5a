# shellcheck shell=sh
# Writes $BROKER_CONF, and $BROKER_USER with $BROKER_PASSWORD where set, to $SERVER_HOME, and becomes the broker.
# The scripts and the tests hand this text to `sh -c`: in a container, of the official image or one that scripts/images
# made, and on the machine itself. It runs as an unprivileged account; with $PREPARE_ONLY it ends where the broker begins.
set -eu
home=${SERVER_HOME:-/tmp/tributary}
mkdir -p "$home"
cd "$home"
[ -z "${BROKER_USER:-}" ] || mosquitto_passwd -b -c passwords "$BROKER_USER" "$BROKER_PASSWORD"
printf '%s\n' "$BROKER_CONF" >mosquitto.conf
[ -z "${PREPARE_ONLY:-}" ] || exit 0
exec mosquitto -c mosquitto.conf
