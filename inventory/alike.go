package inventory

import (
	"reflect"
	"strings"
	"sync"
	"time"
)

// exported goes through the exported fields of two structs, by their names in
// the file, but for where in the file they are.
func exported[T any](a, b *T) func(yield func(string, [2]reflect.Value) bool) {
	return func(yield func(string, [2]reflect.Value) bool) {
		x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
		for _, f := range fieldsOf(x.Type()) {
			if !yield(f.name, [2]reflect.Value{x.Field(f.index), y.Field(f.index)}) {
				return
			}
		}
	}
}

// field is one that is compared.
type field struct {
	index int
	name  string // in the file
}

// fieldsOf returns the fields of a struct that are compared. They are looked up
// once: a comparison goes through all links.
func fieldsOf(t reflect.Type) []field {
	if known, ok := comparedFields.Load(t); ok {
		return known.([]field)
	}
	var fields []field
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() && f.Type != positionType {
			fields = append(fields, field{i, fileName(f.Name)})
		}
	}
	comparedFields.Store(t, fields)
	return fields
}

var comparedFields sync.Map // of []field, by reflect.Type

// fileName is the name in the file of a field: InsideIf is inside_if.
func fileName(field string) string {
	if name, ok := map[string]string{"PSK": "psk", "MKA": "mka", "ID": "id", "SAKRekey": "sak_rekey", "CAKEpoch": "cak_epoch", "AgeOverride": "max_age_override", "ICVIndicator": "icv_indicator", "EtherType": "ethertype"}[field]; ok {
		return name
	}
	var b strings.Builder
	for i, r := range field {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

var (
	positionType = reflect.TypeFor[Position]()
	timeType     = reflect.TypeFor[time.Time]()
)

// alike compares two values by what they say, wherever in a file they say it.
func alike(a, b reflect.Value) bool {
	switch {
	case a.Type() == positionType:
		return true
	case a.Type() == timeType:
		return a.Interface().(time.Time).Equal(b.Interface().(time.Time))
	}
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return alike(a.Elem(), b.Elem())
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !alike(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for _, k := range a.MapKeys() {
			if v := b.MapIndex(k); !v.IsValid() || !alike(a.MapIndex(k), v) {
				return false
			}
		}
		return true
	case reflect.Struct:
		if a.Type().PkgPath() != positionType.PkgPath() {
			return a.Equal(b) // such as netip.Prefix
		}
		for _, f := range fieldsOf(a.Type()) {
			if !alike(a.Field(f.index), b.Field(f.index)) {
				return false
			}
		}
		return true
	default:
		return a.Equal(b)
	}
}
