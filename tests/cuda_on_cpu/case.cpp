#include "case.h"

#include <cstring>
#include <fstream>
#include <new>
#include <sstream>
#include <stdexcept>

#include "emulator/emulator.h"
#include "emulator/launches.h"

namespace {

constexpr std::align_val_t kBoundary{64};

using Launches = std::map<std::string, void (*)(const Case&)>;

Launches& launches() {
  static Launches all;
  return all;
}

void read_file(const std::string& path, char* to, size_t bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file.read(to, static_cast<std::streamsize>(bytes)) && bytes > 0) throw std::runtime_error("cannot read " + path);
}

// Whether a key is `name`, "name.field" or "name[0]".
template <class Map>
bool has_prefix(const Map& map, const std::string& name) {
  const auto begins = [&](const std::string& prefix) {
    const auto found = map.lower_bound(prefix);
    return found != map.end() && found->first.compare(0, prefix.size(), prefix) == 0;
  };
  return map.count(name) != 0 || begins(name + ".") || begins(name + "[");
}

template <class T>
void store(void* field, T value) {
  std::memcpy(field, &value, sizeof(T));
}

}  // namespace

Case::Case(const std::string& folder) {
  std::ifstream lines(folder + "/case.txt");
  if (!lines) throw std::runtime_error("no case in " + folder);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string kind, name;
    words >> kind >> name;
    if (kind == "launch") {
      launch_ = name;
    } else if (kind == "scalar") {
      words >> scalars_[name];
    } else {
      CaseArray array;
      size_t offset = 0;
      std::string file, state;
      words >> file >> array.bytes >> array.element_bytes >> offset >> array.shift >> state;
      array.file = folder + "/" + file;
      array.memory.reset(new (kBoundary) char[offset + array.bytes]);  // it ends where the array does
      array.data = array.memory.get() + offset;
      read_file(array.file, array.data, array.bytes);
      const auto [place, is_new] = arrays_.emplace(name, std::move(array));
      if (!is_new) throw std::runtime_error("two arrays " + name);
      emulator::register_memory(place->second.data, place->second.bytes, place->first.c_str(), state == "filled");
    }
  }
}

Case::~Case() { emulator::unregister_all(); }

bool Case::has(const std::string& name) const { return has_prefix(scalars_, name) || has_prefix(arrays_, name); }

const std::string& Case::scalar(const std::string& name) const {
  const auto found = scalars_.find(name);
  if (found == scalars_.end()) throw std::runtime_error("the case lacks the number " + name);
  used_.insert(name);
  return found->second;
}

const CaseArray* Case::array(const std::string& name) const {
  const auto found = arrays_.find(name);
  if (found == arrays_.end()) return nullptr;
  used_.insert(name);
  return &found->second;
}

void Case::check_all_used() const {
  const auto check = [this](const std::string& name) {
    if (used_.count(name) == 0) throw std::runtime_error(launch_ + " has no field " + name + " of this kind");
  };
  for (const auto& [name, value] : scalars_) check(name);
  for (const auto& [name, array] : arrays_) check(name);
}

void Case::save() const {
  for (const auto& [name, array] : arrays_) {
    std::ofstream(array.file, std::ios::binary).write(array.data, static_cast<std::streamsize>(array.bytes));
  }
}

void run_launch(const Case& from) {
  const auto found = launches().find(from.launch());
  if (found == launches().end()) throw std::runtime_error("no RETINA_OPS_LAUNCH(" + from.launch() + ", ...) here");
  found->second(from);
}

namespace emulator {

bool register_launch(const char* name, void (*run)(const Case&)) {
  launches()[name] = run;
  return true;
}

void check_all_used(const Case& from) { from.check_all_used(); }

bool has_value(const Case& from, const std::string& name) { return from.has(name); }

std::string next_name(const char*& names) {
  while (*names == ' ' || *names == ',') ++names;
  const char* end = names;
  while (*end != '\0' && *end != ',') ++end;
  const std::string name(names, end);
  names = end;
  return name;
}

void fill_integer(const Case& from, const std::string& name, void* field, size_t bytes, bool is_signed) {
  const std::string& text = from.scalar(name);
  size_t read = 0;
  const long long value = std::stoll(text, &read);
  const int bits = 8 * static_cast<int>(bytes) - (is_signed ? 1 : 0);
  const bool fits = bits >= 63 || (value < 1ll << bits && value >= (is_signed ? -(1ll << bits) : 0ll));
  if (read != text.size() || !fits) throw std::runtime_error(name + ": not an integer of its field: " + text);
  switch (bytes) {
    case 1: return store(field, static_cast<int8_t>(value));
    case 2: return store(field, static_cast<int16_t>(value));
    case 4: return store(field, static_cast<int32_t>(value));
    default: return store(field, static_cast<int64_t>(value));
  }
}

void fill_floating(const Case& from, const std::string& name, void* field, size_t bytes) {
  const double value = std::stod(from.scalar(name));  // also inf and nan
  if (bytes == sizeof(float)) return store(field, static_cast<float>(value));
  store(field, value);
}

void fill_pointer(const Case& from, const std::string& name, void* field, size_t element_bytes) {
  const CaseArray* array = from.array(name);
  if (array == nullptr) return store<void*>(field, nullptr);
  if (element_bytes != 0 && array->element_bytes != element_bytes) {
    throw std::runtime_error(name + ": elements of " + std::to_string(array->element_bytes) +
                             " bytes for a pointer to " + std::to_string(element_bytes));
  }
  store(field, reinterpret_cast<uintptr_t>(array->data) - array->shift);
}

}  // namespace emulator
