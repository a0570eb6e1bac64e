#!/bin/bash
# Behaves like the entrypoint of the official postgres image: an empty PGDATA becomes a database cluster, then the server starts.
set -Eeuo pipefail

make_directories() {
	mkdir -p "$PGDATA" /var/run/postgresql
	chmod 00700 "$PGDATA" || :
	chmod 03775 /var/run/postgresql || :
	if [ "$(id -u)" = 0 ]; then
		find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
		find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
	fi
}

demand_password() {
	if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
		echo >&2 'Error: Database is uninitialized and superuser password is not specified.'
		echo >&2 '       Set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust to allow all connections without one.'
		exit 1
	fi
}

make_cluster() {
	local user=${POSTGRES_USER:-postgres} method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
	local words=(--username="$user" --auth-local=trust --auth-host=scram-sha-256)
	if [ -n "${POSTGRES_PASSWORD:-}" ]; then
		initdb "${words[@]}" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
	else
		initdb "${words[@]}"
	fi
	printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
	# The server that makes the first database listens on its socket only.
	pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
	if [ "${POSTGRES_DB:-$user}" != postgres ]; then
		psql -v ON_ERROR_STOP=1 --username "$user" --dbname postgres --no-psqlrc \
			--set db="${POSTGRES_DB:-$user}" <<<'CREATE DATABASE :"db" ;'
	fi
	pg_ctl -D "$PGDATA" -m fast -w stop
	printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
if [ "$1" = postgres ]; then
	make_directories
	[ "$(id -u)" != 0 ] || exec gosu postgres "${BASH_SOURCE[0]}" "$@"
	if [ -s "$PGDATA/PG_VERSION" ]; then
		printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
	else
		demand_password
		make_cluster
	fi
fi
exec "$@"
