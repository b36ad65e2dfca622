package guest

// Answer is code to cover.
func Answer() int { return 42 }
