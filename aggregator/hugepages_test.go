package aggregator

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"unsafe"
)

// The middle of a long list is advised to be of huge pages, and no list is too short.
func TestHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no huge pages:", err)
	}
	hugePages(make([]byte, 1))
	hugePages(make([]entry, hugePage/8))
	list := make([]record, 4*hugePage/unsafe.Sizeof(record{}))
	hugePages(list)
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	middle, inside := uintptr(unsafe.Pointer(&list[len(list)/2])), false
	for line := range bytes.Lines(maps) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(string(line), "%x-%x ", &from, &to); n == 2 {
			inside = from <= middle && middle < to
		}
		if flags, ok := bytes.CutPrefix(line, []byte("VmFlags:")); ok && inside {
			if !bytes.Contains(flags, []byte(" hg")) {
				t.Errorf("the list is in a mapping with the flags%s", flags)
			}
			return
		}
	}
	t.Error("the list is nowhere")
}
