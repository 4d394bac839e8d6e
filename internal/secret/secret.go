// Package secret reads passwords and keys from files, so that no secret stands
// in a configuration, a log or a command line. Any package may import it.
package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// A File is the path of a file that holds one secret and nothing else; a
// trailing line end does not belong to it. Printing a File prints the path,
// which is no secret.
type File string

const limit = 64 << 10

// Read gives the secret. An empty path, an empty file and one of more than 64 KiB
// are errors; no error quotes the secret.
func (f File) Read() (string, error) {
	if f == "" {
		return "", errors.New("no secret file is configured")
	}
	file, err := os.Open(string(f))
	if err != nil {
		return "", fmt.Errorf("secret: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("secret: %w", err)
	case len(data) > limit:
		return "", fmt.Errorf("secret: %s is larger than %d bytes", f, limit)
	}
	value := strings.TrimRight(string(data), "\r\n")
	if value == "" {
		return "", fmt.Errorf("secret: %s is empty", f)
	}
	return value, nil
}
