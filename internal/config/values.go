package config

import (
	"fmt"
	"iter"
	"reflect"
)

// Values gives each value of type T in the configuration struct that v is, or points to,
// with its path, in the order of the keys. What is inside of a T is not looked at.
func Values[T any](v any) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		values(reflect.Indirect(reflect.ValueOf(v)), "", yield)
	}
}

func values[T any](v reflect.Value, path string, yield func(string, T) bool) bool {
	if one, ok := reflect.TypeAssert[T](v); ok {
		return yield(path, one)
	}
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			if !values(v.Index(i), fmt.Sprintf("%s[%d]", path, i), yield) {
				return false
			}
		}
	case reflect.Struct:
		for _, f := range keys(v.Type()) {
			at := path
			if !inline(f) {
				at = join(path, key(f))
			}
			if !values(v.FieldByIndex(f.Index), at, yield) {
				return false
			}
		}
	default:
	}
	return true
}
