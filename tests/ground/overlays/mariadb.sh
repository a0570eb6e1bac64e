#!/bin/bash
# Behaves like the entrypoint of the official mariadb image: an empty data directory becomes a database, then the server starts.
set -eo pipefail

readonly data=/var/lib/mysql socket=/run/mysqld/mysqld.sock

note() { printf '%s [Note] [Entrypoint]: %s\n' "$(date --rfc-3339=seconds)" "$*"; }

fail() {
	printf '%s [ERROR] [Entrypoint]: %s\n' "$(date --rfc-3339=seconds)" "$*" >&2
	exit 1
}

demand_password() {
	[ -n "$MARIADB_ROOT_PASSWORD$MARIADB_ALLOW_EMPTY_ROOT_PASSWORD$MARIADB_RANDOM_ROOT_PASSWORD" ] ||
		fail 'Database is uninitialized and password option is not specified: set MARIADB_ROOT_PASSWORD, MARIADB_ALLOW_EMPTY_ROOT_PASSWORD or MARIADB_RANDOM_ROOT_PASSWORD'
	[ -z "$MARIADB_RANDOM_ROOT_PASSWORD" ] || MARIADB_ROOT_PASSWORD=$(head -c 24 /dev/urandom | base64)
}

# The server that sets the password listens on its socket only.
with_own_server() {
	local pid
	mariadbd --datadir="$data" --skip-networking --socket="$socket" &
	pid=$!
	for _ in {1..60}; do
		mariadb --protocol=socket --socket="$socket" -uroot --database=mysql -e 'SELECT 1' >/dev/null 2>&1 && break
		sleep 0.5
	done
	mariadb --protocol=socket --socket="$socket" -uroot --database=mysql
	kill "$pid"
	wait "$pid"
}

# A quote or a backslash in the password must not end the string.
sql_text() {
	local text=${1//\\/\\\\}
	printf "'%s'" "${text//\'/\\\'}"
}

# The user of healthcheck.sh, which may do nothing but log in.
health_user() {
	local password host
	password=$(head -c 24 /dev/urandom | base64)
	(
		umask 0077
		printf '[mariadb-client]\nuser=healthcheck\npassword=%s\nsocket=%s\nprotocol=tcp\n' "$password" "$socket" >"$data/.my-healthcheck.cnf"
	)
	for host in 127.0.0.1 ::1 localhost; do
		echo "CREATE USER healthcheck@$(sql_text "$host") IDENTIFIED BY $(sql_text "$password");"
	done
}

make_database() {
	note 'Initializing database files'
	mariadb-install-db --datadir="$data" --rpm --auth-root-authentication-method=normal --skip-test-db >/dev/null
	local host=${MARIADB_ROOT_HOST:-%} anywhere=
	[ "$host" = localhost ] || anywhere="
		CREATE USER root@$(sql_text "$host") IDENTIFIED BY $(sql_text "$MARIADB_ROOT_PASSWORD");
		GRANT ALL ON *.* TO root@$(sql_text "$host") WITH GRANT OPTION;"
	with_own_server <<-SQL
		$anywhere
		$(health_user)
		SET PASSWORD FOR root@localhost = PASSWORD($(sql_text "$MARIADB_ROOT_PASSWORD"));
	SQL
	[ -z "$MARIADB_RANDOM_ROOT_PASSWORD" ] || note "GENERATED ROOT PASSWORD: $MARIADB_ROOT_PASSWORD"
	note 'MariaDB init process done. Ready for start up.'
}

[ "${1:0:1}" != - ] || set -- mariadbd "$@"
if [ "$1" = mariadbd ]; then
	if [ "$(id -u)" = 0 ]; then
		mkdir -p "$data" /run/mysqld
		find "$data" \! -user mysql -exec chown mysql: '{}' +
		find /run/mysqld \! -user mysql -exec chown mysql: '{}' +
		exec gosu mysql "${BASH_SOURCE[0]}" "$@"
	fi
	if [ ! -d "$data/mysql" ]; then
		demand_password
		make_database
	fi
fi
exec "$@"
