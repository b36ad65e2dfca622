//go:build race

package sim_test

// fewSeeds under the race detector: one Port has one driver, and what runs at once
// is whole seeds.
const fewSeeds = 2
