#!/bin/sh
# Starts the broker with the logins of definitions.json (made by `saga topology --permissions -o json`) and their
# passwords. They are imported at every start, so a changed password needs only a new container; other definitions
# are kept. This script's files are in memory: the container is read-only.
set -eu

directory=${0%/*}
written=/tmp/saga
secrets=/run/secrets

# From a file, if it exists, as with deploy/production.yaml; else from the environment.
password() {
  file=$secrets/$(echo "$1" | tr A-Z a-z)-password
  if [ -e "$file" ]; then cat "$file"; else printenv "${1}_PASSWORD"; fi
}

passwords=$(for login in $(sed -n 's/.*@\([A-Z0-9_]*\)_PASSWORD@.*/\1/p' "$directory/definitions.json"); do
  printf 's/@%s_PASSWORD@/%s/;' "$login" "$(password "$login")"
done)

umask 077
mkdir -p "$written"
sed "$passwords" "$directory/definitions.json" >"$written/definitions.json"
printf 'load_definitions = %s/definitions.json\nlog.console = true\n' "$written" >"$written/rabbitmq.conf"
if [ -e "$secrets/rabbitmq.key" ]; then # TLS only; metrics, which need no login, within the container
  cat >>"$written/rabbitmq.conf" <<END
listeners.tcp = none
listeners.ssl.default = 5671
ssl_options.cacertfile = $secrets/ca.crt
ssl_options.certfile = $secrets/rabbitmq.crt
ssl_options.keyfile = $secrets/rabbitmq.key
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
management.ssl.port = 15671
management.ssl.cacertfile = $secrets/ca.crt
management.ssl.certfile = $secrets/rabbitmq.crt
management.ssl.keyfile = $secrets/rabbitmq.key
prometheus.tcp.ip = 127.0.0.1
END
fi
umask 022

# Debian's rabbitmq-server prints into these files.
ln -sf /dev/stdout /var/log/rabbitmq/startup_log
ln -sf /dev/stderr /var/log/rabbitmq/startup_err

# In addition to the image's own conf.d. The image's entrypoint starts as root, and is not needed.
export RABBITMQ_CONFIG_FILE="$written/rabbitmq.conf" RABBITMQ_LOGS=-
exec rabbitmq-server
