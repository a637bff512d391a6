#!/bin/sh
# WCP360: makes this Debian machine a node of @CONTROLLER_URL@.
#
#   curl -fsS -k --pinnedpubkey '@SERVER_PIN@' @CONTROLLER_URL@/install.sh | WCP360_TOKEN='e1....' sh
#
# The server's key is pinned, since its certificate is signed by the controller's own authority; -k only turns off the
# check against public authorities. Everything stands in functions that the last line calls, so that a download that was
# cut runs nothing. The token comes by environment: arguments are visible to every user of a machine.
#
# Exit codes: 10 not root, 11 unsupported system, 12 packages, 13 download; the others: docs/operations.
set -eu
umask 022

CONTROLLER_URL='@CONTROLLER_URL@'
BUNDLE_SHA256='@BUNDLE_SHA256@'
SERVER_PIN='@SERVER_PIN@'
VERSION='@VERSION@'

fail() {
    code=$1
    shift
    printf 'error: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then
        printf 'hint:  %s\n' "$2" >&2
    fi
    exit "$code"
}

require_root() {
    [ "$(id -u)" -eq 0 ] || fail 10 'this needs root' 'Put sudo before sh: ... | sudo WCP360_TOKEN=... sh'
}

require_supported_system() {
    [ -r /etc/os-release ] || fail 11 'this machine runs an unknown system; a node needs Debian 12 or 13'
    # In a subshell: the file sets many names that we do not want.
    # shellcheck source=/dev/null
    system=$(. /etc/os-release && printf '%s %s' "${ID:-unknown}" "${VERSION_ID:-unknown}")
    case $system in
        'debian 12' | 'debian 13') ;;
        *) fail 11 "this machine runs $system; a node needs Debian 12 or 13" 'Nothing was changed.' ;;
    esac
    case $(uname -m) in
        x86_64 | aarch64) ;;
        *) fail 11 "the architecture $(uname -m) is not supported" 'Nothing was changed.' ;;
    esac
    [ -d /run/systemd/system ] || fail 11 'this machine was not booted with systemd' 'Nothing was changed.'
}

ensure_packages() {
    missing=''
    command -v python3 >/dev/null 2>&1 || missing="$missing python3"
    command -v curl >/dev/null 2>&1 || missing="$missing curl"
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
    [ -n "$missing" ] || return 0
    echo "Installing from Debian:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # A machine with fresh lists need not ask the mirror; one without them, or with old ones, must.
    # shellcheck disable=SC2086  # the names are words of our own
    apt-get install -y -q --no-install-recommends $missing </dev/null >"$work/apt.log" 2>&1 ||
        { apt-get update -q </dev/null >"$work/apt.log" 2>&1 &&
            apt-get install -y -q --no-install-recommends $missing </dev/null >>"$work/apt.log" 2>&1; } ||
        { tail -n 5 "$work/apt.log" >&2; fail 12 "Debian's packages could not be installed:$missing" 'Does apt-get update work?'; }
}

download_bundle() {
    echo "Downloading the agent $VERSION from $CONTROLLER_URL"
    curl -fsS -k --pinnedpubkey "$SERVER_PIN" --proto '=https' --connect-timeout 20 --retry 3 --max-time 300 \
        -o "$work/agent.tar.gz" "$CONTROLLER_URL/bundle/agent.tar.gz" || explain_curl "$?"
    echo "$BUNDLE_SHA256  $work/agent.tar.gz" | sha256sum --check --status ||
        fail 13 'the bundle is not the one that the controller announced' 'Paste the command again; if it stays so, ask the administrator.'
    mkdir "$work/bundle"
    tar -xzf "$work/agent.tar.gz" -C "$work/bundle" --no-same-owner
}

# Exit statuses of curl. Source: curl(1), EXIT CODES.
explain_curl() {
    case $1 in
        6) fail 30 "the name in $CONTROLLER_URL cannot be resolved" 'Check DNS and /etc/resolv.conf.' ;;
        7) fail 30 "the port of $CONTROLLER_URL is closed" 'Is the controller running?' ;;
        28) fail 30 "$CONTROLLER_URL does not answer" 'Is its port open in the firewall between here and the controller?' ;;
        90) fail 31 "the server's key is not the one that was pinned" 'Somebody may be between here and the controller.' ;;
        *) fail 13 "the bundle could not be downloaded (curl $1)" ;;
    esac
}

main() {
    require_root
    require_supported_system
    [ -n "${WCP360_TOKEN:-}" ] || fail 20 'WCP360_TOKEN is empty' 'Copy the whole line that the controller printed.'
    work=$(mktemp -d /tmp/wcp360-install.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    ensure_packages
    download_bundle
    # stdin is this script's own text when it comes through a pipe; the installer must not read it.
    PYTHONPATH="$work/bundle" PYTHONDONTWRITEBYTECODE=1 \
        python3 -P -m agent install --controller "$CONTROLLER_URL" "$@" </dev/null
}

main "$@"
