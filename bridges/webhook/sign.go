package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"presenced/internal/secret"
)

// The header fields of Standard Webhooks.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

// Keys have so many bytes.
const (
	minKey  = 24
	maxKey  = 64
	maxKeys = 4
)

// readKeys reads the keys of a file. No error quotes them.
func readKeys(file secret.File) ([][]byte, error) {
	text, err := file.Read()
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	for word := range strings.FieldsSeq(text) {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(word, "whsec_"))
		if err != nil || len(key) < minKey || len(key) > maxKey {
			return nil, fmt.Errorf("%s: key %d is not base64 of %d to %d bytes, as openssl rand -base64 32 prints", file, len(keys)+1, minKey, maxKey)
		}
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, fmt.Errorf("%s holds more than %d keys", file, maxKeys)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no key", file)
	}
	return keys, nil
}

// sign gives the signatures of a message, one of each key.
func sign(keys [][]byte, id string, at time.Time, body []byte) string {
	var out []string
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		out = append(out, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(out, " ")
}
