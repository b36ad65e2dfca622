// Package lab is the laboratory in which Lever is tried as a whole: routers as
// network namespaces joined by wires and bridges, agents as processes of the
// binary, other vendors' equipment as processes of theirs, and the instruments
// that measure (capture, ping, numbered streams, the agents' status and the
// kernel's own view).
//
// What belongs here: what lever demo and the acceptance tests of cmd/lever build
// and measure with. What does not: the story that is told or tested, anything
// that agents need, and finding kernels (internal/uml).
package lab
