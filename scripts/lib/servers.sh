# shellcheck shell=bash
# Provides PostgreSQL and the broker to the scripts that source this file. find_servers selects the source and installs what is
# missing, start_servers starts private servers and exports DATABASE_URL and MQTT_URL, stop_servers stops and removes them.
# Sources, in this order: the variables, Docker, binaries of this machine, apt-get as root; else it prints what to install.

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
postgres_image=${TRIBUTARY_TEST_POSTGRES_IMAGE:-postgres:17}
mosquitto_image=${TRIBUTARY_TEST_MOSQUITTO_IMAGE:-eclipse-mosquitto:2}
servers_directory=
servers_containers=()

# Environment variables override the file.
load_env() {
  local line name
  [ -f "$scripts/../.env" ] || return 0
  while IFS= read -r line || [ -n "$line" ]; do
    [[ $line =~ ^[A-Z_0-9]+= ]] || continue
    name=${line%%=*}
    [ -n "${!name+set}" ] && continue
    line=${line#*=}
    line=${line%\"} && export "$name=${line#\"}"
  done <"$scripts/../.env"
}

# Sets servers_from to variables, docker or binaries. TRIBUTARY_TEST_SERVERS forces one of the last two.
find_servers() {
  if [ -n "${DATABASE_URL:-}" ] && [ -n "${MQTT_URL:-}" ]; then
    servers_from=variables
  elif [ "${TRIBUTARY_TEST_SERVERS:-docker}" = docker ] && docker_offers "$postgres_image" && docker_offers "$mosquitto_image"; then
    servers_from=docker
  elif [ "${TRIBUTARY_TEST_SERVERS:-}" = docker ]; then
    echo "TRIBUTARY_TEST_SERVERS=docker is set, but no Docker daemon provides $postgres_image and $mosquitto_image." >&2
    return 1
  else
    servers_from=binaries
    install_servers
  fi
}

# True if a Docker daemon is available, and has the image or can pull it within 120 s.
docker_offers() {
  docker image inspect "$1" >/dev/null 2>&1 ||
    { docker info >/dev/null 2>&1 && timeout 120 docker pull --quiet "$1" >/dev/null 2>&1; }
}

# The directory of the newest PostgreSQL; Debian installs versions side by side, outside of PATH.
postgres_binaries() {
  local file
  for file in $(command -v postgres) /usr/lib/postgresql/*/bin/postgres; do
    file=$(readlink -f "$file")
    [ -x "${file%/*}/initdb" ] && printf '%s %s\n' "$("$file" --version | grep -o '[0-9.]*' | head -n 1)" "${file%/*}"
  done | sort -V | tail -n 1 | cut -d ' ' -f 2
}

mosquitto_binary() {
  PATH=$PATH:/usr/sbin:/usr/local/sbin command -v mosquitto
}

install_servers() {
  local packages=()
  [ -n "$(postgres_binaries)" ] || packages+=(postgresql)
  mosquitto_binary >/dev/null || packages+=(mosquitto mosquitto-clients)
  install_packages "${packages[@]}"
}

# Installs with apt-get, as root on Debian and its derivatives; otherwise prints what to install.
install_packages() {
  local packages=("$@")
  [ ${#packages[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Please install: ${packages[*]}. (Instead of servers you can use Docker, or set DATABASE_URL and MQTT_URL.)" >&2
    return 1
  fi
  echo "Installing ${packages[*]} ..."
  (
    # The scripts start private servers: the packages' own services must not start, neither now nor at boot.
    policy=/usr/sbin/policy-rc.d
    if [ -e $policy ]; then mv $policy $policy.before-tributary; fi
    trap 'rm -f $policy; if [ -e $policy.before-tributary ]; then mv $policy.before-tributary $policy; fi' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    apt-get install -yq --no-install-recommends "${packages[@]}" >/dev/null
    for package in "${packages[@]}"; do
      case $package in
        postgresql | mosquitto | pgbouncer | ejabberd) ! command -v systemctl >/dev/null || systemctl disable --quiet "$package" 2>/dev/null || true ;;
      esac
    done
  )
}

# A free port: "$1" if possible, else one below the range of ephemeral ports.
free_port() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    port=$((20000 + RANDOM % 12000))
  done
  echo "$port"
}

# start_servers durable|fast: starts the servers for which no variable is set. `fast`, for tests, disables fsync; `durable` sets
# shared_buffers and max_wal_size to the values that docs/OPERATIONS.md recommends.
start_servers() {
  local options=()
  case $1 in
    fast) options=(-c fsync=off -c full_page_writes=off) ;;
    durable) options=(-c shared_buffers=1GB -c max_wal_size=4GB) ;;
  esac
  find_servers
  [ "$servers_from" != variables ] || return 0
  servers_directory=$(mktemp -d "${TMPDIR:-/tmp}/tributary.XXXXXX")
  if [ -z "${DATABASE_URL:-}" ]; then
    postgres_port=$(free_port 25432)
    "start_postgres_$servers_from" "${options[@]}"
    export DATABASE_URL=postgres://postgres@127.0.0.1:$postgres_port/postgres
  fi
  if [ -z "${MQTT_URL:-}" ]; then
    mosquitto_port=$(free_port 21883)
    "start_mosquitto_$servers_from"
    export MQTT_URL=mqtt://127.0.0.1:$mosquitto_port
  fi
}

# wait_until WHAT COMMAND...: waits up to 30 s, which slow machines need; most take one or two.
wait_until() {
  local what=$1 tries=300
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "$what was not ready within 30 s." >&2 && return 1; }
    sleep 0.1
  done
}

listens() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# control_postgres stop|restart $POSTGRES_SERVER: for tests of an outage. A restart also starts a server that is stopped, with
# its previous options.
control_postgres() {
  local server=${2#* }
  case $2 in
    docker*) docker "$1" "$server" >/dev/null ;;
    binaries*)
      (cd / && as_server "$(postgres_binaries)/pg_ctl" -D "$server/data" -l "$server/log" -m fast -w "$1" >/dev/null 2>&1)
      ;;
  esac
}

start_postgres_docker() {
  local name=tributary-$$-postgres
  servers_containers+=("$name")
  export POSTGRES_SERVER="docker $name"
  docker run --detach --name "$name" --publish "127.0.0.1:$postgres_port:5432" --user postgres --entrypoint sh \
    "$postgres_image" -c "$(cat "$scripts/lib/run-postgres.sh")" sh -c 'listen_addresses=*' "$@" >/dev/null
  wait_until PostgreSQL docker exec "$name" sh -c "$(cat <<'IN_CONTAINER'
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1); pg_isready -h 127.0.0.1
IN_CONTAINER
  )"
}

start_mosquitto_docker() {
  local name=tributary-$$-mosquitto
  servers_containers+=("$name")
  docker run --detach --name "$name" --publish "127.0.0.1:$mosquitto_port:1883" --user mosquitto --entrypoint sh \
    --env "BROKER_CONF=$(broker_conf 1883 /tmp/tributary)" \
    "$mosquitto_image" -c "$(cat "$scripts/lib/run-mosquitto.sh")" >/dev/null
  wait_until "The broker" docker exec "$name" sh -c 'grep -q :075B /proc/net/tcp /proc/net/tcp6'
}

# scripts/mosquitto.conf, with the last section replaced: broker_conf "PORT [ADDRESS]" DIRECTORY.
broker_conf() {
  sed '/^# --- What differs/,$d' "$scripts/mosquitto.conf"
  printf '%s\n' "listener $1" 'allow_anonymous true' "persistence_location $2/" 'log_dest stderr' 'log_type error' 'log_type warning'
}

# PostgreSQL refuses to run as root; then the servers run as postgres, or as nobody.
as_server() {
  local account
  if [ "$(id -u)" != 0 ]; then
    "$@"
    return
  fi
  account=$(id -un postgres 2>/dev/null || echo nobody)
  if command -v setpriv >/dev/null; then
    setpriv --reuid="$account" --regid="$(id -g "$account")" --clear-groups "$@"
  elif command -v runuser >/dev/null; then
    runuser -u "$account" -- "$@"
  else
    # shellcheck disable=SC2016 # expanded by the inner shell
    su -s /bin/sh "$account" -c 'exec "$0" "$@"' -- "$@"
  fi
}

server_directory() {
  mkdir "$servers_directory/$1"
  [ "$(id -u)" != 0 ] || chown "$(id -un postgres 2>/dev/null || echo nobody)" "$servers_directory" "$servers_directory/$1"
}

start_postgres_binaries() {
  local binaries home=$servers_directory/postgres
  export POSTGRES_SERVER="binaries $home"
  binaries=$(postgres_binaries)
  server_directory postgres
  # The account may have no access to the current directory.
  (
    cd /
    as_server env "PATH=$binaries:$PATH" SERVER_HOME="$home" PREPARE_ONLY=yes sh "$scripts/lib/run-postgres.sh" >/dev/null
    as_server "$binaries/pg_ctl" -D "$home/data" -l "$home/log" -w start >/dev/null -o \
      "-c port=$postgres_port -c listen_addresses=127.0.0.1 -c unix_socket_directories= $*"
  )
}

start_mosquitto_binaries() {
  local home=$servers_directory/mosquitto
  server_directory mosquitto
  { broker_conf "$mosquitto_port 127.0.0.1" "$home" && echo "pid_file $home/pid"; } >"$home/mosquitto.conf"
  as_server "$(mosquitto_binary)" -d -c "$home/mosquitto.conf" 2>"$home/log"
  wait_until "The broker" listens "$mosquitto_port"
}

# Stops the servers that start_servers started, and removes their files.
stop_servers() {
  local home=$servers_directory
  [ ${#servers_containers[@]} = 0 ] || docker rm --force --volumes "${servers_containers[@]}" >/dev/null
  servers_containers=()
  [ -n "$home" ] || return 0
  servers_directory=
  if [ -s "$home/mosquitto/pid" ]; then kill "$(cat "$home/mosquitto/pid")" 2>/dev/null || true; fi
  if [ -s "$home/postgres/data/postmaster.pid" ]; then
    (cd / && as_server "$(postgres_binaries)/pg_ctl" -D "$home/postgres/data" -m fast -w stop >/dev/null) || true
  fi
  rm -rf "$home"
}
