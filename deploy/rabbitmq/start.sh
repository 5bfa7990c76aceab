#!/bin/sh
# Starts the broker with the logins of definitions.json (made by `saga topology --permissions -o json`), their passwords
# taken from the environment. They are imported at every start, so that a changed password needs no more than a new
# container; what the file does not name is kept. What is written here lies in memory: the container is read-only.
set -eu

directory=${0%/*}
written=/tmp/saga
passwords=$(for login in $(sed -n 's/.*@\([A-Z0-9_]*\)_PASSWORD@.*/\1/p' "$directory/definitions.json"); do
  printf 's/@%s_PASSWORD@/%s/;' "$login" "$(printenv "${login}_PASSWORD")"
done)

umask 077
mkdir -p "$written"
sed "$passwords" "$directory/definitions.json" >"$written/definitions.json"
printf 'load_definitions = %s/definitions.json\nlog.console = true\n' "$written" >"$written/rabbitmq.conf"
umask 022

# Debian's rabbitmq-server prints into these files.
ln -sf /dev/stdout /var/log/rabbitmq/startup_log
ln -sf /dev/stderr /var/log/rabbitmq/startup_err

# Beside the image's own conf.d. The image's entrypoint would begin as root, and has nothing to do here.
export RABBITMQ_CONFIG_FILE="$written/rabbitmq.conf" RABBITMQ_LOGS=-
exec rabbitmq-server
