package aggregator

import (
	"syscall"
	"unsafe"
)

// hugePage is the size of one where memory is mapped by 4 KiB otherwise. Where it is
// larger, the kernel does with the advice what it can, which may be nothing.
const hugePage = 2 << 20

// hugePages asks the kernel to map a long list by huge pages (madvise(2), MADV_HUGEPAGE),
// those at its ends aside. It is to be called before the list is written to, and changes
// nothing but speed: what the kernel says to it does not matter.
func hugePages[T any](list []T) {
	begin := unsafe.Pointer(unsafe.SliceData(list)) //nolint:gosec // nothing is read by it
	before := -uintptr(begin) % hugePage            // bytes until the first huge page
	size := uintptr(len(list)) * unsafe.Sizeof(list[0])
	if size < before+hugePage {
		return
	}
	whole := unsafe.Slice((*byte)(unsafe.Add(begin, before)), (size-before)/hugePage*hugePage) //nolint:gosec // a part of the list
	_ = syscall.Madvise(whole, syscall.MADV_HUGEPAGE)
}
