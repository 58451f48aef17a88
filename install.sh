#!/bin/sh
# Builds jin-txn, puts it into PREFIX/bin and protects one repository with it; or takes all of that away again.
{ # The brace closes on the last line: a shell runs nothing of a cut download.
set -eu

usage() {
    cat <<'USAGE'
usage: ./install.sh [--prefix DIR] [REPO]
       ./install.sh --build-only
       ./install.sh --uninstall [--purge] [--prefix DIR]

Builds jin-txn from this directory, installs the binary as DIR/bin/jin-txn,
manual pages and completions for bash, zsh and fish below DIR/share, protects
REPO and runs a self-test. Running it again upgrades.

  REPO            the repository to protect; default: the one you call this from.
                  A directory that is missing or empty becomes a new repository
  --prefix DIR    where to install; default: ~/.local
  --build-only    build, print the path of the binary, install nothing
  --uninstall     take jin-txn out of every repository that you have protected,
                  and remove everything that this script has put below DIR
  --purge         with --uninstall: the logs and the quarantine of the
                  repositories as well
  -h, --help      print this

environment: CARGO_TARGET_DIR is respected
USAGE
}

main() {
    parse "$@"
    if [ "$uninstall" = yes ]; then
        uninstall
        return
    fi
    callers_path=$PATH
    [ -z "${HOME:-}" ] || PATH="$PATH:$HOME/.cargo/bin" # rustup's, for shells that did not read its profile
    need_cmd cargo 'install Rust: https://rustup.rs'
    unset CDPATH # it makes `cd` print
    if [ "$build_only" = yes ]; then
        find_source
        build >&2
        printf '%s\n' "$built"
        return
    fi
    need_cmd git 'install git 2.31 or newer'
    # Called from a hook or a `git` alias, these would redirect every git below.
    unset GIT_DIR GIT_WORK_TREE GIT_COMMON_DIR GIT_INDEX_FILE GIT_PREFIX

    # Everything that can be refused is refused before the build.
    find_source
    find_repository
    make_bin_dir

    build
    install_binary
    install_beside
    protect_repository
    self_test
    summary
    offer_shell_function
}

parse() {
    prefix='' repository='' repository_given=no build_only=no uninstall=no purge='' options=yes
    while [ $# -gt 0 ]; do
        case $options:$1 in
            yes:-h | yes:--help) usage; exit 0 ;;
            yes:--prefix) [ $# -ge 2 ] || usage_error '--prefix needs a directory'; shift; set_prefix "$1" ;;
            yes:--prefix=*) set_prefix "${1#--prefix=}" ;;
            yes:--build-only) build_only=yes ;;
            yes:--uninstall) uninstall=yes ;;
            yes:--purge) purge=--purge ;;
            yes:--) options=no ;;
            yes:-?*) usage_error "unknown option \`$1\`" ;;
            *)
                [ "$repository_given" = no ] || usage_error "more than one repository: \`$repository\` and \`$1\`"
                [ -n "$1" ] || usage_error 'the repository is an empty string'
                repository_given=yes repository=$1
                ;;
        esac
        shift
    done
    [ -z "$purge" ] || [ "$uninstall" = yes ] || usage_error '--purge goes with --uninstall'
    [ "$uninstall$repository_given" != yesyes ] || usage_error '--uninstall takes no REPO: it takes all of them'
    if [ "$build_only" = yes ]; then
        [ "$prefix$repository$uninstall" = no ] ||
            usage_error '--build-only installs nothing: it takes neither REPO nor --prefix nor --uninstall'
    elif [ -z "$prefix" ]; then
        [ -n "${HOME:-}" ] || usage_error 'HOME is not set, so --prefix has no default'
        prefix=$HOME/.local
    fi
}

set_prefix() {
    [ -n "$1" ] || usage_error '--prefix needs a directory'
    prefix=$1
}

find_source() {
    source=$(cd -- "$(dirname -- "$0")" && pwd -P)
    [ -f "$source/Cargo.toml" ] || die "no jin-txn sources in \`$source\`" 'run install.sh from a checkout of jin-txn'
}

