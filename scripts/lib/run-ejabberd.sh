# What: runs an MQTT broker that is not mosquitto, in $SERVER_HOME on $EJABBERD_PORT. Everyone may connect, with any user
# name and password. Without a node name it needs no port mapper and no cookie.
# Usage: by the tests, as an unprivileged user, with `sh -c`
# Needs: ejabberd 23 or newer and erl
set -eu
cd "$SERVER_HOME"
cat >ejabberd.yml <<SETTINGS
loglevel: warning
hosts: [localhost]
acme: {auto: false}
auth_method: anonymous
anonymous_protocol: both
allow_multiple_connections: true
listen:
  - {port: $EJABBERD_PORT, ip: "127.0.0.1", module: mod_mqtt}
modules:
  mod_mqtt: {max_queue: infinity, session_expiry: 7 days}
SETTINGS
[ -z "${PREPARE_ONLY:-}" ] || exit 0
export HOME="$SERVER_HOME" EJABBERD_CONFIG_PATH="$SERVER_HOME/ejabberd.yml" EJABBERD_LOG_PATH="$SERVER_HOME/ejabberd.log"
exec erl -noinput -mnesia dir "\"$SERVER_HOME/mnesia\"" -pa /usr/lib/*/ejabberd-*/ebin -s ejabberd
