#!/bin/bash
# Runs once, on an empty volume: a login and a database for each service, and for the payment sandbox (gateway),
# which stands for a foreign system; FURTHER_LOGINS names others. No login may connect to another's database.
set -euo pipefail

sql() { psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet -U "${POSTGRES_USER:-postgres}" -d postgres "$@"; }

for name in inventory payment shipping notification gateway ${FURTHER_LOGINS:-}; do
  password=$(printenv "${name^^}_PASSWORD")
  sql -v name="$name" -v password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done

sql -c 'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC'
