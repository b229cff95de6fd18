# What the scripts share: where things are, and how the program is built. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
LAB=$ROOT/scripts/lab.sh
# Root may not own what is built for it: a clone that belongs to somebody else is used as it is.
cd "$ROOT"

say() {
    echo "$*" >&2
}

die() {
    say "${0##*/}: $*"
    exit 1
}

# Builds the program with the given profile (`dev` or `release`) and sets BACKSTOP to it.
build() {
    cargo build --quiet --locked --bin backstop --profile "$1"
    BACKSTOP=$TARGET/${1/dev/debug}/backstop
    [ -x "$BACKSTOP" ] || die "cargo built no $BACKSTOP"
}
