//go:build !race

package sim_test

// fewSeeds is what a plain go test runs; make test runs more.
const fewSeeds = 20
