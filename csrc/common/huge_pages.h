// Large outputs on huge pages, of 2 MB. CPU only, no torch.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace retina_ops {

// From this size on glibc maps new memory for every allocation, and the first write to each 4 kB page is a page fault:
// 29,000 faults for an output of 119 MB take longer than the arithmetic that fills it. Smaller allocations reuse freed
// memory.
constexpr size_t kFreshAllocation = size_t(32) << 20;

// Asks for huge pages for a new array, before the first write to it; for systems that give them only on request.
inline void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes < kFreshAllocation) return;
  constexpr uintptr_t kPage = uintptr_t(2) << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) & ~(kPage - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(kPage - 1);
  if (end > begin) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // only a hint: may fail
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace retina_ops
