// Package inventory reads the sites, nodes and links that Lever protects and
// gives each link a verdict with its reason: encrypt, inside or exempt.
//
// What belongs here: the YAML schema and its strict decoding, the rules of
// custody, evidence and overrides, what makes two channels really two, and the
// defaults of every field. [Enrol] writes a node's recipients into the file in
// which it stands; nothing else here writes. It is the only package that knows YAML,
// and schema.json tells editors the same schema.
//
// What does not belong here: keys, sockets, kernel devices, MKA. The package
// reads the inventory's own files and nothing else (not the key files that an
// inventory names), and it looks at the clock once, in [Load], unless
// [WithNow] gives the time.
//
// # Verdicts
//
// A link is inside only if it lists at least one segment and every segment's
// custody class is in policy.inside, or is in policy.inside_if and each control
// that the policy asks of the class has evidence that has not expired.
// Everything else is outside and therefore encrypted: no segments, a class that
// the policy does not list, a class that nobody knows, an expired control.
// A misspelt class is a warning, never an error, because the safe answer to it
// exists.
//
// A date in expires is the first day, in UTC, on which the thing no longer
// holds. Verdicts change on such a day and at no other time: see
// [Link.VerdictAt] and [Link.NextChange].
//
// # The segment between two sites
//
// A link whose ends are at different sites crosses the ground between them. When
// all its segments are inside, at least one of them must be that crossing: a
// segment that names no site and whose class is not one of a room or a building
// (controlled-room, controlled-building, third-party-colo). A link that claims
// to be inside and does not list the crossing is an error, since its list of
// segments cannot be complete.
package inventory
