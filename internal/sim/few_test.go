//go:build !race

package sim_test

// fewSeeds is what a plain go test runs; make test runs 300.
const fewSeeds = 20
