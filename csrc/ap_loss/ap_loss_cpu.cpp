// The AP loss on the CPU. Lower bounds for float32: 8 bytes per logit for two reads, 4 for the update; two look-ups of
// a segment per logit, of which the first adds to the segment's sums. Logits are taken in blocks: buckets are computed
// by vector instructions, then each logit is placed among the few breakpoints of its bucket.
#include "ap_loss/ap_loss_cpu.h"

#include <mutex>

#include "ap_loss/ap_loss_segments.h"
#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int kBlock = 64;
constexpr int64_t kChunk = 16384;  // elements that are worth a thread

RETINA_OPS_HOST_DEVICE bool is_counted_row(const ApLossProblem& problem, int64_t row) {
  return problem.labels == nullptr || problem.labels[row] != problem.ignore_index;
}

template <class T>
RETINA_OPS_HOST_DEVICE T value_at(const void* values, Dtype dtype, int64_t i) {
  T value[1];
  load_block<1>(values, dtype, i, value, 1);
  return value[0];
}

// Calls visit(first, count) for blocks of consecutive logits of the counted rows among rows [begin, end).
template <class Visit>
RETINA_OPS_HOST_DEVICE void for_counted_blocks(const ApLossProblem& problem, int64_t begin, int64_t end,
                                               const Visit& visit) {
  for (int64_t row = begin; row < end;) {
    int64_t after = row;
    while (after < end && is_counted_row(problem, after)) ++after;
    const int64_t last = after * problem.classes;
    for (int64_t first = row * problem.classes; first < last; first += kBlock) {
      visit(first, block_count<kBlock>(first, last));
    }
    row = after + 1;
  }
}

// A block of logits with their buckets. `ignored` is set by dense targets alone.
template <class T>
struct Block {
  alignas(64) T logits[kBlock];
  alignas(64) T targets[kBlock];
  alignas(64) int32_t buckets[kBlock];
  int has_nan;

  RETINA_OPS_HOST_DEVICE void load(const ApLossProblem& problem, const ApLossBuckets<T>& by, int64_t first, int count) {
    load_block<kBlock>(problem.logits, problem.dtype, first, logits, count);
    if (problem.dense != nullptr) {
      load_block<kBlock>(problem.dense, problem.dense_dtype, first, targets, count);
      for (int i = 0; i < kBlock; ++i) logits[i] = targets[i] < T(0) ? -std::numeric_limits<T>::max() : logits[i];
    }
    int nan = 0;
    for (int i = 0; i < kBlock; ++i) {
      const T x = ap_loss_clamped(logits[i]);
      nan |= x != x ? 1 : 0;
      logits[i] = x;
      buckets[i] = by.of(x);
    }
    has_nan = nan;
  }
};

template <class T>
struct Counting {
  const ApLossProblem& problem;
  const ApLossSegments<T>& segments;
};

RETINA_OPS_HOST_DEVICE void add_to_cell(ApLossCell& cell, const ApLossRuler& ruler, double x) {
  cell.count += 1;
  cell.total += ap_loss_units((x - ruler.base) * ruler.scale);
}

// Adds the logits of rows [begin, end), positives among them, to the cells. Returns whether one is NaN.
template <class T>
RETINA_OPS_HOST_DEVICE bool count_rows(const Counting<T>& counting, ApLossCell* cells, int64_t begin, int64_t end) {
  const ApLossProblem& problem = counting.problem;
  const ApLossRuler* rulers = counting.segments.rulers.data();
  int has_nan = 0;
  Block<T> block;
  for_counted_blocks(problem, begin, end, [&](int64_t first, int count) __attribute__((always_inline)) {
    block.load(problem, counting.segments.buckets, first, count);
    has_nan |= block.has_nan;
    for (int i = 0; i < count; ++i) {
      if (block.buckets[i] == 0) continue;
      if (problem.dense != nullptr && block.targets[i] < T(0)) continue;
      const int32_t segment = counting.segments.segment_of(block.logits[i], block.buckets[i]);
      add_to_cell(cells[segment], rulers[segment], static_cast<double>(block.logits[i]));
    }
  });
  return has_nan != 0;
}

