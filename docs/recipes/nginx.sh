#!/bin/sh
# nginx, fcgiwrap and git http-backend behind the shim: fetch and push over HTTP, for everybody on this machine.
#
# usage: nginx.sh REPOSITORIES PORT WORK
#
# Everything that it writes is below WORK. It runs until it gets TERM, or until nginx ends.
set -eu
repositories=$1
port=$2
work=$3

mkdir -p "$work/shim" "$work/tmp"
jin-txn -q install --shim "$work/shim"

user=''
[ "$(id -u)" -ne 0 ] || user="user $(id -un) $(id -gn);"
cat >"$work/nginx.conf" <<CONF
$user
daemon off;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/error.log;
events {}
http {
    access_log off;
    client_body_temp_path $work/tmp/body;
    fastcgi_temp_path $work/tmp/fastcgi;
    proxy_temp_path $work/tmp/proxy;
    scgi_temp_path $work/tmp/scgi;
    uwsgi_temp_path $work/tmp/uwsgi;
    client_max_body_size 0;
    server {
        listen 127.0.0.1:$port;
        location / {
            fastcgi_pass unix:$work/fcgi.sock;
            fastcgi_param SCRIPT_FILENAME $work/shim/git-http-backend;
            fastcgi_param GIT_PROJECT_ROOT $repositories;
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param REMOTE_USER someone;
            fastcgi_param PATH_INFO \$uri;
            fastcgi_param REQUEST_METHOD \$request_method;
            fastcgi_param QUERY_STRING \$query_string;
            fastcgi_param CONTENT_TYPE \$content_type;
            fastcgi_param CONTENT_LENGTH \$content_length;
            fastcgi_param GIT_PROTOCOL \$http_git_protocol;
            fastcgi_param PATH $PATH;
            fastcgi_param HOME $HOME;
        }
    }
}
CONF

rm -f "$work/fcgi.sock"
fcgiwrap -s "unix:$work/fcgi.sock" &
fcgiwrap=$!
trap 'kill "$fcgiwrap" 2>/dev/null' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
while [ ! -S "$work/fcgi.sock" ]; do
    kill -0 "$fcgiwrap" || exit 1
    sleep 0.1
done

nginx -p "$work" -c "$work/nginx.conf" &
nginx=$!
trap 'kill "$nginx" "$fcgiwrap" 2>/dev/null; wait' EXIT
wait "$nginx"
