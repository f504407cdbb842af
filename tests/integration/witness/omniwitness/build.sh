#!/usr/bin/env bash
# Builds `omniwitness`, a tlog-witness by transparency-dev, into the folder named: build.sh .cache/bin
#
# The witness names an unreleased version of `merkle` that cannot be had everywhere. The released one
# lacks a single function, which only the witness's other endpoint (`sign-subtree`) calls: here it
# answers with an error. All that `add-checkpoint` does is as published.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "$1"
out="$(cd "$1" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

cp "$here"/go.mod "$here"/go.sum "$here"/tool.go "$work"
cd "$work"
merkle="$(go mod download -json github.com/transparency-dev/merkle@v0.0.2 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')"
cp -r "$merkle" merkle
chmod -R u+w merkle
cat >merkle/proof/subtree.go <<'GO'
package proof

import (
	"errors"

	"github.com/transparency-dev/merkle"
)

// VerifySubtreeConsistency is not in this version.
func VerifySubtreeConsistency(merkle.LogHasher, uint64, uint64, uint64, [][]byte, []byte, []byte) error {
	return errors.New("not built in")
}
GO
GOFLAGS=-buildvcs=false go build -trimpath -o "$out/omniwitness" github.com/transparency-dev/witness/cmd/omniwitness
