// Parallel loops: the reference to a body, the loop on one thread, and sums that do not depend on the order of the
// work.
#include <algorithm>
#include <type_traits>

#include "check.h"
#include "common/parallel.h"

using namespace retina_ops;

namespace {

// A ParallelFor that runs one iteration at a time, the last first.
void backwards(int64_t count, int64_t, RangeBody body) {
  for (int64_t i = count; i-- > 0;) body(i, i + 1);
}

// A reference is two pointers, however much the body captures: passing it copies and allocates nothing.
static_assert(sizeof(RangeBody) == 2 * sizeof(void*) && std::is_trivially_copyable_v<RangeBody>, "a plain reference");

void test_every_index_once() {
  for (const ParallelFor parallel : {&serial_for, &backwards}) {
    for (const int64_t count : {0, 1, 100}) {
      std::vector<int> calls(static_cast<size_t>(count), 0);
      int ranges = 0;
      parallel(count, 7, [&](int64_t begin, int64_t end) {
        ++ranges;
        for (int64_t i = begin; i < end; ++i) ++calls[static_cast<size_t>(i)];
      });
      EXPECT(std::count(calls.begin(), calls.end(), 1) == count);
      EXPECT((ranges == 0) == (count == 0));
    }
  }
}

void test_sum_of_chunks() {
  for (const ParallelFor parallel : {&serial_for, &backwards}) {
    // In another order the 1 would be rounded away.
    const double values[3] = {1e16, -1e16, 1.0};
    const double ordered = sum_of_chunks(parallel, 3, 1, [&](int64_t begin, int64_t) { return values[begin]; });
    EXPECT(ordered == 1.0);
    int64_t longest = 0, shortest = 100;
    const double sum = sum_of_chunks(parallel, 25, 10, [&](int64_t begin, int64_t end) {
      longest = std::max(longest, end - begin);
      shortest = std::min(shortest, end - begin);
      EXPECT(begin % 10 == 0 && end <= 25);
      return static_cast<double>(end - begin);
    });
    EXPECT(sum == 25.0 && longest == 10 && shortest == 5);
    EXPECT(sum_of_chunks(parallel, 0, 10, [](int64_t, int64_t) { return 1.0; }) == 0.0);
  }
}

}  // namespace

int main() {
  test_every_index_once();
  test_sum_of_chunks();
  return retina_ops_test::failures;
}
