// How a launch makes itself known to the emulator, and how its argument struct is filled from a case: what
// RETINA_OPS_LAUNCH and RETINA_OPS_FIELDS of common/launch.cuh expand to here.
#pragma once

#include <cstddef>
#include <string>
#include <type_traits>

class Case;

namespace emulator {

// Adds a launch under its name. Returns true, as the initial value of a variable.
bool register_launch(const char* name, void (*run)(const Case&));

// Throws where the case has a value that no field took: a name is misspelt.
void check_all_used(const Case& from);
// Whether the case has a value of this name, or of a field or element of it.
bool has_value(const Case& from, const std::string& name);
// The first name of a comma-separated list, which it removes from the list.
std::string next_name(const char*& names);

// Write one value into a field. They throw where the case lacks the value, or the value does not fit the field.
void fill_integer(const Case& from, const std::string& name, void* field, size_t bytes, bool is_signed);
void fill_floating(const Case& from, const std::string& name, void* field, size_t bytes);
// element_bytes: what the array's elements must have; 0 for any. A null pointer where the case has no such array.
void fill_pointer(const Case& from, const std::string& name, void* field, size_t element_bytes);

template <class T>
constexpr size_t element_bytes() {
  if constexpr (std::is_void_v<T>) {
    return 0;
  } else {
    return sizeof(T);
  }
}

// Elements of an array, and fields of a struct with RETINA_OPS_FIELDS, are filled by names like "weights[0]" and
// "limits.first". A struct that the case does not mention keeps its initial value.
template <class T>
void fill_field(const Case& from, const std::string& name, T& field) {
  if constexpr (std::is_array_v<T>) {
    for (size_t i = 0; i < std::extent_v<T>; ++i) fill_field(from, name + "[" + std::to_string(i) + "]", field[i]);
  } else if constexpr (std::is_pointer_v<T>) {
    fill_pointer(from, name, &field, element_bytes<std::remove_pointer_t<T>>());
  } else if constexpr (std::is_floating_point_v<T>) {
    fill_floating(from, name, &field, sizeof(T));
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    fill_integer(from, name, &field, sizeof(T), !std::is_unsigned_v<T>);
  } else if (has_value(from, name)) {
    fill_struct(from, name, field);
  }
}

// names: those of `fields`, as they stand in the macro.
template <class... T>
void fill_fields(const Case& from, const std::string& prefix, const char* names, T&... fields) {
  (fill_field(from, prefix + next_name(names), fields), ...);
}

}  // namespace emulator

// The struct that derives from STRUCT is where the names of its fields mean the fields.
#define RETINA_OPS_FIELDS(STRUCT, ...)                                                  \
  struct STRUCT##_fields : STRUCT {                                                     \
    void fill(const ::Case& from, const std::string& prefix) {                          \
      ::emulator::fill_fields(from, prefix, #__VA_ARGS__, __VA_ARGS__);                 \
    }                                                                                   \
  };                                                                                    \
  inline void fill_struct(const ::Case& from, const std::string& name, STRUCT& value) { \
    STRUCT##_fields fields{value};                                                      \
    fields.fill(from, name + ".");                                                      \
    value = fields;                                                                     \
  }                                                                                     \
  static_assert(true, "")
#define RETINA_OPS_LAUNCH(FUNCTION, STRUCT, ...)                                                               \
  struct FUNCTION##_fields : STRUCT {                                                                          \
    void fill(const ::Case& from) {                                                                            \
      ::emulator::fill_fields(from, "", #__VA_ARGS__, __VA_ARGS__);                                            \
      ::emulator::check_all_used(from);                                                                        \
    }                                                                                                          \
  };                                                                                                           \
  inline const bool FUNCTION##_is_registered = ::emulator::register_launch(#FUNCTION, [](const ::Case& from) { \
    FUNCTION##_fields arguments{};                                                                             \
    arguments.fill(from);                                                                                      \
    FUNCTION(arguments);                                                                                       \
  })
