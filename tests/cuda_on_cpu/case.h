// A case handed over by the test: named scalars, and arrays that come from files and go back to them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <new>
#include <string>

#include "common/half_block.h"

// One array in memory of its own: what is one past its end belongs to nobody.
struct CaseArray {
  struct Free {
    void operator()(char* memory) const { operator delete[](memory, std::align_val_t{64}); }
  };
  std::string file;
  std::unique_ptr<char[], Free> memory;
  char* data = nullptr;
  size_t bytes = 0;
};

// The lines of <folder>/case.txt:
//   scalar NAME VALUE
//   array NAME BYTES OFFSET filled|empty     in <folder>/NAME.bin; OFFSET: bytes past a 64-byte boundary
class Case {
 public:
  explicit Case(const std::string& folder);
  ~Case();

  double number(const std::string& name) const;
  int64_t integer(const std::string& name) const { return static_cast<int64_t>(number(name)); }
  bool flag(const std::string& name) const { return number(name) != 0; }
  retina_ops::Dtype dtype(const std::string& name) const;
  // The array's memory `shift` bytes before its start, so that indices from there are large; null where it is absent.
  template <class T = void>
  T* array(const std::string& name, int64_t shift = 0) const {
    const auto found = arrays_.find(name);
    if (found == arrays_.end()) return nullptr;
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(found->second.data) - static_cast<uintptr_t>(shift));
  }
  // Writes every array back to its file.
  void save() const;

 private:
  std::map<std::string, double> numbers_;
  std::map<std::string, CaseArray> arrays_;
};

inline int64_t bytes_of_box(retina_ops::Dtype dtype) {
  using retina_ops::Dtype;
  return 4 * (dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2);
}

// Launch the kernels of one operator call, as the operator does. Null in a program that leaves their file out.
#define CASE_RUNNER(NAME) void NAME(const Case& c) __attribute__((weak))
CASE_RUNNER(run_focal_loss);
CASE_RUNNER(run_focal_loss_count);
CASE_RUNNER(run_scale_gradient);
CASE_RUNNER(run_box_iou);
CASE_RUNNER(run_box_iou_grad);
CASE_RUNNER(run_box_coding);
CASE_RUNNER(run_iou_loss);
CASE_RUNNER(run_match_anchors);
CASE_RUNNER(run_nms);
CASE_RUNNER(run_retinanet_loss);
CASE_RUNNER(run_soft_nms);
CASE_RUNNER(run_postprocess);
