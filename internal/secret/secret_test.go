package secret_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"presenced/internal/secret"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) secret.File {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return secret.File(path)
	}
	for _, c := range []struct {
		file      secret.File
		want, err string
	}{
		{file("plain", "open sesame"), "open sesame", ""},
		{file("line", "open sesame\r\n"), "open sesame", ""},
		{file("blanks", " open sesame "), " open sesame ", ""}, // blanks may belong to it
		{file("empty", "\n"), "", "is empty"},
		{file("large", strings.Repeat("x", 65<<10)), "", "is larger than"},
		{"", "", "no secret file is configured"},
		{secret.File(filepath.Join(dir, "nowhere")), "", "no such file"},
	} {
		got, err := c.file.Read()
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", c.file, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "xxx") {
			t.Errorf("the error quotes the secret: %.80s", err)
		}
	}
}
