#!/bin/sh
# Installs the Debian packages named, and starts nothing: not now (a policy-rc.d stands in the way meanwhile) and not at
# the next boot (the units that came with them are disabled).  Who asks for a demo or tests asks for no mail server.
# Gives: one line for what it installs, all of apt's words where that fails; exit status 77 where it would need root.
# Does not: touch packages that are installed already, or their services.
set -eu

missing=
for package; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing, to be installed as root: apt-get install --no-install-recommends$missing" >&2
	exit 77
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
[ ! -e "$policy" ] || policy=
trap 'rm -f "$log" ${policy:+"$policy"}' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -n "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

apt() {
	# A machine that has just started may be busy with its own updates: their lock is waited for.
	DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 || {
		cat "$log" >&2
		exit 1
	}
}

echo "installing$missing ..."
apt update
# shellcheck disable=SC2086  # a list of words
apt install --no-install-recommends $missing

# shellcheck disable=SC2086
units=$(dpkg -L $missing | sed -n 's,.*/lib/systemd/system/\([^/@]*\.\(path\|service\|socket\|timer\)\)$,\1,p')
if [ -n "$units" ] && command -v systemctl >/dev/null; then
	# shellcheck disable=SC2086
	systemctl disable --quiet $units 2>"$log" || cat "$log" >&2
	echo "their services are off, also at the next boot"
fi
