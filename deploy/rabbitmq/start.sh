#!/bin/sh
# Starts the broker with the logins of definitions.json (made by `saga topology --permissions -o json`), their passwords
# taken from the environment. They are imported at every start, so that a changed password needs no more than a new
# container; what the file does not name is kept.
set -eu

directory=${0%/*}
passwords=$(for login in $(sed -n 's/.*@\([A-Z0-9_]*\)_PASSWORD@.*/\1/p' "$directory/definitions.json"); do
  printf 's/@%s_PASSWORD@/%s/;' "$login" "$(printenv "${login}_PASSWORD")"
done)

mkdir -p /etc/rabbitmq/conf.d
umask 077
sed "$passwords" "$directory/definitions.json" >/etc/rabbitmq/definitions.json
chown rabbitmq /etc/rabbitmq/definitions.json
umask 022
echo 'load_definitions = /etc/rabbitmq/definitions.json' >/etc/rabbitmq/conf.d/20-logins.conf

exec docker-entrypoint.sh rabbitmq-server
