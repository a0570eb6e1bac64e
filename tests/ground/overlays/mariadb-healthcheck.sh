#!/bin/bash
# Behaves like healthcheck.sh of the official mariadb image, as far as --connect and --innodb_initialized go.
set -eo pipefail

readonly settings=/var/lib/mysql/.my-healthcheck.cnf

ask() { mariadb ${settings_there:+--defaults-extra-file="$settings"} --batch "$@"; }

# The server takes connections over TCP; who logs in does not matter.
connect() {
	local answer
	answer=$(ask --host=localhost --protocol=tcp -e 'SELECT 1' 2>&1) || :
	[[ $answer != *"Can't connect"* ]]
}

innodb_initialized() {
	local query='SELECT 1 FROM information_schema.ENGINES WHERE engine="innodb" AND support IN ("YES", "DEFAULT", "ENABLED")'
	[ "$(ask --skip-column-names -e "$query")" = 1 ]
}

settings_there=
[ ! -f "$settings" ] || settings_there=1
for test; do
	case $test in
		--connect | --innodb_initialized) ;;
		*)
			echo "healthcheck unknown option or test '${test#--}'" >&2
			exit 1
			;;
	esac
	"${test#--}" || {
		echo "healthcheck ${test#--} failed" >&2
		exit 1
	}
done
