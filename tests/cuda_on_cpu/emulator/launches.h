// RETINA_OPS_LAUNCH and RETINA_OPS_FIELDS of common/launch.cuh for the emulator: a launch registers itself, and its
// argument struct is filled from a case.
#pragma once

#include <cstddef>
#include <string>
#include <type_traits>

class Case;

namespace emulator {

// Adds a launch under its name. Returns true, as the initial value of a variable.
bool register_launch(const char* name, void (*run)(const Case&));

// Throws if the case has a value that was not written into any field, as for a misspelt name.
void check_all_used(const Case& from);
// Whether the case has a value of this name, or of a field or an element of it.
bool has_value(const Case& from, const std::string& name);
// Removes the first name from a comma-separated list, and returns it.
std::string next_name(const char*& names);

// These write one value into a field. They throw if the case lacks the value, or if it does not fit the field.
void fill_integer(const Case& from, const std::string& name, void* field, size_t bytes, bool is_signed);
void fill_floating(const Case& from, const std::string& name, void* field, size_t bytes);
// A null pointer if the case has no such array. element_bytes: size of the elements that the array must have; 0: any.
void fill_pointer(const Case& from, const std::string& name, void* field, size_t element_bytes);

template <class T>
constexpr size_t element_bytes() {
  if constexpr (std::is_void_v<T>) {
    return 0;
  } else {
    return sizeof(T);
  }
}

// Elements of an array and fields of a nested struct have names like "weights[0]" and "limits.first". A nested struct
// of which the case has no field keeps its initial value.
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

// names: the names of `fields`, as written in the macro.
template <class... T>
void fill_fields(const Case& from, const std::string& prefix, const char* names, T&... fields) {
  (fill_field(from, prefix + next_name(names), fields), ...);
}

}  // namespace emulator

// Both derive a struct from STRUCT, so that the names of its fields, as arguments of the macro, are the fields.
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
