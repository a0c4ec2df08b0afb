// A radix sort of the scores' bits, least significant digit first: it is stable, and several times faster than a sort
// by comparison.
#include "nms/score_order.h"

#include <array>

namespace retina_ops {
namespace {

constexpr int kDigitBits = 11;
constexpr int kDigits = 1 << kDigitBits;

// An integer that is smaller for higher scores.
uint32_t descending_key(float score) {
  const uint32_t bits = bit_copy<uint32_t>(score + 0.0f);  // -0 becomes 0
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7fffffffu;
}
uint64_t descending_key(double score) {
  const uint64_t bits = bit_copy<uint64_t>(score + 0.0);
  return (bits >> 63) != 0 ? bits : ~bits & 0x7fffffffffffffffu;
}

template <class Key>
struct Entry {
  Key key;
  int32_t index;
};

template <class T>
auto entries_of(const void* scores, Dtype dtype, int64_t n) {
  using Key = decltype(descending_key(T()));
  constexpr int kBlock = 64;
  std::vector<Entry<Key>> entries;
  entries.reserve(static_cast<size_t>(n));
  T block[kBlock];
  for (int64_t first = 0; first < n; first += kBlock) {
    const int count = n - first < kBlock ? static_cast<int>(n - first) : kBlock;
    load_block<kBlock>(scores, dtype, first, block, count);
    for (int i = 0; i < count; ++i) {
      if (block[i] == block[i]) entries.push_back({descending_key(block[i]), static_cast<int32_t>(first + i)});
    }
  }
  return entries;
}

template <class T>
std::vector<int32_t> order_of(const void* scores, Dtype dtype, int64_t n) {
  auto entries = entries_of<T>(scores, dtype, n);
  auto sorted = entries;
  for (size_t shift = 0; shift < 8 * sizeof(T); shift += kDigitBits) {
    std::array<uint32_t, kDigits> starts{};
    for (const auto& entry : entries) ++starts[(entry.key >> shift) & (kDigits - 1)];
    bool all_equal = false;  // all scores have the same digit: this pass would change nothing
    uint32_t sum = 0;
    for (uint32_t& start : starts) {
      all_equal = all_equal || start == entries.size();
      const uint32_t count = start;
      start = sum;
      sum += count;
    }
    if (all_equal) continue;
    for (const auto& entry : entries) sorted[starts[(entry.key >> shift) & (kDigits - 1)]++] = entry;
    entries.swap(sorted);
  }
  std::vector<int32_t> order(entries.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = entries[i].index;
  return order;
}

}  // namespace

std::vector<int32_t> descending_order(const void* scores, Dtype dtype, int64_t n) {
  return dtype == Dtype::kFloat64 ? order_of<double>(scores, dtype, n) : order_of<float>(scores, dtype, n);
}

}  // namespace retina_ops
