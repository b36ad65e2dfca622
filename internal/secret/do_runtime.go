//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

func do(f func()) { secret.Do(f) }
