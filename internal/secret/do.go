package secret

// Do calls f, which handles a key, and leaves nothing of it on the stack: code
// of the standard library works on copies there (hash.Hash's Sum copies the whole
// state), and a stack keeps what a function left until another needs the room.
//
// What f allocates is its own to erase: see Key.Erase and Scrub.
//
// What this cannot do, the package runtime/secret can, for which a program has to
// be built with GOEXPERIMENT=runtimesecret: it also clears the registers, the
// stacks on which signals came in meanwhile, and a stack that the garbage
// collector happened to move while f ran. Do uses it if it is there. It is not
// demanded, for it is an experiment.
func Do(f func()) { do(f) }
