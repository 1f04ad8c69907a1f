# Shared by the scripts of this folder; sourced, never run. Owns the way they speak and their checks of the host.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# fail WHAT...: say what is wrong and what to do, and end with status 1.
fail() {
    say "$*"
    exit 1
}

# need_debian: end unless this host has Debian's package tools.
need_debian() {
    local name="an unknown system"
    [ -r /etc/os-release ] && name=$(. /etc/os-release && printf '%s' "${PRETTY_NAME:-$ID}")
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
        fail "this is $name, without apt-get and dpkg. Argosy's set-up needs Debian 12 or newer (or a relative of it)."
}

# need_root WHY...: end unless run by root.
need_root() {
    [ "$(id -u)" -eq 0 ] || fail "needs root to $*. Run the same command as root."
}

# apt ARGS...: apt-get without questions, waiting for another apt that holds dpkg's lock.
apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null
}

# debian_mirror: print the address of the Debian archive that this host's package sources name, in whichever format.
debian_mirror() {
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk '$3 == "main" && $2 !~ /security/ && $1 ~ /\/debian\/?$/ { print $1; exit }')
    [ -n "$mirror" ] ||
        fail "no Debian archive (component main) among this host's package sources: add one under /etc/apt/sources.list.d"
    printf '%s\n' "$mirror"
}
