#!/bin/sh
# Makes the virtual environment that the Makefile's targets run in.
# Takes: its folder, the locked requirements.  Gives: an environment with exactly those packages and this checkout.
# Does not: touch the system's Python; as root it installs Debian's python3-venv where venv cannot work without.
set -eu

folder=$1
lock=$2
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
	echo "nftban needs Python 3.11 or newer as '$python'; name another one: make PYTHON=/path/to/python3" >&2
	exit 1
}

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
	version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	contrib/make/apt-install.sh "python${version}-venv" || {
		echo "this Python cannot make virtual environments without it" >&2
		exit 1
	}
fi

# One that was interrupted in the making has no pip.
"$folder/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$folder"
echo "installing the packages of $lock ..."
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
