// Sorting on the device, by torch. For _op.cu files only.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>

namespace retina_ops {

// The indices that sort a vector, stably.
inline torch::stable::Tensor stable_argsort(const torch::stable::Tensor& values, bool descending) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(values),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t(0)), torch::stable::detail::from(descending)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  const torch::stable::Tensor sorted = torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
  return torch::stable::detail::to<torch::stable::Tensor>(stack[1]);
}

}  // namespace retina_ops