# Sets `repository` to an absolute path and `must_init` to yes when it is still to be made.
find_repository() {
    must_init=no
    if [ "$repository_given" = no ]; then
        repository=$(pwd -P)
        cause=$(git rev-parse --git-dir 2>&1) ||
            die "git finds no repository in \`$repository\`" \
                'go to the repository to protect, or name it: ./install.sh REPO' "$cause"
        return
    fi

    repository=$(absolute "$repository")
    if [ ! -e "$repository" ] && [ ! -L "$repository" ]; then
        must_init=yes
    elif [ ! -d "$repository" ]; then
        die "\`$repository\` is not a directory" 'name the repository to protect: ./install.sh REPO'
    elif is_empty "$repository"; then
        must_init=yes
    else
        cause=$(git -C "$repository" rev-parse --git-dir 2>&1) ||
            die "\`$repository\` has files in it and git finds no repository there" \
                "to make it one: git init $(quoted "$repository")" "$cause"
    fi
}

make_bin_dir() {
    made=''
    make_dir "$(absolute "$prefix")/bin"
    find_places
    [ -w "$bin_dir" ] || die "cannot write to \`$bin_dir\`" 'choose another --prefix DIR'
    [ ! -d "$binary" ] || die "\`$binary\` is a directory" 'move it away, or choose another --prefix DIR'
}

