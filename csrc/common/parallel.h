// Parallel loops of the CPU kernels. The caller of a kernel provides the threads. CPU only, no torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace retina_ops {

// A reference to a callable body(begin, end), the body of a loop over [begin, end). It copies and allocates nothing,
// and must not outlive the callable.
class RangeBody {
 public:
  template <class F>
  RangeBody(const F& body)
      : body_(&body), call_([](const void* callable, int64_t begin, int64_t end) {
          (*static_cast<const F*>(callable))(begin, end);
        }) {}

  void operator()(int64_t begin, int64_t end) const { call_(body_, begin, end); }

 private:
  const void* body_;
  void (*call_)(const void*, int64_t, int64_t);
};

// Cuts [0, count) into ranges, runs the body for each range, on one or several threads, and returns when all are done.
// grain: the least number of iterations that is worth a thread. Operators pass parallel_for (common/cpu_op.h).
using ParallelFor = void (*)(int64_t count, int64_t grain, RangeBody body);

constexpr int64_t kBoxesPerThread = 4096;  // the grain of elementwise operators over boxes

// A ParallelFor on the calling thread only.
inline void serial_for(int64_t count, int64_t, RangeBody body) {
  if (count > 0) body(0, count);
}

// The sum of chunk_sum(begin, end) over the chunks of [0, count). The chunks have a fixed size and their sums are added
// in order, so that the result does not depend on the number of threads.
template <class F>
double sum_of_chunks(ParallelFor parallel, int64_t count, int64_t chunk_size, const F& chunk_sum) {
  const int64_t chunks = (count + chunk_size - 1) / chunk_size;
  std::vector<double> sums(static_cast<size_t>(chunks));
  parallel(chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * chunk_size;
      sums[static_cast<size_t>(chunk)] = chunk_sum(begin, std::min(begin + chunk_size, count));
    }
  });
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace retina_ops
