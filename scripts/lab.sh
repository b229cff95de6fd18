#!/bin/bash
# A throw-away PostgreSQL cluster with a pgBackRest stanza, all in one directory.
#
#   lab.sh up DIR [--size SCALE] [--stanza NAME] [--port PORT] [--process-max N] [--compress TYPE[:LEVEL]]
#                 [--archive-timeout SECONDS] [--cipher-pass PASSPHRASE] [--durable]
#   lab.sh down DIR                 ends everything that lives in DIR, then removes DIR; safe to repeat
#   lab.sh psql DIR ARGUMENT…       psql on the lab's server, quiet and bare, stopping at the first error
#   lab.sh pgbackrest DIR ARGUMENT… pgbackrest with the lab's configuration and stanza
#   lab.sh as DIR COMMAND…          any command as the lab's owner, with the lab's environment
#   lab.sh start DIR | stop DIR     the server alone; stop is immediate
#
# The demo, the bench and the integration tests all use this one. The server listens on a socket in DIR/sock only, and
# everything belongs to `postgres` when root calls, else to the caller. Nothing outside DIR is read or written, so labs
# stand beside each other and beside a real cluster. What a newcomer would get wrong: `down` finds processes by DIR, not
# by name, because a machine with a lab may well run the real thing too.
set -Eeuo pipefail

readonly MARKER=.backstop-lab

fail() {
    echo "lab: $*" >&2
    exit 1
}

usage() {
    sed -n '4,10s/^# \{0,3\}//p' "${BASH_SOURCE[0]}" >&2
    exit 64
}

owner() {
    if [ "$(id -u)" = 0 ]; then echo postgres; else id -un; fi
}

# The newest installed server's programs; they are not in PATH on Debian.
server_bin() {
    local found
    found=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5 -n | tail -1)
    [ -x "$found/initdb" ] || fail "no PostgreSQL server in /usr/lib/postgresql: run 'make setup'"
    echo "$found"
}

# Becomes a command of the lab's owner, in an environment made from nothing, as the daemon would have it.
become() {
    local environment=(
        env -i "PATH=$(server_bin):/usr/local/bin:/usr/bin:/bin" HOME="$DIR" TZ=UTC LC_ALL=C.UTF-8
        PGHOST="$DIR/sock" PGPORT="$(lab_setting port)" PGUSER=postgres PGDATABASE=postgres
        PGBACKREST_CONFIG="$DIR/pgbackrest.conf" PGBACKREST_STANZA="$(lab_setting stanza)"
    )
    cd "$DIR"
    if [ "$(id -u)" = 0 ]; then
        exec setpriv --reuid=postgres --regid="$(id -g postgres)" --init-groups -- "${environment[@]}" "$@"
    else
        exec "${environment[@]}" "$@"
    fi
}

as_owner() {
    (become "$@")
}

lab_setting() {
    sed -n "s/^$1=//p" "$DIR/$MARKER"
}

require_lab() {
    [ -f "$DIR/$MARKER" ] || fail "$DIR is not a lab"
}