find_places() {
    bin_dir=$(cd -- "$(absolute "$prefix")/bin" && pwd)
    binary=$bin_dir/jin-txn
    share=${bin_dir%/*}/share
    made_list=$share/jin-txn/directories
    state=${XDG_STATE_HOME:-${HOME:+$HOME/.local/state}}
}

# Makes a directory, and remembers in `made` what was not there.
make_dir() {
    note_missing "$1"
    mkdir -p "$1" || die "cannot create \`$1\`" 'choose another --prefix DIR'
}

# Puts a path and those above it that are not there into `made`, a line each, the outermost first.
note_missing() {
    missing='' above=$1
    while [ ! -e "$above" ] && [ ! -L "$above" ]; do
        missing="$above
$missing"
        above=$(dirname -- "$above")
    done
    made=$made$missing
}

# A hook starts several times in every git command, and most of its time is the
# start: a third of a dynamic program's is the dynamic linker, and a good part of
# a static one's is glibc, which musl does without, and relocation. So it is the
# most static binary that can be had here.
build() {
    say "building jin-txn in $source"
    target=$(absolute "${CARGO_TARGET_DIR:-$source/target}")
    host=$(rustc -vV 2>/dev/null | sed -n 's/^host: //p')
    case ${CARGO_BUILD_TARGET:+set}:$host in
        :*-linux-gnu)
            musl=${host%-gnu}-musl
            if has_standard_library "$musl"; then
                build_static "$musl" && return
                say "cannot build for $musl, which starts hooks faster (is musl-gcc here?): building for $host"
            fi
            build_static "$host" && return
            say 'no static C library here: building a dynamic binary, whose hooks start a little slower'
            ;;
    esac
    run_cargo || die 'the build failed' 'cargo says why above; nothing was installed'
    built=$target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}release/jin-txn
    [ -f "$built" ] || die "cargo left no binary at \`$built\`" 'does a cargo configuration set another build target?'
}

# Did rustup add it?
has_standard_library() {
    [ -d "$(rustc --print target-libdir --target "$1" 2>/dev/null)" ]
}

# For an explicit target, or build scripts and macros would be built that way too.
build_static() {
    built=$target/$1/release/jin-txn
    (
        export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static -C relocation-model=static"
        run_cargo --target "$1"
    )
}

# From its own directory, so that cargo sees this checkout's toolchain and configuration.
run_cargo() {
    (cd -- "$source" && cargo build --release --locked --target-dir "$target" "$@")
}

# The old binary, which hooks may be running, stays whole until the new one takes
# its name. Synced first: after a power cut an empty file under that name would
# be a hook that lets everything through.
install_binary() {
    replacement=$bin_dir/.jin-txn.new.$$
    trap 'rm -f "$replacement"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    cp "$built" "$replacement"
    chmod 755 "$replacement"
    sync "$replacement"
    mv -f "$replacement" "$binary"
    trap - EXIT INT TERM HUP
    say "installed $binary"
}

# The link makes `git txn` work in every repository, and lets `git help txn`
# show the manual page; what somebody else has there under that name stays.
install_beside() {
    if [ ! -e "$bin_dir/git-txn" ] && [ ! -L "$bin_dir/git-txn" ]; then
        ln -s jin-txn "$bin_dir/git-txn"
    fi
    make_dir "$share/man/man1"
    "$binary" --quiet man "$share/man/man1" ||
        die "cannot write manual pages into \`$share/man/man1\`" 'choose another --prefix DIR'
    for name in jin-txn git-txn git-tx; do
        completion bash "$share/bash-completion/completions" "$name"
    done
    completion zsh "$share/zsh/site-functions" _jin-txn
    completion zsh "$share/zsh/site-functions" _git-txn
    completion fish "$share/fish/vendor_completions.d" jin-txn.fish
    say "installed manual pages and completions in $share"
    remember_directories
}

# For --uninstall, which removes those that are empty by then. jin-txn makes the last two for its notes.
remember_directories() {
    make_dir "$share/jin-txn"
    [ -z "$state" ] || note_missing "$state/jin-txn"
    printf '%s' "$made" >>"$made_list" || die "cannot write \`$made_list\`" 'choose another --prefix DIR'
}

# completion SHELL DIR NAME
completion() {
    make_dir "$2"
    if ! "$binary" completions "$1" >"$2/$3"; then
        die "cannot write \`$2/$3\`" 'choose another --prefix DIR'
    fi
}

protect_repository() {
    if [ "$must_init" = yes ]; then
        git init --quiet "$repository" || die "cannot create a repository at \`$repository\`" 'git says why above'
        say "created an empty git repository in $repository"
    fi
    "$binary" install "$repository" ||
        die "\`$repository\` is not protected" \
            "the binary is installed; once the cause above is gone: $(quoted "$binary") install $(quoted "$repository")"
}

self_test() {
    say 'self-test: jin-txn demo'
    "$binary" demo ||
        die 'the self-test failed: do not rely on jin-txn on this machine' \
            "to take it out again: $(quoted "$binary") -C $(quoted "$repository") uninstall"
}

summary() {
    cat <<SUMMARY

jin-txn is installed, and its self-test passed.
  binary      $binary
  protects    $(git -C "$repository" rev-parse --path-format=absolute --git-common-dir)

to see it:    cd $(quoted "$repository") && git txn status
to undo it:   ./install.sh --uninstall$(prefix_option)

It recovers by itself, in git's hooks. A stale index.lock stops plain git before
any hook is called: the shell function looks before each git command; by hand it
is: git txn recover. For bash, in ~/.bashrc (zsh and fish: docs/shell.md):
              $(shell_line bash)
SUMMARY
    case :$callers_path: in
        *":$bin_dir:"*) ;;
        *)
            warn "\`$bin_dir\` is not in PATH" \
                "protection and \`git txn\` work without it; to type \`jin-txn\`: export PATH=$(quoted "$bin_dir"):\$PATH"
            ;;
    esac
}

# Puts the file that a shell reads when it starts into `start_file`.
find_start_file() {
    case $1 in
        bash) start_file=$HOME/.bashrc ;;
        zsh) start_file=${ZDOTDIR:-$HOME}/.zshrc ;;
        fish) start_file=${XDG_CONFIG_HOME:-$HOME/.config}/fish/config.fish ;;
        *) return 1 ;;
    esac
}

shell_line() {
    case $1 in
        fish) printf '%s shell-init fish | source' "$(quoted "$binary")" ;;
        *) printf "eval \"\$(%s shell-init %s)\"" "$(quoted "$binary")" "$1" ;;
    esac
}

# By this --uninstall knows the line that is ours.
added='# added by install.sh of jin-txn'

# Asks a person at a terminal, and nobody else.
offer_shell_function() {
    [ -t 0 ] && [ -t 1 ] || return 0
    shell=${SHELL:-}
    shell=${shell##*/}
    find_start_file "$shell" || return 0
    ! grep -qF "$(shell_line "$shell")" "$start_file" 2>/dev/null || return 0
    printf '\nadd the shell function to %s? [y/N] ' "$start_file"
    read -r answer || answer=''
    case $answer in
        [yY] | [yY][eE][sS])
            made=''
            note_missing "$start_file"
            mkdir -p "$(dirname -- "$start_file")"
            printf '%s' "$made" >>"$made_list"
            printf '%s %s\n' "$(shell_line "$shell")" "$added" >>"$start_file"
            say 'added; new shells have it' ;;
    esac
}

