//go:build tools

// Package witness names the program that build.sh builds.
package witness

import _ "github.com/transparency-dev/witness/cmd/omniwitness"
