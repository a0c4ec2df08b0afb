// A case that a test hands over: the name of a launch, the scalars of its argument struct, and its arrays, which come
// from files and go back to them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <string>

// One array, in memory of its own: an access past its end is one outside all memory.
struct CaseArray {
  struct Free {
    void operator()(char* memory) const { operator delete[](memory, std::align_val_t{64}); }
  };
  std::string file;
  std::unique_ptr<char[], Free> memory;
  char* data = nullptr;
  size_t bytes = 0;
  size_t element_bytes = 0;
  uintptr_t shift = 0;  // bytes from the pointer that a launch is given to `data`
};

// The lines of <folder>/case.txt:
//   launch NAME
//   scalar NAME VALUE
//   array NAME FILE BYTES ELEMENT_BYTES OFFSET SHIFT filled|empty
// FILE: in the folder. OFFSET: bytes past a 64-byte boundary. SHIFT: bytes that the launch's pointer lies before the
// array's start, so that the indices of its elements are large.
class Case {
 public:
  explicit Case(const std::string& folder);
  ~Case();

  const std::string& launch() const { return launch_; }
  bool has(const std::string& name) const;
  const std::string& scalar(const std::string& name) const;
  // Null where the case has no such array.
  const CaseArray* array(const std::string& name) const;
  // Throws where a value was never asked for: the launch has no such field.
  void check_all_used() const;
  // Writes every array back to its file.
  void save() const;

 private:
  std::string launch_;
  std::map<std::string, std::string> scalars_;
  std::map<std::string, CaseArray> arrays_;
  mutable std::set<std::string> used_;
};

// Runs the launch that the case names.
void run_launch(const Case& from);
