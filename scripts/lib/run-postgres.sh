# shellcheck shell=sh
# Makes a cluster in $SERVER_HOME if there is none, and becomes its server; arguments are passed to it. Where they are set,
# $POSTGRES_HBA is put before the lines of pg_hba.conf, $TLS_CERTIFICATE, $TLS_KEY and $TLS_AUTHORITY go into certificate.pem, ...
# The scripts and the tests hand this text to `sh -c`: in a container, of the official image or one that scripts/images
# made, and on the machine itself. It runs as an unprivileged account; with $PREPARE_ONLY it ends where the server begins.
set -eu
home=${SERVER_HOME:-/tmp/tributary}
mkdir -p "$home"
cd "$home"
# shellcheck disable=SC2012 # busybox's find is no help, and these names are tame
binaries=$(dirname "$(command -v postgres || ls -d /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)")
if [ ! -s data/PG_VERSION ]; then
  "$binaries/initdb" -D data --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync
  # A container is not its host's localhost; its port is published on that alone.
  echo 'host all all all trust' >>data/pg_hba.conf
  if [ -n "${POSTGRES_HBA:-}" ]; then
    { printf '%s\n' "$POSTGRES_HBA" && cat data/pg_hba.conf; } >pg_hba.conf && mv pg_hba.conf data/pg_hba.conf
  fi
fi
# put FILE TEXT
put() { [ -z "$2" ] || (umask 077 && printf '%s\n' "$2" >"$1"); }
put certificate.pem "${TLS_CERTIFICATE:-}"
put key.pem "${TLS_KEY:-}"
put authority.pem "${TLS_AUTHORITY:-}"
[ -z "${PREPARE_ONLY:-}" ] || exit 0
exec "$binaries/postgres" -D "$home/data" -c unix_socket_directories= "$@"
