// What every CUDA operator needs from torch: the device guard, the current stream and the launch check. For _op.cu
// files only.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <string>

namespace retina_ops {

// The current stream of the tensor's device, which must be the current device.
inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// RETINA_OPS_DEBUG=1 turns on checks for which the host must wait for the device.
inline bool debug_checks() {
  const char* debug = std::getenv("RETINA_OPS_DEBUG");
  return debug != nullptr && std::string(debug) == "1";
}

}  // namespace retina_ops

#define RETINA_OPS_LAUNCH_CHECK() STD_CUDA_KERNEL_LAUNCH_CHECK()
