# shellcheck shell=sh
# Creates a cluster in $SERVER_HOME unless one exists, and executes its server with this script's arguments. If set,
# $POSTGRES_HBA precedes the lines of pg_hba.conf, $TLS_CERTIFICATE, $TLS_KEY and $TLS_AUTHORITY are written to
# certificate.pem, key.pem and authority.pem, and $FAKED_TIME to clock, where libfaketime reads it. If $POSTGRES_PRIMARY is
# set, the cluster is a standby of the server at this connection string. The scripts and the tests pass this text to `sh -c`,
# in a container (the official image or one of scripts/images) and on the machine itself, under an unprivileged account. With
# $PREPARE_ONLY it exits before it starts the server.
set -eu
home=${SERVER_HOME:-/tmp/tributary}
mkdir -p "$home"
cd "$home"
# shellcheck disable=SC2012 # busybox's find lacks -printf, and these names have no special characters
binaries=$(dirname "$(command -v postgres || ls -d /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)")
# put FILE TEXT
put() { [ -z "$2" ] || (umask 077 && printf '%s\n' "$2" >"$1"); }
put clock "${FAKED_TIME:-}"
if [ ! -s data/PG_VERSION ] && [ -n "${POSTGRES_PRIMARY:-}" ]; then
  "$binaries/pg_basebackup" --dbname="$POSTGRES_PRIMARY" --pgdata=data --write-recovery-conf --checkpoint=fast --no-sync
elif [ ! -s data/PG_VERSION ]; then
  "$binaries/initdb" -D data --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync
  # Connections to a container do not come from its localhost; its port is published on the host's localhost only.
  echo 'host all all all trust' >>data/pg_hba.conf
  if [ -n "${POSTGRES_HBA:-}" ]; then
    { printf '%s\n' "$POSTGRES_HBA" && cat data/pg_hba.conf; } >pg_hba.conf && mv pg_hba.conf data/pg_hba.conf
  fi
fi
put certificate.pem "${TLS_CERTIFICATE:-}"
put key.pem "${TLS_KEY:-}"
put authority.pem "${TLS_AUTHORITY:-}"
[ -z "${PREPARE_ONLY:-}" ] || exit 0
exec "$binaries/postgres" -D "$home/data" -c unix_socket_directories= "$@"
