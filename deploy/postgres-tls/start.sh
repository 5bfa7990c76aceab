#!/bin/sh
# Starts PostgreSQL with TLS, and with the logins' passwords from files. PostgreSQL accepts no key that others may read,
# as the file of a secret is: it gets a copy.
set -eu

for login in ADMIN INVENTORY PAYMENT SHIPPING NOTIFICATION GATEWAY; do
  password=$(cat "/run/secrets/$(echo "$login" | tr A-Z a-z)-password")
  export "${login}_PASSWORD=$password"
done
export POSTGRES_PASSWORD="$ADMIN_PASSWORD"
install -m 600 /run/secrets/postgres.key /tmp/postgres.key

exec docker-entrypoint.sh "$@" -c ssl=on -c ssl_cert_file=/run/secrets/postgres.crt -c ssl_key_file=/tmp/postgres.key \
  -c hba_file=/saga/pg_hba.conf
