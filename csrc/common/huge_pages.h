// Large outputs on pages of 2 MB. CPU only, no torch.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace retina_ops {

// From this size on glibc takes every allocation fresh from the system, page by page: the first write to an output of
// 119 MB costs 29,000 page faults, more than the arithmetic that fills it. Below, freed memory is used again.
constexpr size_t kFreshAllocation = size_t(32) << 20;

// Before the first write to a new array: where the system leaves huge pages to those who ask, asks for them.
inline void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes < kFreshAllocation) return;
  constexpr uintptr_t kPage = uintptr_t(2) << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) & ~(kPage - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(kPage - 1);
  if (end > begin) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish: may fail
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace retina_ops