up() {
    local size=1 stanza=lab port=5432 process_max=2 compress=lz4:1 archive_timeout=0 cipher_pass='' durable=off
    while [ $# -gt 0 ]; do
        case $1 in
            --size) size=$2 ;;
            --stanza) stanza=$2 ;;
            --port) port=$2 ;;
            --process-max) process_max=$2 ;;
            --compress) compress=$2 ;;
            --archive-timeout) archive_timeout=$2 ;;
            --cipher-pass) cipher_pass=$2 ;;
            --durable) durable=on; shift; continue ;;
            *) usage ;;
        esac
        shift 2
    done
    # A socket's path has room for 107 characters.
    [ $((${#DIR} + 22)) -le 107 ] || fail "the path $DIR is too long for a socket"
    if [ -e "$DIR" ] && [ -n "$(ls -A "$DIR")" ]; then
        fail "$DIR is not empty"
    fi

    mkdir -p "$DIR"
    chmod 755 "$DIR"
    printf 'stanza=%s\nport=%s\n' "$stanza" "$port" >"$DIR/$MARKER"
    trap give_up ERR
    mkdir "$DIR"/{repo,log,lock,spool,sock,tablespace}
    write_pgbackrest_conf "$stanza" "$port" "$process_max" "$compress" "$cipher_pass"
    chown -R "$(owner):" "$DIR"

    as_owner initdb --pgdata="$DIR/pg" --data-checksums --locale=C.UTF-8 --auth=trust --username=postgres \
        --no-sync >"$DIR/log/initdb.log"
    write_postgresql_conf "$port" "$archive_timeout" "$durable"
    start
    as_owner pgbackrest stanza-create
    if [ "$size" != 0 ]; then
        as_owner pgbench --initialize --quiet --scale="$size" >"$DIR/log/pgbench.log" 2>&1
    fi
    trap - ERR
}

give_up() {
    tail -n 3 "$DIR"/log/*.log >&2 || true
    down
}

write_pgbackrest_conf() {
    cat >"$DIR/pgbackrest.conf" <<END
[global]
repo1-path=$DIR/repo
log-path=$DIR/log
lock-path=$DIR/lock
spool-path=$DIR/spool
log-level-console=warn
log-level-file=info
start-fast=y
process-max=$3
compress-type=${4%:*}
compress-level=${4#*:}
archive-timeout=20
${5:+repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=$5}

# A backup that shall take its time must not wait for segments that take theirs.
[global:archive-push]
compress-type=lz4
compress-level=1

[$1]
pg1-path=$DIR/pg
pg1-port=$2
pg1-socket-path=$DIR/sock
pg1-user=postgres
END
}

# Without --durable the server does not wait for the disk: a lab that the power cut takes away is no loss.
write_postgresql_conf() {
    cat >>"$DIR/pg/postgresql.conf" <<END

# The lab's settings.
listen_addresses = ''
port = $1
unix_socket_directories = '$DIR/sock'
archive_mode = on
archive_command = 'pgbackrest --config=$DIR/pgbackrest.conf --stanza=$(lab_setting stanza) archive-push %p'
archive_timeout = $2
wal_level = replica
max_wal_size = 256MB
shared_buffers = 64MB
fsync = $3
synchronous_commit = $3
full_page_writes = on
END
}

start() {
    # Its own session: the server must outlive the terminal or test that called, and only `down` ends it.
    as_owner setsid pg_ctl --pgdata="$DIR/pg" --log="$DIR/log/postgresql.log" --timeout=60 --wait --silent start \
        </dev/null >"$DIR/log/pg_ctl.log" 2>&1 || fail "PostgreSQL did not start: $(tail -5 "$DIR/log/postgresql.log")"
}

stop() {
    as_owner pg_ctl --pgdata="$DIR/pg" --mode=immediate --timeout=30 --wait --silent stop
}

down() {
    trap - ERR
    cd /
    [ -e "$DIR" ] || return 0
    require_lab
    stop >/dev/null 2>&1 || true
    end_processes TERM 2
    end_processes KILL 10
    unmount_all
    rm -rf --one-file-system "$DIR"
}

# Ends whatever names DIR in its arguments or works below it: server, daemon, tool, sandbox, client.
end_processes() {
    local signal=$1 deadline=$((SECONDS + $2)) pids
    while pids=$(processes) && [ -n "$pids" ]; do
        # A process may be gone between the look and the signal.
        kill -"$signal" $pids 2>/dev/null || true
        if [ $SECONDS -ge $deadline ]; then
            [ "$signal" = TERM ] || fail "these processes in $DIR do not end:" $pids
            return 0
        fi
        sleep 0.05
    done
}

# Process numbers that belong to DIR, except this script and those that called it.
processes() {
    local spared found pid
    spared=" $(ancestors) "
    # Processes come and go while we look, hence the silence. A zombie has neither arguments nor a directory.
    found=$({
        grep -lzP "\Q$DIR\E(?![\w.-])" /proc/[0-9]*/cmdline
        find /proc/[0-9]*/cwd -maxdepth 0 \( -lname "$DIR" -o -lname "$DIR/*" \)
        true
    } 2>/dev/null | cut -d/ -f3 | sort -un)
    # The shells that have just looked bear our arguments, too; they are gone by now, and so they are not told.
    for pid in $found; do
        if [[ $spared != *" $pid "* && -d /proc/$pid ]]; then echo "$pid"; fi
    done
}

ancestors() {
    local pid=$BASHPID
    while [ "${pid:-0}" -gt 1 ]; do
        echo -n "$pid "
        pid=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || return 0
    done
}

unmount_all() {
    local mount
    awk -v dir="$DIR/" 'index($2 "/", dir) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r mount; do
        umount --lazy "$mount"
    done
}

[ $# -ge 2 ] || usage
VERB=$1
DIR=$(realpath --no-symlinks --canonicalize-missing "$2")
shift 2

case $VERB in
    up) up "$@" ;;
    down) down ;;
    start | stop) require_lab; "$VERB" ;;
    psql) require_lab; become psql -X -q -A -t -v ON_ERROR_STOP=1 "$@" ;;
    pgbackrest) require_lab; become pgbackrest "$@" ;;
    as) require_lab; become "$@" ;;
    *) usage ;;
esac