# Written in place: it may be a link, and its mode is the user's.
remove_shell_function() {
    for shell in bash zsh fish; do
        find_start_file "$shell"
        if grep -qF "$added" "$start_file" 2>/dev/null; then
            kept=$(grep -vF "$(shell_line "$shell") $added" "$start_file" || :; echo end)
            printf '%s' "${kept%end}" >"$start_file"
            # Where there was none before, none stays.
            if [ ! -s "$start_file" ] && grep -qxF "$start_file" "$made_list" 2>/dev/null; then
                rm -f "$start_file"
            fi
            say "took the shell function out of $start_file"
        fi
    done
}

prefix_option() {
    [ "$prefix" = "${HOME:-}/.local" ] || printf ' --prefix %s' "$(quoted "$prefix")"
}

# Takes the program out of the repositories first: one that refuses keeps it, for its hooks call it.
uninstall() {
    [ -e "$(absolute "$prefix")/bin/jin-txn" ] || die "jin-txn is not installed in \`$prefix\`" 'name the right --prefix DIR'
    find_places
    unset GIT_DIR GIT_WORK_TREE GIT_COMMON_DIR GIT_INDEX_FILE GIT_PREFIX
    refused=no
    need_cmd git 'install git 2.31 or newer'
    leave_repositories
    [ "$refused" = no ] || die 'some repositories are still protected; the program stays' 'see above; then run this again'
    [ -z "${HOME:-}" ] || remove_shell_function
    remove_files
    say "jin-txn is no longer in $bin_dir"
}

# A line of `list` is: state, size of the log, path from the 25th character on. The command substitution runs to its
# end before the first repository is left.
leave_repositories() {
    listed=$("$binary" --color never list 2>/dev/null | grep -v '^ ' | cut -c 25-)
    while IFS= read -r protected; do
        [ -n "$protected" ] || continue
        case $(git -C "$protected" config --get alias.txn 2>/dev/null) in
            *"$binary"*) ;;
            *) say "left alone: $protected (this program does not protect it)"; continue ;;
        esac
        # shellcheck disable=SC2086 # empty or one word
        "$binary" -C "$protected" uninstall $purge </dev/null || refused=yes
    done <<LISTED
$listed
LISTED
    [ ! -e "$state/jin-txn/template.json" ] || "$binary" uninstall --template </dev/null || refused=yes
}

remove_files() {
    [ "$(readlink "$bin_dir/git-txn")" != jin-txn ] || rm -f "$bin_dir/git-txn"
    rm -f "$share/man/man1"/jin-txn.1 "$share/man/man1"/jin-txn-*.1 "$share/man/man1/git-txn.1"
    rm -f "$share/bash-completion/completions/jin-txn" "$share/bash-completion/completions/git-txn" \
        "$share/bash-completion/completions/git-tx" "$share/zsh/site-functions/_jin-txn" \
        "$share/zsh/site-functions/_git-txn" "$share/fish/vendor_completions.d/jin-txn.fish"
    directories=''
    [ ! -f "$made_list" ] || directories=$(sort -ru "$made_list")
    rm -f "$made_list" "$binary"
    # Longer paths come first; what is not empty by now has something of somebody else's.
    while IFS= read -r directory; do
        [ -z "$directory" ] || rmdir -- "$directory" 2>/dev/null || true
    done <<DIRECTORIES
$directories
DIRECTORIES
}

# Does not resolve links and does not need the path to exist.
absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$(pwd -P)/$1" ;;
    esac
}

is_empty() {
    [ -r "$1" ] && [ -z "$(ls -A -- "$1")" ]
}

# A path that can be pasted into a shell.
quoted() {
    case $1 in
        *[!A-Za-z0-9_./:@%+,=-]*) printf "'%s'\n" "$(printf '%s\n' "$1" | sed "s/'/'\\\\''/g")" ;;
        *) printf '%s\n' "$1" ;;
    esac
}

need_cmd() {
    command -v "$1" >/dev/null 2>&1 || die "\`$1\` is not in PATH" "$2"
}

say() {
    printf '%s\n' "$1"
}

warn() {
    printf 'warning: %s\nhint: %s\n' "$1" "$2" >&2
}

# die WHAT HINT [CAUSE]
die() {
    printf 'error: %s\n' "$1" >&2
    [ -z "${3:-}" ] || printf 'caused by: %s\n' "$3" >&2
    printf 'hint: %s\n' "$2" >&2
    exit 1
}

usage_error() {
    printf 'error: %s\nhint: see ./install.sh --help\n' "$1" >&2
    exit 2
}

main "$@"
exit
}