template <class T>
struct Updating {
  const ApLossProblem& problem;
  const ApLossSegments<T>& segments;
  const ApLossLine<T>* lines;
};

// Writes the update of rows [begin, end) as if all of their logits were negatives.
template <class T>
RETINA_OPS_HOST_DEVICE void update_rows(const Updating<T>& updating, int64_t begin, int64_t end) {
  const ApLossProblem& problem = updating.problem;
  Block<T> block;
  alignas(64) T update[kBlock];
  for_counted_blocks(problem, begin, end, [&](int64_t first, int count) __attribute__((always_inline)) {
    block.load(problem, updating.segments.buckets, first, count);
    for (int i = 0; i < count; ++i) {
      update[i] = T(0);
      if (block.buckets[i] == 0) continue;
      if (problem.dense != nullptr && block.targets[i] < T(0)) continue;
      const ApLossLine<T>& line = updating.lines[updating.segments.segment_of(block.logits[i], block.buckets[i])];
      update[i] = line.value + line.slope * (block.logits[i] - line.base);
    }
    store_block<kBlock>(problem.grad, problem.dtype, first, update, count);
  });
}

// Writes one value to the counted logits of rows [begin, end), and 0 to those that are ignored.
template <class T>
void fill_rows(const ApLossProblem& problem, T value, bool ignored_alone, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const bool is_counted = is_counted_row(problem, row);
    if (is_counted && ignored_alone) continue;
    for (int64_t i = row * problem.classes; i < (row + 1) * problem.classes; ++i) {
      const bool ignored =
          !is_counted || (problem.dense != nullptr && value_at<T>(problem.dense, problem.dense_dtype, i) < T(0));
      const T stored[1] = {ignored ? T(0) : value};
      store_block<1>(problem.grad, problem.dtype, i, stored, 1);
    }
  }
}

template <class T>
struct Positive {
  T logit;
  int64_t index;
  bool operator<(const Positive& other) const {
    return logit < other.logit || (logit == other.logit && index < other.index);
  }
};

// The positives, ascending; among equal logits by index.
template <class T>
std::vector<Positive<T>> sorted_positives(const ApLossProblem& problem, ParallelFor parallel) {
  std::vector<Positive<T>> found;
  std::mutex merging;
  const int64_t n = problem.rows * problem.classes;
  const auto add = [&](std::vector<Positive<T>>& to, int64_t i) {
    to.push_back({ap_loss_clamped(value_at<T>(problem.logits, problem.dtype, i)), i});
  };
  parallel(problem.labels != nullptr ? problem.rows : n, kChunk, [&](int64_t begin, int64_t end) {
    std::vector<Positive<T>> own;
    for (int64_t i = begin; i < end; ++i) {
      if (problem.labels == nullptr) {
        if (value_at<T>(problem.dense, problem.dense_dtype, i) > T(0)) add(own, i);
      } else if (is_counted_row(problem, i) && problem.labels[i] < problem.classes) {
        add(own, i * problem.classes + problem.labels[i]);
      }
    }
    const std::lock_guard<std::mutex> lock(merging);
    found.insert(found.end(), own.begin(), own.end());
  });
  const bool has_nan = std::any_of(found.begin(), found.end(), [](const auto& one) { return one.logit != one.logit; });
  if (!has_nan) std::sort(found.begin(), found.end());
  return found;
}

// Sums over the segments of all counted logits, and of the positives alone.
template <class T>
struct Counts {
  std::vector<ApLossCell> negatives, positives;
  bool has_nan;
};

