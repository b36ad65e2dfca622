// Package service makes the agent a good service of its machine: it tells systemd
// how it is, gives up every right that it does not need, keeps keys out of core
// files and swap, and sees to it that there is one agent in a network namespace.
//
// What belongs here is what a process does about itself, and what installs it:
// the unit, the Debian package and its scripts stand in the directory package.
// What does not: anything about links, keys and inventories. The agent runs just
// as well where none of this is possible, and says what is not in force.
package service
