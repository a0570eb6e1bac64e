#!/bin/sh
# Behaves like the entrypoint of the official nats image: arguments that are options are meant for the server.
set -e

case ${1-} in -*) set -- nats-server "$@" ;; esac

exec "$@"
