package mka

// SignFrame appends the ICV to a frame that Append would not make: with sets in
// another order, or of a kind that the standard does not have.
func SignFrame(k *ICK, frame []byte) ([]byte, error) { return k.appendICV(frame, 0) }
