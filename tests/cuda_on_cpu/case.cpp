#include "case.h"

#include <fstream>
#include <new>
#include <sstream>
#include <stdexcept>

#include "emulator/emulator.h"

namespace {

constexpr std::align_val_t kBoundary{64};

void read_file(const std::string& path, char* to, size_t bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file.read(to, static_cast<std::streamsize>(bytes)) && bytes > 0) throw std::runtime_error("cannot read " + path);
}

}  // namespace

Case::Case(const std::string& folder) {
  std::ifstream lines(folder + "/case.txt");
  if (!lines) throw std::runtime_error("no case in " + folder);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string kind, name;
    words >> kind >> name;
    if (kind == "scalar") {
      std::string value;
      words >> value;
      numbers_[name] = std::stod(value);  // also inf and nan
      continue;
    }
    CaseArray array;
    size_t offset = 0;
    std::string state;
    words >> array.bytes >> offset >> state;
    array.file = folder + "/" + name + ".bin";
    array.memory.reset(new (kBoundary) char[offset + array.bytes]);  // it ends where the array does
    array.data = array.memory.get() + offset;
    read_file(array.file, array.data, array.bytes);
    const auto [place, is_new] = arrays_.emplace(name, std::move(array));
    if (!is_new) throw std::runtime_error("two arrays " + name);
    emulator::register_memory(place->second.data, place->second.bytes, place->first.c_str(), state == "filled");
  }
}

Case::~Case() { emulator::unregister_all(); }

double Case::number(const std::string& name) const {
  const auto found = numbers_.find(name);
  if (found == numbers_.end()) throw std::runtime_error("the case lacks " + name);
  return found->second;
}

retina_ops::Dtype Case::dtype(const std::string& name) const { return static_cast<retina_ops::Dtype>(integer(name)); }

void Case::save() const {
  for (const auto& [name, array] : arrays_) {
    std::ofstream(array.file, std::ios::binary).write(array.data, static_cast<std::streamsize>(array.bytes));
  }
}
