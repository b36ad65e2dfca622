package script

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/lever-link/lever/mka"
)

type argument = datadriven.CmdArg

// args are a command's arguments. Each is taken once; what is left means nothing.
type args struct {
	list []argument
	err  error
}

func newArgs(list []argument) *args { return &args{list: slices.Clone(list)} }

// words takes the arguments without values from the front.
func (a *args) words() []string {
	var w []string
	for len(a.list) > 0 && len(a.list[0].Vals) == 0 {
		w = append(w, a.list[0].Key)
		a.list = a.list[1:]
	}
	return w
}

// word takes one of them.
func (a *args) word(what string) (string, error) {
	if len(a.list) == 0 || len(a.list[0].Vals) > 0 {
		return "", fmt.Errorf("%s is missing", what)
	}
	w := a.list[0].Key
	a.list = a.list[1:]
	return w, nil
}

// take finds an argument by its name.
func (a *args) take(key string) (vals []string, ok bool) {
	i := slices.IndexFunc(a.list, func(x argument) bool { return x.Key == key })
	if i < 0 {
		return nil, false
	}
	vals = a.list[i].Vals
	a.list = slices.Delete(a.list, i, i+1)
	return vals, true
}

func (a *args) flag(key string) bool {
	vals, ok := a.take(key)
	return ok && (len(vals) == 0 || vals[0] != "false")
}

func (a *args) text(key, missing string) string {
	if vals, ok := a.take(key); ok && len(vals) > 0 {
		return vals[0]
	}
	return missing
}

func (a *args) number(key string, missing uint64) uint64 {
	vals, ok := a.take(key)
	if !ok {
		return missing
	}
	if len(vals) == 1 {
		if n, err := strconv.ParseUint(vals[0], 0, 64); err == nil {
			return n
		}
	}
	a.err = fmt.Errorf("%s=%v is no number", key, vals)
	return missing
}

func (a *args) duration(key string, missing time.Duration) time.Duration {
	vals, ok := a.take(key)
	if !ok {
		return missing
	}
	if len(vals) == 1 {
		if d, err := time.ParseDuration(vals[0]); err == nil {
			return d
		}
	}
	a.err = fmt.Errorf("%s=%v is no time", key, vals)
	return missing
}

func (a *args) suite(key string, missing mka.CipherSuite) mka.CipherSuite {
	vals, ok := a.take(key)
	if !ok {
		return missing
	}
	if len(vals) == 1 {
		if s, err := mka.ParseCipherSuite(vals[0]); err == nil {
			return s
		}
	}
	a.err = fmt.Errorf("%s=%v is no cipher suite", key, vals)
	return missing
}

// unused is what nobody took.
func (a *args) unused() []string {
	var rest []string
	for _, x := range a.list {
		rest = append(rest, x.String())
	}
	if a.err != nil {
		rest = append(rest, a.err.Error())
	}
	return rest
}
