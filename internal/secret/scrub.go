package secret

import "reflect"

// Scrub overwrites the object that p points to with its zero value, unexported
// fields included. It is for what a library has made of a key and offers no way
// to erase: the expanded key of an AES cipher, the block that a hash function
// waits to fill. The garbage collector does not do that: what it frees keeps its
// content until somebody else gets the memory, which may be never.
//
// The object must not be used afterwards, and what it points to in turn is not
// reached: TestScrubReachesTheWhole tells of the objects that we use that with
// this version of Go they point to nothing. Scrub does nothing with what is no
// pointer.
func Scrub(p any) {
	if v := reflect.ValueOf(p); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().SetZero()
	}
}
