package main

import (
	"io"
	"os"
)

// The starter sets leashVariable and keeps the other end of our standard input open. The kernel closes that end
// however the starter ends, kill -9 included, so that no test leaves a control plane behind.
//
// PR_SET_PDEATHSIG is not used: it fires when the starting *thread* ends, and a test harness starts a shared
// control plane on a thread that ends with the first test.
const leashVariable = "CONTROL_PLANE_LEASH"

// A directory nobody needs once the starter is gone: etcd's data, which lies in memory where it can.
const leftoverVariable = "CONTROL_PLANE_LEFTOVER"

func dieWithStarter() {
	if os.Getenv(leashVariable) != "stdin" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		if leftover := os.Getenv(leftoverVariable); leftover != "" {
			_ = os.RemoveAll(leftover)
		}
		// Not a graceful stop: an API server would take a minute to drain connections nobody holds any more.
		os.Exit(1)
	}()
}