template <class T>
Counts<T> count_all(const Counting<T>& counting, const std::vector<T>& positives, ParallelFor parallel) {
  const ApLossProblem& problem = counting.problem;
  const ApLossSegments<T>& segments = counting.segments;
  const size_t cells = static_cast<size_t>(segments.count());
  Counts<T> counts{std::vector<ApLossCell>(cells), std::vector<ApLossCell>(cells), false};
  const auto count_range = isa_variant<count_rows<T>>();
  std::mutex merging;
  parallel(problem.rows, std::max<int64_t>(1, kChunk / problem.classes), [&](int64_t begin, int64_t end) {
    std::vector<ApLossCell> own(cells);
    const bool has_nan = count_range(counting, own.data(), begin, end);
    const std::lock_guard<std::mutex> lock(merging);
    counts.has_nan = counts.has_nan || has_nan;
    for (size_t k = 0; k < cells; ++k) {
      counts.negatives[k].count += own[k].count;
      counts.negatives[k].total += own[k].total;
    }
  });
  for (const T logit : positives) {
    const int32_t segment = segments.segment_of(logit, segments.buckets.of(logit));
    add_to_cell(counts.positives[static_cast<size_t>(segment)], segments.rulers[static_cast<size_t>(segment)],
                static_cast<double>(logit));
  }
  for (size_t k = 0; k < cells; ++k) {
    counts.negatives[k].count -= counts.positives[k].count;
    counts.negatives[k].total -= counts.positives[k].total;
  }
  return counts;
}

template <class T>
double not_a_number(const ApLossProblem& problem, ParallelFor parallel) {
  constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
  if (problem.grad != nullptr) {
    parallel(problem.rows, std::max<int64_t>(1, kChunk / problem.classes),
             [&](int64_t begin, int64_t end) { fill_rows(problem, kNan, false, begin, end); });
  }
  return static_cast<double>(kNan);
}

template <class T>
double typed_loss(const ApLossProblem& problem, ParallelFor parallel) {
  const auto sorted = sorted_positives<T>(problem, parallel);
  std::vector<T> positives;
  positives.reserve(sorted.size());
  for (const auto& one : sorted) {
    if (one.logit != one.logit) return not_a_number<T>(problem, parallel);
    positives.push_back(one.logit);
  }
  const ApLossSegments<T> segments(positives, problem.delta, problem.rows * problem.classes);
  const auto counts = count_all(Counting<T>{problem, segments}, positives, parallel);
  if (counts.has_nan) return not_a_number<T>(problem, parallel);
  auto result = ap_loss_result(segments, counts.negatives, counts.positives, problem.delta, problem.grad != nullptr);
  if (problem.grad == nullptr) return result.loss;
  for (auto& line : result.lines) {
    line.value = static_cast<T>(line.value * problem.upstream);
    line.slope = static_cast<T>(line.slope * problem.upstream);
  }
  const Updating<T> updating{problem, segments, result.lines.data()};
  const auto update_range = isa_variant<update_rows<T>>();
  parallel(problem.rows, std::max<int64_t>(1, kChunk / problem.classes), [&](int64_t begin, int64_t end) {
    update_range(updating, begin, end);
    if (problem.labels != nullptr) fill_rows(problem, T(0), true, begin, end);
  });
  const double scale = -problem.upstream / static_cast<double>(sorted.size());
  for (size_t i = 0; i < sorted.size(); ++i) {
    const T update[1] = {static_cast<T>(result.errors[i] * scale)};
    store_block<1>(problem.grad, problem.dtype, sorted[i].index, update, 1);
  }
  return result.loss;
}

}  // namespace

double ap_loss_of(const ApLossProblem& problem, ParallelFor parallel) {
  return problem.dtype == Dtype::kFloat64 ? typed_loss<double>(problem, parallel)
                                          : typed_loss<float>(problem, parallel);
}

int64_t ap_loss_bad_row(const ApLossProblem& problem) {
  for (int64_t row = 0; problem.labels != nullptr && row < problem.rows; ++row) {
    const int64_t label = problem.labels[row];
    if (label != problem.ignore_index && (label < 0 || label > problem.classes)) return row;
  }
  return -1;
}

}  // namespace retina_ops
