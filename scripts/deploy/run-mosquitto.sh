#!/bin/sh
# What: writes the broker's configuration from scripts/mosquitto.conf and compose.yaml's secrets, and executes the broker.
# Usage: called by compose.yaml, as the entry point of eclipse-mosquitto.
# Needs: /deploy with both mosquitto files, /site/mosquitto.pem, /run/secrets, and a writable /mosquitto/data.
set -eu
umask 077
cd /mosquitto/data

# Accounts are kept across restarts; Tributary's is renewed from its secret. No password is an argument of a process.
touch passwords
sed -i '/^tributary:/d' passwords
printf 'tributary:%s\n' "$(cat /run/secrets/mqtt_password)" >own
mosquitto_passwd -U own
cat own >>passwords
rm own
cp /run/secrets/mosquitto_key key.pem
cp /deploy/mosquitto-acl.conf acl

sed '/^# --- What differs/,$d' /deploy/mosquitto.conf >mosquitto.conf
cat >>mosquitto.conf <<'SITE'
listener 8883
certfile /site/mosquitto.pem
keyfile /mosquitto/data/key.pem
allow_anonymous false
password_file /mosquitto/data/passwords
acl_file /mosquitto/data/acl
persistence_location /mosquitto/data/
log_dest stderr
log_type error
log_type warning
log_type notice
SITE
chown mosquitto:mosquitto . ./*
exec mosquitto -c mosquitto.conf
