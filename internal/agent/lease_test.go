//go:build !kernel

package agent

import (
	"errors"
	"reflect"
	"testing"
)

// TestEverythingIsBehindTheLease calls each function of a platform that a task was
// given after its lease has ended: none of them reaches what is behind it.
func TestEverythingIsBehindTheLease(t *testing.T) {
	reached := ""
	bare := platform{files: files{}}
	fill := func(v reflect.Value) {
		for i := range v.NumField() {
			f := v.Field(i)
			if f.Kind() != reflect.Func {
				continue
			}
			name := v.Type().Field(i).Name
			made := reflect.MakeFunc(f.Type(), func([]reflect.Value) []reflect.Value {
				reached = name
				var out []reflect.Value
				for j := range f.Type().NumOut() {
					out = append(out, reflect.Zero(f.Type().Out(j)))
				}
				return out
			})
			settable(f).Set(made)
		}
	}
	fill(reflect.ValueOf(&bare).Elem())
	fill(reflect.ValueOf(&bare.files).Elem())
	l := &lease{}
	behind := leasedPlatform(bare, l)
	if _, out := l.end(); !out {
		t.Fatal("something is under way in a lease of which nobody makes use")
	}
	for _, v := range []reflect.Value{reflect.ValueOf(&behind).Elem(), reflect.ValueOf(&behind.files).Elem()} {
		for i := range v.NumField() {
			f := v.Field(i)
			if f.Kind() != reflect.Func {
				continue
			}
			var in []reflect.Value
			for j := range f.Type().NumIn() {
				in = append(in, reflect.Zero(f.Type().In(j)))
			}
			out := settable(f).Call(in)
			if reached != "" {
				t.Errorf("%s of a task that was left behind reaches the machine", reached)
				reached = ""
			}
			if last := out[len(out)-1]; last.Type() == reflect.TypeFor[error]() {
				if err, _ := last.Interface().(error); !errors.Is(err, errLeft) {
					t.Errorf("%s answers %v", v.Type().Field(i).Name, err)
				}
			}
		}
	}
}

// settable makes an unexported field accessible.
func settable(f reflect.Value) reflect.Value {
	return reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem()
}
