// Times the kernels of the focal loss and of the RetinaNet loss alone, without torch, beside a copy of the logits:
//
//   nvcc -O3 --expt-relaxed-constexpr -std=c++17 -arch=native -Icsrc -o build/time_losses
//   benchmarks/cuda/time_losses.cu build/time_losses
//
// Medians of 25 launches between events, the L2 cache flushed before each. For a variant, change a constant and build.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "focal_loss/focal_loss_launch.cuh"
#include "retinanet_loss/retinanet_loss_launch.cuh"

namespace {

using namespace retina_ops;

void check_cuda(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <class T>
T* device_array(int64_t count) {
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, count * sizeof(T)));
  check_cuda(cudaMemset(memory, 0, count * sizeof(T)));
  return static_cast<T*>(memory);
}

template <class T>
T* device_array(const std::vector<T>& values) {
  T* memory = device_array<T>(static_cast<int64_t>(values.size()));
  check_cuda(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return memory;
}

__host__ __device__ uint32_t scrambled(uint64_t i) {
  auto h = static_cast<uint32_t>(i * 2654435761u);
  h = (h ^ h >> 15) * 2246822519u;
  h = (h ^ h >> 13) * 3266489917u;
  return h ^ h >> 16;
}

// Sums of two uniform numbers with this mean, within 2.4 `deviation` of it.
template <class T>
__global__ void fill_kernel(T* values, int64_t count, float mean, float deviation) {
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < count; i += 256ll * gridDim.x) {
    const uint32_t h = scrambled(i);
    const float uniform = static_cast<float>((h & 0xffff) + (h >> 16)) / 65536.0f - 1.0f;
    values[i] = from_arithmetic<T>(mean + 2.4f * deviation * uniform);
  }
}

template <class T>
T* logits_of(int64_t count, float mean, float deviation) {
  T* logits = device_array<T>(count);
  fill_kernel<<<4096, 256>>>(logits, count, mean, deviation);
  return logits;
}

template <class Function>
float microseconds(const Function& function) {
  static void* flushed = device_array<char>(256 << 20);
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin));
  check_cuda(cudaEventCreate(&end));
  std::vector<float> times;
  for (int round = 0; round < 28; ++round) {
    check_cuda(cudaMemsetAsync(flushed, round, 256 << 20));
    check_cuda(cudaEventRecord(begin));
    function();
    check_cuda(cudaEventRecord(end));
    check_cuda(cudaEventSynchronize(end));
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end));
    if (round >= 3) times.push_back(1000 * milliseconds);
  }
  check_cuda(cudaGetLastError());
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

template <class T>
constexpr Dtype kDtype = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kBFloat16;

// 1 row in 100 with a class, 5 ignored, the others background.
template <class T>
void time_focal_loss(const char* name) {
  const int64_t rows = 8 * 200880, classes = 91, n = rows * classes;
  std::vector<int64_t> labels(rows);
  for (int64_t i = 0; i < rows; ++i) {
    const uint32_t h = scrambled(i);
    labels[i] = h % 100 == 0 ? h / 100 % classes : h % 100 < 6 ? int64_t(-1) : classes;
  }
  T* logits = logits_of<T>(n, -3.0f, 1.0f);
  T* gradient = device_array<T>(n);
  FocalDevice device{};
  device.logits = logits;
  device.dtype = kDtype<T>;
  device.classes = classes;
  device.labels = device_array(labels);
  device.ignore_index = -1;
  device.alpha = 0.25;
  device.gamma = 2.0;
  device.order = 1;
  device.derivative = gradient;
  device.partial = device_array<double>(kFocalMaxBlocks);
  device.done = device_array<unsigned>(1);
  device.result = device_array<float>(1);
  device.n = n;
  const float copy =
      microseconds([&] { check_cuda(cudaMemcpyAsync(gradient, logits, n * sizeof(T), cudaMemcpyDeviceToDevice)); });
  const float took = microseconds([&] { launch_focal_loss_gamma<T, int64_t, Gamma::kTwo>(device); });
  std::printf("focal loss, 8 x 200,880 x 91, %s: %.1f us, a copy %.1f us\n", name, took, copy);
  check_cuda(cudaFree(logits));
  check_cuda(cudaFree(gradient));
}

// Runs of 40 anchors: 1 in 400 with a box, 3 ignored.
template <class T>
void time_retinanet_loss(const char* name, bool is_planar) {
  const int64_t cells[5] = {100 * 136, 50 * 68, 25 * 34, 13 * 17, 7 * 9};
  const int64_t batch = 8, classes = 91, capacity = 16;
  RetinanetLossDevice device{};
  HeadLevels& levels = device.logits;
  levels.count = 5;
  levels.dtype = kDtype<T>;
  levels.batch = batch;
  levels.channels = classes;
  for (int l = 0; l < levels.count; ++l) {
    HeadLevel& level = levels.level[l];
    level.is_planar = is_planar;
    level.cells = is_planar ? cells[l] : 9 * cells[l];
    level.per_cell = is_planar ? 9 : 1;
    level.first_anchor = levels.anchors;
    level.start = levels.elements;
    const int64_t count = batch * level.anchors() * classes;
    level.values = logits_of<T>(count, -4.6f, 0.5f);
    levels.anchors += level.anchors();
    levels.elements = ceil_div<int64_t>(levels.elements + count, kLevelAlignment) * kLevelAlignment;
  }
  std::vector<int64_t> matches(batch * levels.anchors), labels(batch * capacity);
  for (size_t i = 0; i < matches.size(); ++i) {
    const uint32_t h = scrambled(i / 40);
    matches[i] = h % 400 == 0 ? static_cast<int64_t>(h / 400 % 10) : h % 400 < 4 ? int64_t(-2) : int64_t(-1);
  }
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = scrambled(i) % classes;
  device.gt_labels = device_array(labels);
  device.gt_capacity = capacity;
  device.matches = device_array(matches);
  device.normalizer = device_array(std::vector<double>(batch, 9.0));
  device.alpha = 0.25;
  device.gamma = 2.0;
  device.logits_gradient = device_array<T>(levels.elements);
  device.partial = device_array<double>(2 * kLossPartials);
  device.done = device_array<unsigned>(2);
  device.classification = device_array<float>(1);
  const float took = microseconds([&] { launch_classification_gamma<T, Gamma::kTwo>(device); });
  std::printf("RetinaNet loss, logits of 8 x 800 x 1088, 91 classes, %s, %s: %.1f us\n", name,
              is_planar ? "planar" : "by anchor", took);
  for (int l = 0; l < levels.count; ++l) check_cuda(cudaFree(const_cast<void*>(levels.level[l].values)));
  check_cuda(cudaFree(device.logits_gradient));
}

}  // namespace

int main() {
  time_focal_loss<float>("float32");
  time_focal_loss<__nv_bfloat16>("bfloat16");
  for (const bool is_planar : {true, false}) {
    time_retinanet_loss<float>("float32", is_planar);
    time_retinanet_loss<__nv_bfloat16>("bfloat16", is_planar);
  }
}
